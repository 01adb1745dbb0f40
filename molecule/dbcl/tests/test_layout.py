"""What is there when the playbook has run."""

from __future__ import annotations

import json
import re

import pytest
from conftest import CLUSTER, NAMES

UNITS = ["etcd.service", "patroni.service", "pgbackrest.service", "dbcl-guard.service", "dbcl-check.timer"]


def test_one_leads_and_the_others_are_synchronous(complete):
    table = complete.table()
    assert sorted(table.values()) == [("Leader", "running"), *[("Quorum Standby", "streaming")] * 2]


def test_every_member_says_the_same(complete):
    assert len({json.dumps(complete.table(name)) for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_units(members, name):
    for unit in UNITS:
        assert members[name].ok(f"systemctl is-active {unit}") == "active"
        assert members[name].ok(f"systemctl is-enabled {unit}") == "enabled"
    assert members[name].ok("systemctl --failed --plain --no-legend") == ""
    assert members[name].run("systemctl is-active postgresql@17-main.service").status != 0


@pytest.mark.parametrize("unit", UNITS[:4])
def test_units_are_confined(members, unit):
    last = members[NAMES[0]].ok(f"systemd-analyze security --no-pager {unit}").splitlines()[-1]
    found = re.search(r"exposure level for \S+: ([\d.]+)", last)
    assert found, last
    assert float(found[1]) <= 3.0


def test_strict_synchronous_replication(members):
    config = json.loads(
        members[NAMES[0]].ok(
            "patronictl -c /etc/patroni/config.yml show-config | python3 -c "
            "'import json,sys,yaml; print(json.dumps(yaml.safe_load(sys.stdin)))'"
        )
    )
    assert config["synchronous_mode"] == "quorum"
    assert config["synchronous_mode_strict"] is True
    assert config["synchronous_node_count"] == 1
    assert members.sql("show synchronous_commit") == "on"
    assert members.sql("show synchronous_standby_names").startswith("ANY 1 (")


def test_database(members):
    row = members.sql(
        "select pg_encoding_to_char(encoding), datlocprovider, datlocale, pg_get_userbyid(datdba) from pg_database "
        "where datname = current_database()"
    )
    assert row == "UTF8|b|C.UTF-8|mongooseim"
    assert members.sql("show data_checksums") == "on"


def test_there_is_a_backup_from_the_first_day(members):
    for name in NAMES:
        info = members[name].ok(f"cd / && runuser -u postgres -- pgbackrest --stanza={CLUSTER} --output=json info")
        stanza = json.loads(info)[0]
        assert stanza["status"]["code"] == 0
        assert stanza["cipher"] == "aes-256-cbc"
        assert stanza["backup"]


def test_the_check_is_content(complete):
    for node in complete:
        assert node.ok("dbcl check", timeout=120) == "all is well"

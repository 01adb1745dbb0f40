"""The decisions of the program and of the filters, without a cluster."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROLE = Path(__file__).parents[1]
SETTINGS = {"members": [{"name": name, "address": f"192.0.2.{n}"} for n, name in enumerate("abc")]}
SETTINGS |= {
    "synchronous_node_count": 1,
    "lag_mb": 64,
    "ttl": 20,
    "loop_wait": 3,
    "guard_seconds": 4,
    "synchronous_mode": "quorum",
}
LEADER = {"name": "a", "role": "leader", "state": "running"}
STANDBY = {"name": "b", "role": "quorum_standby", "state": "streaming", "lag": 0}
OTHER = {"name": "c", "role": "quorum_standby", "state": "streaming", "lag": 0}


def load(path):
    spec = importlib.util.spec_from_file_location(f"dbcl_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


program = load(ROLE / "files/dbcl.py")
filters = load(ROLE / "filter_plugins/dbcl.py")


def said(members):
    return [(each.severity, each.text) for each in program.problems_of_members(members, SETTINGS)]


def test_all_is_well():
    assert said([LEADER, STANDBY, OTHER]) == []


@pytest.mark.parametrize(
    ("members", "severity", "text"),
    [
        ([], 2, "no member answers"),
        ([STANDBY, OTHER], 2, "no leader"),
        ([{**LEADER, "state": "stopped"}, STANDBY, OTHER], 2, "no leader"),
        ([LEADER], 2, "0 of 1 synchronous standbys"),
        ([LEADER, {**STANDBY, "role": "replica"}], 2, "0 of 1 synchronous standbys"),
        ([LEADER, STANDBY], 1, "c is missing"),
        ([LEADER, STANDBY, {**OTHER, "role": "replica"}], 1, "c is not synchronous"),
        ([LEADER, STANDBY, {**OTHER, "state": "starting"}], 1, "c does not stream"),
        ([LEADER, STANDBY, {**OTHER, "lag": 65 * 2**20}], 1, "c is behind the leader: 65 MB"),
        ([LEADER, STANDBY, {**OTHER, "lag": "unknown"}], 1, "c is behind the leader: unknown"),
    ],
)
def test_what_is_complained_about(members, severity, text):
    assert any(found == severity and text in sentence for found, sentence in said(members))


def info(code=0, **backup):
    return json.dumps([{"status": {"code": code, "message": "m"}, "backup": [backup] if backup else []}])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("", "does not answer"),
        ("[]", "nothing is there"),
        (info(99), "not usable: m"),
        (info(2), "there is no backup"),
        (info(timestamp={"stop": 0}, error=True), "there is no backup"),
        (info(timestamp={"stop": 0}, error=False), "30 hours old"),
        (info(timestamp={"stop": 4 * 3600}, error=False), ""),
    ],
)
def test_backups(answer, text):
    found = program.problems_of_backups(answer, now=30 * 3600, hours=27)
    assert text in found[0].text if text else found == []


def test_certificates_that_end_soon():
    day = 86400
    found = program.problems_of_certificates({"a": 59.5 * day, "b": 61 * day}, now=0)
    assert [each.text for each in found] == ["the certificate of a ends in 59 days: run playbooks/database.yml"]


def test_archiving():
    assert program.problems_of_archiving("\n") == program.problems_of_archiving("299\n") == []
    assert "5 minutes" in program.problems_of_archiving("301\n")[0].text


def test_status_and_lines_for_people(capsys, monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert program.say([program.Problem(1, "one"), program.Problem(2, "two")]) == 2
    assert capsys.readouterr().out == "critical: two\nwarning: one\n"
    assert program.say([]) == 0


def test_levels_for_the_journal(capsys, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert program.say([program.Problem(1, "one")]) == 1
    assert capsys.readouterr().out == "<4>warning: one\n"


class Seen:
    """A cluster in which the leader is dead or alive in several ways."""

    def __init__(self, *, accepts=False, streams=()):
        self.settings = SETTINGS
        self.addresses = {each["name"]: each["address"] for each in SETTINGS["members"]}
        self.accepts = lambda _member: accepts
        self.streams = streams

    def ask(self, member, _port, _path):
        return {"replication_state": "streaming"} if member in self.streams else {"state": "running"}


@pytest.mark.parametrize(
    ("cluster", "left", "dead"),
    [
        (Seen(), 11, True),
        (Seen(), 18, False),  # renewed a moment ago
        (Seen(accepts=True), 3, False),  # something of it lives
        (Seen(streams=["c"]), 3, False),  # another member hears from it
    ],
)
def test_a_leader_is_dead_only_when_nobody_hears_from_it(cluster, left, dead):
    assert program.has_died(cluster, program.Lease("a", "1", left)) is dead


# -- filters -----------------------------------------------------------------------------------------------------


def test_only_differences_are_sent():
    current = {
        "ttl": 20,
        "pause": True,
        "postgresql": {"parameters": {"jit": True, "work_mem": "8MB"}, "use_slots": True},
    }
    wanted = {"ttl": 20, "postgresql": {"parameters": {"jit": False, "work_mem": "8MB"}, "use_slots": True}}
    assert filters.dbcl_patch(current, current) == {}
    assert filters.dbcl_patch(current, wanted) == {"postgresql": {"parameters": {"jit": False}}}


def test_parameters_that_nobody_wants_any_more_are_removed():
    current = {"postgresql": {"parameters": {"jit": True, "work_mem": "8MB"}}}
    wanted = {"postgresql": {"parameters": {"jit": True}}}
    assert filters.dbcl_patch(current, wanted) == {"postgresql": {"parameters": {"work_mem": None}}}


def test_one_is_not_true():
    wanted = {"synchronous_mode": True, "postgresql": {"parameters": {}}}
    assert filters.dbcl_patch({"synchronous_mode": 1}, wanted) == {"synchronous_mode": True}


def test_addresses():
    assert filters.dbcl_network("192.0.2.1") == "192.0.2.1/32"
    assert filters.dbcl_network("2001:db8::1") == "2001:db8::1/128"
    assert filters.dbcl_url("2001:db8::1", 2379) == "https://[2001:db8::1]:2379"
    with pytest.raises(ValueError, match="neither an address nor a network"):
        filters.dbcl_network("db1")


def test_rules():
    assert filters.dbcl_rules([{"name": "d", "owner": "o"}], ["192.0.2.0/24"]) == [
        "hostssl d o 192.0.2.0/24 scram-sha-256"
    ]


@pytest.mark.parametrize(
    "choose", [filters.dbcl_newest, lambda all_: {"members": program.newest([a["members"] for a in all_])}]
)
def test_the_answer_that_knows_the_latest_leader_is_taken(choose):
    former = {"members": [{**LEADER, "timeline": 3}]}
    latest = {"members": [{**LEADER, "name": "b", "timeline": 4}]}
    none = {"members": [STANDBY]}
    for answers in ([former, latest, none], [none, latest, former]):
        assert choose(answers) == latest
    assert choose([none]) == none
    assert choose([]) == {"members": []}


def test_times_have_an_offset():
    assert filters.dbcl_epoch("1970-01-01 01:00:10+01:00") == 10
    with pytest.raises(ValueError, match="offset"):
        filters.dbcl_epoch("1970-01-01 01:00:10")

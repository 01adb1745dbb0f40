"""Nobody gets in without having to: ports, certificates, passwords, secrets."""

from __future__ import annotations

import contextlib
import socket

import psycopg2
import pytest
from conftest import CLUSTER, DATABASE, NAMES


@pytest.mark.parametrize("port", [2379, 2380, 8008, 8432])
def test_what_members_say_to_each_other_is_for_members(members, port):
    with (
        pytest.raises(TimeoutError),
        contextlib.closing(socket.create_connection((members[NAMES[0]].address, port), timeout=1)),
    ):
        pass


def test_a_member_without_its_certificate_is_refused(members):
    first, other = members[NAMES[0]], members[NAMES[1]].address
    context = "import ssl,urllib.request as r; c=ssl.create_default_context(cafile='/etc/dbcl/ca.crt');"
    for url in (f"https://{other}:8008/config", f"https://{other}:2379/version"):
        result = first.run(f"python3 -c \"{context} print(r.urlopen('{url}', context=c, timeout=5).read())\"")
        assert result.status != 0
        assert "certificate required" in result.output.lower() or "handshake" in result.output.lower()


def test_passwords_are_not_sent_in_clear(members, password):
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        psycopg2.connect(
            host=members.leader().address, user="mongooseim", password=password, dbname=DATABASE, sslmode="disable"
        )


def test_a_wrong_password_is_refused(members):
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host=members.leader().address, user="mongooseim", password="x", dbname=DATABASE)


def test_the_superuser_does_not_come_from_elsewhere(members, password):
    with pytest.raises(psycopg2.OperationalError, match=r"no pg_hba\.conf entry"):
        psycopg2.connect(host=members.leader().address, user="postgres", password=password, dbname=DATABASE)


def test_members_are_not_known_to_the_world(members):
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        psycopg2.connect(
            host=members.leader().address,
            user="mongooseim",
            dbname=DATABASE,
            sslmode="verify-full",
            sslrootcert="system",
        )


def test_nothing_secret_is_to_be_seen(members, variables):
    secrets = [value for name, value in variables[NAMES[0]].items() if name.startswith("vault_")]
    assert len(secrets) == 4
    for node in members:
        seen = node.ok("ps axww -o args=; journalctl --no-pager -o cat; cat /etc/dbcl/dbcl.json")
        assert [secret for secret in secrets if secret in seen] == []
        readable = node.ok("find /etc /usr/local -xdev -type f -perm -o=r -print0 | xargs -0 cat")
        assert [secret for secret in secrets if secret in readable] == []
    assert CLUSTER in seen

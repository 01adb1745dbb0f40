from __future__ import annotations

from pathlib import Path

import pytest

from bench.child import ServerError
from bench.servers import SERVERS
from bench.servers.base import Edit, account, apply_edits, bench_accounts, free_ports


def test_edits_change_every_occurrence():
    text = "a:\n  port: 1\n  port: 1\n"
    assert apply_edits(text, [Edit(r"^( +)port: 1$", r"\g<1>port: 9")], Path("x.yml")) == "a:\n  port: 9\n  port: 9\n"


def test_configuration_that_is_not_the_expected_one_is_named():
    with pytest.raises(ServerError, match=r"x\.yml does not contain"):
        apply_edits("nothing", [Edit("^port", "")], Path("x.yml"))


def test_ports_are_distinct():
    assert len(set(free_ports(20))) == 20


def test_sessions_beyond_the_accounts_get_another_resource():
    users = set(bench_accounts(100))
    sessions = [account(number, 100) for number in range(250)]
    assert {session.user for session in sessions} == users
    assert len({(session.user, session.resource) for session in sessions}) == 250
    assert {session.resource for session in sessions} == {"r0", "r1", "r2"}


@pytest.mark.parametrize("name", ["ejabberd", "prosody"])
def test_configuration_of_a_peer_comes_from_its_package(name, tmp_path):
    server = SERVERS[name](tmp_path, {0}, accounts=2)
    if reason := server.missing():
        pytest.skip(reason)
    server.configure()
    (configuration,) = [path for path in tmp_path.iterdir() if path.name in {"ejabberd.yml", "prosody.cfg.lua"}]
    text = configuration.read_text()
    for port in (server.port_plain, server.port_tls):
        assert str(port) in text
    for standard in ('"::"', "5222\n", "5223\n", "/var/log/prosody", "/etc/ejabberd/"):
        assert standard not in text.replace("## ", "")

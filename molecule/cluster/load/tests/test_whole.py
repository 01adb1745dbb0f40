"""The load against a real server that does what it should: restarts and interruptions lose and repeat nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from load import accounts, table
from load.__main__ import EXIT_OK, EXIT_USAGE, main
from load.crowd import Plan
from load.login import CLEAR, DIRECT, STARTTLS
from load.process import LoadError, LoadProcess

CLEAN = {
    "lost": 0,
    "duplicated": 0,
    "bounced": {},
    "unacknowledged": 0,
    "misordered": 0,
    "damaged": 0,
    "misdelivered": 0,
    "strays": 0,
}


def assert_clean(report, **others):
    found = asdict(report.findings)
    assert {name: found[name] for name in CLEAN} == CLEAN | others, report
    assert report.findings.acknowledged == report.findings.sent > 0
    assert (report.ghosts, report.unseen, report.incomplete) == ([], [], [])


@pytest.mark.parametrize("security", [CLEAR, STARTTLS, DIRECT])
async def test_nothing_happens(load, server, security):
    crowd = load(server.clear_port if security == CLEAR else server.tls_port, security=security)
    await crowd.begin()
    await crowd.talk(200)
    report = await crowd.settle()
    assert_clean(report)
    assert (report.resumptions, report.new_sessions, report.ends) == (0, 0, {})
    assert table.complaints(report.as_json()) == []


async def test_a_second_round_begins_anew(load, server):
    crowd = load(server.clear_port)
    await crowd.begin()
    await crowd.talk(100)
    first = await crowd.settle()
    crowd.again()
    await crowd.talk(100)
    second = await crowd.settle()
    assert_clean(first)
    assert_clean(second)


async def test_connections_that_break_are_resumed(load, relay):
    crowd = load(relay.port)
    await crowd.begin()
    for _ in range(5):
        await crowd.talk(50)
        relay.cut()
        await crowd.until(lambda: all(client.usable for client in crowd.crowd.clients), "everybody is back")
    report = await crowd.settle()
    assert_clean(report)
    assert report.resumptions == 5 * report.clients
    assert report.new_sessions == 0
    assert report.findings.resent == 0
    assert report.interruption > 0


async def test_a_silent_connection_is_given_up_for_another_address(load, server, relay, monkeypatch):
    monkeypatch.setattr("load.client.PATIENCE", 0.5)
    crowd = load(relay.port, server.clear_port, plan=Plan(pairs=1, sleepers=0, rate=20))
    await crowd.begin()
    await crowd.talk(20)
    relay.silent = True
    relay.refusing = True
    await crowd.until(lambda: crowd.client_of(0).counts["resumptions"] == 1, "the silence is noticed")
    report = await crowd.settle()
    assert_clean(report)
    assert report.ends["the server is silent"] == 1
    assert report.interruption > 0.5


async def test_who_was_not_touched_is_told_apart(load, server, relay):
    # The even numbers go through the relay, the odd ones do not.
    crowd = load(relay.port, server.clear_port)
    await crowd.begin()
    await crowd.talk(50)
    crowd.round.fault("cut", [client.account.user for client in crowd.crowd.clients[::2]])
    relay.refusing = True
    relay.cut()
    await crowd.until(lambda: all(client.usable for client in crowd.crowd.clients), "everybody is back")
    report = await crowd.settle()
    assert_clean(report)
    assert (report.name, report.touched, report.resumptions) == ("cut", 3, 3)
    assert report.untouched < report.interruption


async def test_a_server_that_restarts(load, victim):
    crowd = load(victim.clear_port)
    await crowd.begin()
    await crowd.talk(100)
    victim.stop()
    victim.launch()
    await crowd.until(lambda: all(client.usable for client in crowd.crowd.clients), "everybody is back")
    await crowd.talk(50)
    report = await crowd.settle()
    assert report.resumptions + report.new_sessions == report.clients
    assert report.findings.lost == report.findings.unacknowledged == 0


async def test_a_server_that_is_killed(load, victim):
    crowd = load(victim.clear_port)
    await crowd.begin()
    await crowd.talk(100)
    victim.kill()
    victim.launch()
    await crowd.until(lambda: all(client.usable for client in crowd.crowd.clients), "everybody is back")
    await crowd.talk(50)
    report = await crowd.settle()
    # What the server has promised it may have broken; what it has not, it has been asked for again.
    assert report.resumptions + report.new_sessions == report.clients
    assert report.findings.unacknowledged == 0
    assert report.incomplete == []


def test_the_command_line(server, make_accounts, tmp_path, capsys):
    plan = ["--pairs", "2", "--sleepers", "1", "--rate", "20", "--seconds", "1", "--security", "clear"]
    accounts.write(tmp_path / "accounts", make_accounts(5))
    options = ["--addresses", f"127.0.0.1:{server.clear_port}", "--domain", "localhost", *plan]
    options += ["--accounts", str(tmp_path / "accounts")]
    assert main([*options, "--output", str(tmp_path / "report.json")]) == EXIT_OK
    assert "acknowledged" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["findings"]["lost"] == 0
    assert main([*options, "--pairs", "3"]) == EXIT_USAGE
    assert "7 accounts are needed, there are 5" in capsys.readouterr().err


def test_a_driver(server, make_accounts, tmp_path):
    accounts.write(tmp_path / "accounts", make_accounts(5))
    arguments = ["--addresses", f"127.0.0.1:{server.clear_port}", "--domain", "localhost", "--security", "clear"]
    arguments += ["--accounts", str(tmp_path / "accounts"), "--pairs", "2", "--sleepers", "1", "--rate", "20"]
    with LoadProcess(arguments, tmp_path / "log") as load:
        with pytest.raises(LoadError, match="no round is under way"):
            load.settle()
        load.come()
        load.start()
        online = load.online()
        assert len(online) == 4
        load.fault("nothing at all", [online[0].partition("@")[0]])
        report = load.settle()
        assert (report["name"], report["touched"]) == ("nothing at all", 1)
        load.leave()
    assert (tmp_path / "log").read_text() == ""

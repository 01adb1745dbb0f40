"""mongooseimctl: the server, its configuration, its life; the tool itself."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import stat
import tomllib
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.ctl import Ctl
from tests.support.matching import STREAM_ERRORS
from tests.support.stack import HOSTS, XmppServer

HOST = "localhost"
NODE = f"mongooseim@{socket.gethostname()}"


@pytest.fixture
def own(server_with, request):
    """A server of the test's own, whose configuration it may change."""
    return server_with({"modules": {"version": {"name": request.node.name}}})


@pytest.fixture
def own_ctl(own) -> Ctl:
    return Ctl(own.program.config)


def edit(path: Path, old: str, new: str) -> None:
    """What an operator does with an editor."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# ------------------------------------------------------------------------------------------------- the server


async def test_status(server, ctl):
    lines = await ctl.lines("status")
    assert lines[0] == f"The node {NODE} is started with status: started"
    assert lines[1].startswith("MonkTalk version ")
    facts = await ctl.json("status")
    assert (facts["pid"], facts["hosts"][:3]) == (server.program.pid, HOSTS[:3])
    assert facts["config"] == str(server.program.config)
    assert facts["database"] == "reachable"


async def test_started(ctl):
    assert await ctl.text("started") == ""
    assert await ctl.json("started") == {"status": "started"}


async def test_registered_vhosts(ctl):
    assert await ctl.lines("registered_vhosts") == (await ctl.json("status"))["hosts"]
    assert await ctl.json("registered_vhosts") == await ctl.lines("registered_vhosts")


async def test_cert_info(server, ctl):
    rows = await ctl.json("cert_info")
    assert [row["host"] for row in rows] == ["*"]
    assert rows[0]["path"] == str(server.program.certificate)
    assert 0 <= rows[0]["days_left"] < 4000
    line = (await ctl.text("cert_info")).split("\t")
    assert line == ["*", str(rows[0]["days_left"]), rows[0]["not_after"], rows[0]["path"]]


async def test_stats(server, ctl, account):
    await server.login(account("romeo"))
    await server.login(account("nurse", host="other.example"))
    registered, online = await ctl.json("stats", "registeredusers"), await ctl.json("stats", "onlineusers")
    assert registered >= 2
    assert online >= 2
    assert await ctl.text("stats", "onlineusersnode") == str(online)
    assert 0 <= int(await ctl.text("stats", "uptimeseconds")) < 7200
    assert 1 <= int(await ctl.text("stats_host", "onlineusers", "other.example")) < online
    assert 1 <= await ctl.json("stats_host", "registeredusers", "other.example") < registered
    assert "no figure" in await ctl.refused("stats", "bandwidth", code=2)
    assert "no figure" in await ctl.refused("stats_host", "uptimeseconds", HOST, code=2)


async def test_loglevel(own, own_ctl):
    assert await own_ctl.text("get_loglevel") == "global loglevel is 4, which means 'info'"
    assert await own_ctl.text("set_loglevel", "5") == "global loglevel is 5, which means 'debug'"
    assert await own_ctl.json("set_loglevel", "warning") == {"level": "warning", "number": 3}
    assert await own_ctl.json("get_loglevel") == {"level": "warning", "number": 3}
    assert "not a log level" in await own_ctl.refused("set_loglevel", "loud")
    await own_ctl.text("reload_local")
    assert await own_ctl.json("get_loglevel") == {"level": "info", "number": 4}


# -------------------------------------------------------------------------------------------------- reloading


async def test_reload(own, own_ctl, account):
    romeo = await own.login(account("romeo"))
    edit(own.program.config, "hosts = [", 'hosts = ["new.example", ')
    assert await own_ctl.text("reload_local") == f"# Reloaded: {NODE}"
    assert "new.example" in await own_ctl.lines("registered_vhosts")
    await romeo.settled()
    edit(own.program.config, '"new.example", ', "")
    answer = await own_ctl.json("reload_local")
    assert answer == {"node": NODE, "applied": ["general.hosts"], "restart_needed": []}
    await romeo.settled()


async def test_reload_names_what_needs_a_restart(own, own_ctl):
    edit(own.program.config, "[general]", '[general]\nlog_file = "other.log"')
    lines = await own_ctl.lines("reload_local")
    assert lines[0] == f"# Reloaded: {NODE}"
    assert "restart" in lines[1]
    assert "general.log_file" in lines[1]


@pytest.mark.parametrize("wrong", ["hosts = [,", 'loglevel = "loud"', 'colour = "blue"'])
async def test_a_refused_file_changes_nothing(own, own_ctl, account, wrong):
    romeo = await own.login(account("romeo"))
    before = own.program.config.read_text()
    edit(own.program.config, "[general]\n", f"[general]\n{wrong}\n")
    try:
        line = before[: before.index("[general]\n")].count("\n") + 2
        complaint = await own_ctl.refused("reload_local")
        assert complaint.startswith(f"{own.program.config}:{line}: ")
        assert await own_ctl.json("registered_vhosts") == (await own_ctl.json("status"))["hosts"]
        await romeo.settled()
        assert await own_ctl.json("get_loglevel") == {"level": "info", "number": 4}
    finally:
        own.program.config.write_text(before)
    assert await own_ctl.text("reload_local") == f"# Reloaded: {NODE}"


async def test_reload_takes_a_new_certificate(own, own_ctl, tmp_path):
    certificate, key = make_certificate(tmp_path, "renewed", HOSTS)
    shutil.copy(certificate, own.program.certificate)
    broken = await own_ctl.refused("reload_local")
    assert "can't be used" in broken
    shutil.copy(key, key_of(own.program))
    assert await own_ctl.text("reload_local") == f"# Reloaded: {NODE}"
    client = await own.stream("starttls")
    assert client.wire.peer_certificate() == ssl.PEM_cert_to_DER_cert(certificate.read_text())


def key_of(program: XmppServer) -> Path:
    """The private key that the configuration names."""
    named: str = tomllib.loads(program.config.read_text())["tls"]["key"]
    return Path(named)


# ------------------------------------------------------------------------------------------------------ hosts


async def test_add_and_remove_a_domain(own, own_ctl, account):
    romeo = await own.login(account("romeo"))
    config = own.program.config
    edit(config, "[general]", "# Kept by hand.\n[general]")
    before, mode = config.read_text(), stat.S_IMODE(config.stat().st_mode)
    lines = await own_ctl.lines("add_domain", "Neu.Example")
    assert lines == ["Host neu.example is served", f"# Reloaded: {NODE}"]
    assert "neu.example" in await own_ctl.lines("registered_vhosts")
    assert "neu.example" in tomllib.loads(config.read_text())["general"]["hosts"]
    assert stat.S_IMODE(config.stat().st_mode) == mode
    newcomer = await own.stream(host="neu.example")
    assert newcomer.header["from"] == "neu.example"
    await romeo.settled()
    assert (await own_ctl.json("remove_domain", "neu.example"))["served"] is False
    assert "neu.example" not in await own_ctl.lines("registered_vhosts")
    assert config.read_text() == before
    await romeo.settled()
    assert [path.name for path in config.parent.iterdir() if path.name.startswith(f".{config.name}")] == []


async def test_removing_a_domain_ends_its_sessions(own, own_ctl, account):
    nurse = await own.login(account("nurse", host="other.example"))
    await own_ctl.text("remove_domain", "other.example")
    error = await nurse.wire.event()
    assert error[0].tag == f"{{{STREAM_ERRORS}}}host-gone"
    assert (await own_ctl.json("add_domain", "other.example"))["served"] is True
    await own.login(nurse.account)


async def test_domains_that_are_not_added_or_removed(own, own_ctl):
    before = own.program.config.read_bytes()
    assert "one of the hosts already" in await own_ctl.refused("add_domain", "LOCALHOST")
    assert "can't be a host" in await own_ctl.refused("add_domain", "a b")
    assert "not one of the hosts" in await own_ctl.refused("remove_domain", "neu.example")
    # The administrator of the configuration is of that host.
    complaint = await own_ctl.refused("remove_domain", HOST)
    assert complaint.startswith(f"{own.program.config}:")
    assert own.program.config.read_bytes() == before


async def test_a_list_of_hosts_in_many_lines(own, own_ctl):
    config = own.program.config
    hosts = tomllib.loads(config.read_text())["general"]["hosts"]
    written = ",\n".join(f'    "{host}"' for host in hosts)
    line = next(line for line in config.read_text().splitlines() if line.startswith("hosts = "))
    edit(config, line, f"hosts = [\n{written}, # the last\n]")
    await own_ctl.text("add_domain", "neu.example")
    assert '    "neu.example",\n]' in config.read_text()
    assert "# the last" in config.read_text()
    await own_ctl.text("remove_domain", "neu.example")
    edit(config, f"hosts = [\n{written}, # the last\n]", line)


# ---------------------------------------------------------------------------------------------- check_config


async def test_check_config(server, ctl, tmp_path):
    assert await ctl.text("check_config") == f"{server.program.config} is valid"
    assert await ctl.json("check_config", str(server.program.config)) == {
        "file": str(server.program.config),
        "valid": True,
        "problems": [],
    }
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[general]\nhosts = ["localhost"]\ncolour = "blue"\n\n[limits]\ndepth = 2\n')
    done = await ctl.run("check_config", str(wrong))
    assert (done.code, done.out) == (1, "")
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == [f"{wrong}:3", f"{wrong}:6"]
    found = json.loads((await ctl.run("--json", "check_config", str(wrong))).out)
    assert [(problem["line"], problem["key"]) for problem in found["problems"]] == [
        (3, "general.colour"),
        (6, "limits.depth"),
    ]
    missing = await ctl.run("check_config", str(tmp_path / "missing.toml"))
    assert (missing.code, "cannot be read" in missing.err) == (1, True)


# --------------------------------------------------------------------------------------- the tool, life cycle


async def test_options(server, ctl):
    program = server.program
    wanted = await ctl.text("registered_vhosts")
    for options in (
        (f"--config={program.config}",),
        ("--socket", str(program.control_socket)),
        (f"--socket={program.control_socket}",),
    ):
        done = await ctl.run("registered-vhosts", options=options)
        assert (done.code, done.out.strip()) == (0, wanted)
    assert json.loads((await ctl.run("registered_vhosts", "--json")).out) == wanted.splitlines()


async def test_wrong_usage(ctl):
    assert "no command 'frobnicate'" in await ctl.refused("frobnicate", code=2)
    assert "Usage: mongooseimctl check_account USER HOST" in await ctl.refused("check_account", "x", code=2)
    assert "Usage: mongooseimctl status" in await ctl.refused("status", "x", code=2)
    assert "no option --colour" in await ctl.refused("--colour", "status", code=2)
    done = await ctl.run()
    assert (done.code, "connected_users_info" in done.err) == (2, True)


async def test_help(ctl):
    overview = await ctl.text("help")
    assert "import_users FILE" in overview
    assert "Usage: mongooseimctl register [USER] HOST PASSWORD" in await ctl.text("help", "register")
    assert {entry["name"] for entry in await ctl.json("help", "get_vcard*")} == {
        "get_vcard",
        "get_vcard2",
        "get_vcard2_multi",
    }
    assert "no command" in await ctl.refused("help", "frobnicate", code=2)


async def test_nobody_answers(ctl, tmp_path):
    gone = ("--socket", str(tmp_path / "gone.sock"))
    for command in (("connected_users",), ("add_domain", "x.example"), ("status",)):
        done = await ctl.run(*command, options=gone)
        assert done.code == 3, done
        assert "gone.sock" in done.err
    as_json = await ctl.run("--json", "status", options=gone)
    assert (as_json.code, json.loads(as_json.out)["status"]) == (3, "stopped")
    assert (await ctl.run("stopped", options=gone)).code == 0
    done = await ctl.run("connected_users", options=("--config", str(tmp_path / "none.toml")))
    assert (done.code, "can't be read" in done.err) == (1, True)


async def test_waiting_for_the_end(own, own_ctl):
    waiting = asyncio.create_task(own_ctl.run("stopped"))
    await own_ctl.text("status")
    assert not waiting.done()
    status = await asyncio.to_thread(own.program.stop)
    assert status == 0
    assert (await waiting).code == 0
    assert not own.program.control_socket.exists()
    assert (await own_ctl.run("status")).code == 3
    waiting = asyncio.create_task(own_ctl.run("started"))
    await asyncio.to_thread(own.program.launch)
    assert (await waiting).code == 0


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here, and the unit may be there")
@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
async def test_life_cycle_without_systemd(ctl, verb):
    assert f"systemd does not run on this machine, so there is no unit mongooseim to {verb}" in await ctl.refused(verb)


async def test_a_server_does_not_take_the_socket_of_another_one(own, own_ctl, farm):
    second = XmppServer(own.program.directory / "second", farm.auth, {})
    second.config.write_text(
        second.config.read_text().replace(str(second.control_socket), str(own.program.control_socket))
    )
    with pytest.raises(AssertionError, match="another server answers on the control socket"):
        await asyncio.to_thread(second.launch)
    assert (await own_ctl.json("status"))["pid"] == own.program.pid


async def test_a_socket_left_behind_is_replaced(own, own_ctl):
    own.program.kill()
    assert own.program.control_socket.exists()
    assert (await own_ctl.run("status")).code == 3
    await asyncio.to_thread(own.program.launch)
    assert (await own_ctl.json("status"))["pid"] == own.program.pid


async def test_only_the_servers_user_may_connect(server):
    assert stat.S_IMODE(server.program.control_socket.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "command",
    [
        ("cluster_status",),
        ("reload_cluster",),
        ("drain",),
        ("join_cluster", "other"),
        ("leave_cluster",),
        ("remove_from_cluster", "other"),
    ],
    ids=lambda command: command[0],
)
async def test_a_server_that_is_alone_says_so(ctl, command):
    assert "is alone: its configuration names no bus" in await ctl.refused(*command)

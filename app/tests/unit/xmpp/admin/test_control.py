"""The control socket: whom it listens to, what it makes of what it is told, and its file."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monktalk.xmpp.admin import control
from monktalk.xmpp.admin.control import ControlSocket
from monktalk.xmpp.modules.roster import RosterModule
from tests.support.inproc import HOST, site


@pytest.fixture
async def running(tmp_path):
    async with site({"roster": RosterModule}) as found:
        yield found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


class Node:
    """A program that has a server and nothing else."""

    def __init__(self, server: Any) -> None:
        self.server = server


@contextlib.asynccontextmanager
async def listening(running, path, **options):
    node: Any = Node(running.server)
    opened = ControlSocket(node, **options)
    await opened.start(path)
    try:
        yield opened
    finally:
        await opened.close()


async def exchange(path: Path, data: bytes, *, eof: bool = True) -> dict[str, Any]:
    """Send bytes and read the answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        await writer.drain()
        if eof:
            writer.write_eof()
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert answer.endswith(b"\n")
    found: dict[str, Any] = json.loads(answer)
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds that no event tells of."""
    async with asyncio.timeout(10):
        for _ in itertools.count():
            if condition():
                return
            await asyncio.sleep(0)


def request(command: str, *arguments: str) -> bytes:
    return json.dumps({"command": command, "arguments": list(arguments), "directory": "/"}).encode() + b"\n"


async def test_a_command(running, path):
    async with listening(running, path):
        answer = await exchange(path, request("registered_vhosts"), eof=False)
    assert answer == {"code": 0, "text": "\n".join(running.server.hosts), "data": list(running.server.hosts)}


async def test_refusals(running, path):
    async with listening(running, path):
        assert await exchange(path, request("check_account", "nobody", HOST)) == {
            "code": 1,
            "error": f"User nobody@{HOST} does not exist",
        }
        assert (await exchange(path, request("check_account", "nobody")))["code"] == 2
        assert (await exchange(path, request("check_account", "no\x1bbody", HOST)))["code"] == 2


async def test_failures_that_can_happen_to_any_command(running, path):
    accounts = running.accounts()
    accounts.passwords["romeo"] = "x"
    async with listening(running, path):
        accounts.available = False
        answer = await exchange(path, request("check_account", "romeo", HOST))
        assert "authentication service can't be reached" in answer["error"]
        accounts.available = True
        running.storage.set_available(False)
        answer = await exchange(path, request("get_roster", "romeo", HOST))
        assert "database can't be reached" in answer["error"]


async def test_a_program_error_is_logged_and_costs_one_command(running, path, caplog):
    del running.server.clock
    async with listening(running, path):
        assert await exchange(path, request("stats", "uptimeseconds")) == {
            "code": 1,
            "error": "stats failed: the log of the server says why.",
        }
        assert (await exchange(path, request("registered_vhosts")))["code"] == 0
    assert "control_failed" in caplog.text


async def test_arguments_are_not_logged(running, path, caplog):
    caplog.set_level("DEBUG")
    async with listening(running, path):
        await exchange(path, request("register", "romeo", HOST, "open-sesame"))
        await exchange(path, request("register", "romeo", HOST, "open-sesame"))
        await exchange(path, request("check_password", "romeo", HOST, "open-sesame"))
        await exchange(path, request("open-sesame"))
    logged = "\n".join(f"{record.msg} {getattr(record, 'fields', '')}" for record in caplog.records)
    assert "control_command" in logged
    assert "open-sesame" not in logged


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"status\n",
        b"[]\n",
        b'{"command": 1}\n',
        b'{"command": "status", "arguments": "x"}\n',
        b'{"command": "status", "arguments": [1]}\n',
        b'{"command": "status", "directory": null}\n',
        b'{"command": "status"',
        b"\xff\n",
    ],
)
async def test_what_is_no_request(running, path, data):
    async with listening(running, path):
        answer = await exchange(path, data)
    assert answer == {"code": 1, "error": "A request is one line of JSON: command, arguments, directory."}


async def test_a_request_that_is_too_long(running, path, monkeypatch):
    monkeypatch.setattr(control, "MAX_REQUEST", 4096)
    async with listening(running, path):
        answer = await exchange(path, b"x" * 5000 + b"\n", eof=False)
    assert answer == {"code": 1, "error": "A request may have 4096 bytes."}


async def test_a_caller_that_says_nothing(running, path, monkeypatch):
    monkeypatch.setattr(control, "REQUEST_SECONDS", 0.05)
    async with listening(running, path):
        answer = await exchange(path, b'{"command":', eof=False)
    assert "one line of JSON" in answer["error"]


async def test_too_many_callers(running, path, monkeypatch):
    monkeypatch.setattr(control, "MAX_CALLERS", 1)
    async with listening(running, path) as opened:
        _, waiting = await asyncio.open_unix_connection(str(path))
        await until(lambda: bool(opened._callers))
        assert "busy" in (await exchange(path, request("registered_vhosts")))["error"]
        waiting.close()
        await waiting.wait_closed()
        await until(lambda: not opened._callers)
        assert (await exchange(path, request("registered_vhosts")))["code"] == 0


async def test_other_users_are_refused(running, path, caplog):
    async with listening(running, path, allowed=frozenset({os.getuid() + 1})):
        answer = await exchange(path, request("registered_vhosts"))
    assert answer == {"code": 1, "error": "Only root and the user that the server runs as may administrate it."}
    assert "control_refused" in caplog.text


async def test_closing_ends_commands_under_way(running, path):
    async with listening(running, path) as opened:
        reader, writer = await asyncio.open_unix_connection(str(path))
        await until(lambda: bool(opened._callers))
        await opened.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


# --------------------------------------------------------------------------------------------------- the file


async def test_the_file(running, path):
    async with listening(running, path):
        facts = path.stat()
        assert stat.S_ISSOCK(facts.st_mode)
        assert stat.S_IMODE(facts.st_mode) == 0o600
    assert not path.exists()


async def test_a_socket_of_a_dead_server_is_replaced(running, path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with listening(running, path):
        assert (await exchange(path, request("registered_vhosts")))["code"] == 0


async def test_a_socket_that_answers_is_not(running, path):
    async with listening(running, path):
        other: Any = ControlSocket(Node(running.server))  # type: ignore[arg-type]  # has what the commands use
        with pytest.raises(OSError, match="another server answers"):
            await other.start(path)
        await other.close()
        assert (await exchange(path, request("registered_vhosts")))["code"] == 0


async def test_any_other_file_is_not_touched(running, path):
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="another file of that name"):
        async with listening(running, path):
            pass
    assert path.read_text() == "precious"


async def test_a_socket_of_somebody_else_is_not_removed(running, path):
    async with listening(running, path):
        path.unlink()
        path.write_text("theirs")
    assert path.read_text() == "theirs"


async def test_a_place_that_does_not_exist(running, tmp_path):
    with pytest.raises(OSError, match="can't be made"):
        async with listening(running, tmp_path / "missing" / "control.sock"):
            pass


async def test_an_inherited_socket_answers_and_its_file_stays(running, path):
    """A supervisor has made it, and other workers go on to answer on it."""
    sock = control.bind(path)
    for _ in range(2):
        node: Any = Node(running.server)
        opened = ControlSocket(node)
        await opened.start(path, sock.dup())
        assert (await exchange(path, request("registered_vhosts")))["code"] == 0
        await opened.close()
        assert path.is_socket()
    sock.close()

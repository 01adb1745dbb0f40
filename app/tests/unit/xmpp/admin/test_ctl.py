"""The command line: taking it apart, exit codes, becoming the service user."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monktalk.xmpp.admin import client, ctl
from monktalk.xmpp.admin.ctl import Invocation, become_service_user, parse
from monktalk.xmpp.admin.registry import UsageError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Invocation()),
        ("status", Invocation("status")),
        ("registered-vhosts", Invocation("registered_vhosts")),
        ("register a-b c d", Invocation("register", ["a-b", "c", "d"])),
        ("--json stats x", Invocation("stats", ["x"], json=True)),
        ("stats x --json", Invocation("stats", ["x"], json=True)),
        ("--config f --socket=s status", Invocation("status", config="f", socket="s")),
        ("status --config=f", Invocation("status", config="f")),
        ("register u h -p", Invocation("register", ["u", "h", "-p"])),
        ("register u h --p=x", Invocation("register", ["u", "h", "--p=x"])),
        ("register u h -- --json", Invocation("register", ["u", "h", "--json"])),
        ("register -- u -- --config", Invocation("register", ["u", "--", "--config"])),
        ("--help", Invocation("help")),
        ("-h register", Invocation("help", ["register"])),
    ],
)
def test_command_lines(line, expected):
    assert parse(line.split()) == expected


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--colour", "status"], "no option --colour"),
        (["--config"], "needs a file name"),
        (["--socket=", "status"], "needs a file name"),
        (["stats", "\udcff"], "not valid UTF-8"),
    ],
)
def test_command_lines_that_are_wrong(words, reason):
    with pytest.raises(UsageError, match=reason):
        parse(words)


# ------------------------------------------------------------------------------------------- what is printed


def call(monkeypatch, capsys, answer: dict[str, Any] | Exception, *words: str) -> tuple[int, str, str]:
    """Run the tool with a server that gives this answer."""

    def ask(_path: Path, _command: str, _arguments: list[str], *, seconds: float = 0) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(sys, "argv", ["mongooseimctl", "--socket", "/nonexistent", *words])
    code = ctl.main()
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_success(monkeypatch, capsys):
    answer = {"code": 0, "text": "a\nb", "data": ["a", "b"]}
    assert call(monkeypatch, capsys, answer, "x") == (0, "a\nb\n", "")
    assert call(monkeypatch, capsys, answer, "x", "--json") == (0, '[\n  "a",\n  "b"\n]\n', "")
    assert call(monkeypatch, capsys, {"code": 0, "text": "", "data": []}, "x") == (0, "", "")


@pytest.mark.parametrize("code", [1, 2])
def test_refusal(monkeypatch, capsys, code):
    answer = {"code": code, "error": "No: ünmöglich"}
    assert call(monkeypatch, capsys, answer, "x") == (code, "", "No: ünmöglich\n")
    found = call(monkeypatch, capsys, answer, "x", "--json")
    assert (found[0], json.loads(found[1]), found[2]) == (code, {"error": "No: ünmöglich"}, "")


def test_a_list_with_failures_in_it(monkeypatch, capsys):
    answer = {"code": 1, "text": "ok\ta\nexists\tb", "data": [{"user": "a"}]}
    assert call(monkeypatch, capsys, answer, "import_users", "f") == (1, "ok\ta\nexists\tb\n", "")


def test_nobody_answers(monkeypatch, capsys):
    assert call(monkeypatch, capsys, client.Unreachable("Nobody."), "x") == (3, "", "Nobody.\n")
    assert call(monkeypatch, capsys, client.Unreachable("Nobody."), "x", "--json")[0] == 3


def test_wrong_usage(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mongooseimctl", "--colour", "--json"])
    assert ctl.main() == 2
    assert "no option" in json.loads(capsys.readouterr().out)["error"]


def test_a_reader_that_has_had_enough(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    process = subprocess.Popen(
        [sys.executable, "-m", "monktalk.xmpp.admin.ctl", "--socket", str(tmp_path / "s"), "connected_users"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    connection, _ = listener.accept()
    with listener, connection:
        connection.recv(65536)
        connection.sendall(json.dumps({"code": 0, "text": "x" * 100_000, "data": []}).encode() + b"\n")
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0


def test_it_loads_little():
    """Operators call it in loops; SQLAlchemy alone would take longer than everything else."""
    script = "import sys, monktalk.xmpp.admin.ctl; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"sqlalchemy", "aiohttp", "asyncio", "cryptography", "precis_i18n", "uvloop", "xml.etree.ElementTree"}
    assert not heavy & set(loaded)


# ---------------------------------------------------------------------------------------- the service user


class Calls:
    """What was asked of the kernel."""

    def __init__(self, monkeypatch, *, euid: int, owner: int, exists: bool = True) -> None:
        self.made: list[tuple[Any, ...]] = []
        account = pwd.struct_passwd(("mongooseim", "x", 4711, 4712, "", "/var/lib/mongooseim", "/bin/sh"))

        def lookup(name: str) -> pwd.struct_passwd:
            if not exists or name != "mongooseim":
                raise KeyError(name)
            return account

        class Stat:
            st_uid = owner

        monkeypatch.setattr(os, "geteuid", lambda: euid)
        monkeypatch.setattr(pwd, "getpwnam", lookup)
        monkeypatch.setattr(Path, "stat", lambda _self: Stat())
        for name in ("initgroups", "setresgid", "setresuid"):
            monkeypatch.setattr(os, name, lambda *arguments, name=name: self.made.append((name, *arguments)))
        monkeypatch.setattr(os, "environ", dict(os.environ))


def test_root_becomes_the_service_user(monkeypatch):
    calls = Calls(monkeypatch, euid=0, owner=4711)
    become_service_user(Path("/run/mongooseim/control.sock"))
    assert calls.made == [
        ("initgroups", "mongooseim", 4712),
        ("setresgid", 4712, 4712, 4712),
        ("setresuid", 4711, 4711, 4711),
    ]
    assert (os.environ["USER"], os.environ["HOME"]) == ("mongooseim", "/var/lib/mongooseim")


@pytest.mark.parametrize(
    ("euid", "owner", "exists"),
    [
        pytest.param(4711, 4711, True, id="it is the service user"),
        pytest.param(1000, 4711, True, id="it is not root"),
        pytest.param(0, 0, True, id="the server was started by root, embedded"),
        pytest.param(0, 4711, False, id="there is no such user"),
    ],
)
def test_nobody_becomes_somebody_else(monkeypatch, euid, owner, exists):
    calls = Calls(monkeypatch, euid=euid, owner=owner, exists=exists)
    become_service_user(Path("/run/mongooseim/control.sock"))
    assert calls.made == []

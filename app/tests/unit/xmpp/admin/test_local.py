"""What mongooseimctl does itself: systemd, and changing the configuration file safely."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from monktalk.xmpp.admin import client, local
from monktalk.xmpp.admin.local import Place, add_domain, remove_domain
from monktalk.xmpp.admin.registry import CommandError

CONFIG = """\
# Written by hand.
[general]
hosts = ["localhost"] # more later
[[listen.c2s]]
starttls_required = false
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mongooseim.toml"
    path.write_text(CONFIG)
    return path


class FakeServer:
    """Answers status and reload_local as a server that runs with this file would."""

    def __init__(self, monkeypatch, config: Path, reload: dict[str, Any] | Exception | None = None) -> None:
        self.seen: list[str] = []
        self._config = config
        self._reload = reload or {"code": 0, "text": "# Reloaded: node", "data": {}}
        self.before_reload = lambda: None
        monkeypatch.setattr(client, "ask", self._ask)

    def _ask(self, _path: Path, command: str, _arguments: list[str], **_options: float) -> dict[str, Any]:
        if command == "status":
            self.before_reload()
            return {"code": 0, "text": "", "data": {"config": str(self._config)}}
        assert command == "reload_local"
        self.seen.append(self._config.read_text())
        if isinstance(self._reload, Exception):
            raise self._reload
        return self._reload


def place(config: Path) -> Place:
    return Place(config, Path("/nonexistent"))


def left_over(config: Path) -> list[str]:
    return sorted(path.name for path in config.parent.iterdir() if path.name != config.name)


def test_the_file_is_in_place_when_the_server_reloads_it(monkeypatch, config):
    server = FakeServer(monkeypatch, config)
    result = add_domain(place(config), "neu.example")
    wanted = CONFIG.replace('["localhost"]', '["localhost", "neu.example"]')
    assert (server.seen, config.read_text()) == ([wanted], wanted)
    assert result.text == "Host neu.example is served\n# Reloaded: node"
    assert left_over(config) == []


def test_the_old_file_comes_back_when_the_server_refuses(monkeypatch, config):
    FakeServer(monkeypatch, config, {"code": 1, "error": "no such port"})
    with pytest.raises(CommandError, match="no such port"):
        add_domain(place(config), "neu.example")
    assert config.read_text() == CONFIG
    assert left_over(config) == []


def test_a_file_that_would_be_wrong_is_never_in_place(monkeypatch, config):
    server = FakeServer(monkeypatch, config)
    administrators = 'administrators = ["admin@other.example"]\nhosts = ["localhost", "other.example"]'
    config.write_text(CONFIG.replace('hosts = ["localhost"]', administrators))
    before = config.read_text()
    with pytest.raises(CommandError, match=rf"{config}:3: general.administrators: .* is not in hosts"):
        remove_domain(place(config), "other.example")
    assert (server.seen, config.read_text(), left_over(config)) == ([], before, [])


def test_owner_and_mode_stay(monkeypatch, config):
    FakeServer(monkeypatch, config)
    config.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(config, 4711, 4712)
    before = config.stat()
    add_domain(place(config), "neu.example")
    after = config.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)


def test_a_link_stays_a_link(monkeypatch, config, tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to(config)
    FakeServer(monkeypatch, link)
    add_domain(place(link), "neu.example")
    assert link.is_symlink()
    assert "neu.example" in config.read_text()


def test_what_somebody_else_writes_meanwhile_is_not_lost(monkeypatch, config):
    FakeServer(monkeypatch, config)
    theirs = CONFIG.replace("more later", "theirs")
    write = local._write

    def interrupted(path: Path, content: bytes, *, like: Path) -> None:
        write(path, content, like=like)
        if path.name.endswith(".new"):
            config.write_text(theirs)

    monkeypatch.setattr(local, "_write", interrupted)
    with pytest.raises(CommandError, match="changed by somebody else meanwhile"):
        add_domain(place(config), "neu.example")
    assert config.read_text() == theirs
    assert left_over(config) == []


def test_a_file_that_can_not_be_written(monkeypatch, config):
    FakeServer(monkeypatch, config)

    def refused(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(local, "_write", refused)
    with pytest.raises(CommandError, match=f"{config} can't be changed: Permission denied"):
        add_domain(place(config), "neu.example")


# ------------------------------------------------------------------------------------------------ life cycle


@pytest.fixture
def systemd(monkeypatch, tmp_path):
    """A systemctl that notes how it was called, and fails when told so."""
    monkeypatch.setattr(local, "_SYSTEMD", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program, notes = tmp_path / "systemctl", tmp_path / "notes"

    def make(status: int = 0, output: str = ""):
        program.write_text(f"#!/bin/sh\necho \"$@\" >> {notes}\necho '{output}'\nexit {status}\n")
        program.chmod(0o755)
        return notes

    return make


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_systemd_does_it(systemd, config, verb):
    notes = systemd()
    assert local.LOCAL[verb].handler(place(config)).code == 0
    assert notes.read_text() == f"{verb} mongooseim\n"


def test_systemd_fails(systemd, config):
    systemd(status=5)
    with pytest.raises(CommandError, match="has failed with status 5"):
        local.start(place(config))


def test_status_tells_what_systemd_knows(systemd, config):
    notes = systemd(status=3, output="failed")
    result = local.status(place(config))
    assert result.code == 3
    assert "systemd says that the unit mongooseim is failed" in result.text
    assert result.data["unit"] == "failed"
    assert notes.read_text() == "is-active mongooseim\n"


def test_waiting_has_an_end(monkeypatch, config):
    monkeypatch.setattr(local, "STARTED_SECONDS", 0.0)
    with pytest.raises(CommandError, match="has not started within 0 s"):
        local.started(place(config))

"""The commands that mongooseimctl carries out itself: the life cycle, and the configuration file."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monktalk.xmpp.admin import client
from monktalk.xmpp.admin.registry import (
    ERROR,
    OK,
    UNREACHABLE,
    Command,
    CommandError,
    Result,
    by_name,
    collect,
    command,
)

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT: Final = "mongooseim"
STATUS_SECONDS: Final = 10.0
STARTED_SECONDS: Final = 60.0
STOPPED_SECONDS: Final = 30.0
_PAUSE: Final = 0.2
_SYSTEMD: Final = Path("/run/systemd/system")


@dataclass(frozen=True)
class Place:
    """Where the server's configuration and control socket are."""

    config: Path
    socket: Path

    def ask(self, command_name: str, *arguments: str, seconds: float = client.ANSWER_SECONDS) -> dict[str, Any]:
        """Send a command to the server. Raises :class:`client.Unreachable`."""
        return client.ask(self.socket, command_name, list(arguments), seconds=seconds)


# -- life cycle --------------------------------------------------------------------------------------------------


def _systemctl(verb: str) -> Result:
    """Have the service manager do it; what it says goes to the terminal."""
    program = shutil.which("systemctl")
    if program is None or not _SYSTEMD.is_dir():
        raise CommandError(
            f"systemd does not run on this machine, so there is no unit {UNIT} to {verb}. A server that was started by "
            "`make run` is stopped by Ctrl-C where it was started."
        )
    sys.stdout.flush()
    done = subprocess.run([program, verb, UNIT], check=False)  # noqa: S603 - the verb is one of ours
    if done.returncode != 0:
        raise CommandError(f"systemctl {verb} {UNIT} has failed with status {done.returncode}.")
    return Result("", {"unit": UNIT, "done": verb})


@command("start", "", "Start the server, by systemd.")
def start(_place: Place) -> Result:
    """``systemctl start mongooseim``."""
    return _systemctl("start")


@command("stop", "", "Stop the server, by systemd.")
def stop(_place: Place) -> Result:
    """``systemctl stop mongooseim``."""
    return _systemctl("stop")


@command("restart", "", "Stop and start the server, by systemd.")
def restart(_place: Place) -> Result:
    """``systemctl restart mongooseim``."""
    return _systemctl("restart")


@command("status", "", "Tell whether the node is running, and which version.")
def status(place: Place) -> Result:
    """The server's own answer; without one, what the service manager knows."""
    try:
        answer = place.ask("status", seconds=STATUS_SECONDS)
    except client.Unreachable as error:
        node = f"mongooseim@{socket.gethostname()}"
        state = _unit_state()
        known = f" systemd says that the unit {UNIT} is {state}." if state else ""
        data = {"node": node, "status": "stopped", "unit": state or None, "reason": str(error)}
        return Result(f"The node {node} is not running. {error}{known}", data, UNREACHABLE)
    if answer["code"] != OK:
        raise CommandError(str(answer.get("error")))
    return Result(answer["text"], answer["data"])


def _unit_state() -> str:
    """What systemd says of the unit, or nothing where it does not run."""
    program = shutil.which("systemctl")
    if program is None or not _SYSTEMD.is_dir():
        return ""
    done = subprocess.run(  # noqa: S603 - fixed arguments
        [program, "is-active", UNIT], check=False, capture_output=True, text=True
    )
    return done.stdout.strip()


@command("started", "", "Wait until the server answers, for a minute at most.")
def started(place: Place) -> Result:
    """An error when it does not by then."""
    return _wait(lambda: status(place).code == OK, "started", STARTED_SECONDS)


@command("stopped", "", "Wait until the server does not answer any more, for half a minute at most.")
def stopped(place: Place) -> Result:
    """An error when it still does then."""
    return _wait(lambda: status(place).code == UNREACHABLE, "stopped", STOPPED_SECONDS)


def _wait(condition: Callable[[], bool], state: str, seconds: float) -> Result:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CommandError(f"The server has not {state} within {seconds:g} s.")
        time.sleep(_PAUSE)
    return Result("", {"status": state})


# -- the configuration file --------------------------------------------------------------------------------------


@command("check_config", "[FILE]", "Check a configuration file, without loading it; by default the server's own.")
def check_config(place: Place, name: str | None = None) -> Result:
    """A line for each problem: ``file:line: key: reason``."""
    problems = _problems(Path(name) if name is not None else place.config)
    path = name if name is not None else str(place.config)
    data = {"file": path, "valid": not problems, "problems": problems}
    if problems:
        return Result("\n".join(problem["text"] for problem in problems), data, ERROR)
    return Result(f"{path} is valid", data)


def _problems(path: Path) -> list[dict[str, Any]]:
    # Half of the server: loaded for the commands that need it only.
    from monktalk.common.config import ConfigError  # noqa: PLC0415
    from monktalk.xmpp import configuration  # noqa: PLC0415

    try:
        configuration.read(path)
    except ConfigError as error:
        return [
            {"file": one.source, "line": one.line, "key": one.key, "reason": one.reason, "text": str(one)}
            for one in error.problems
        ]
    return []


@command("add_domain", "DOMAIN", "Serve one more host: write it into the configuration file, and reload.")
def add_domain(place: Place, domain: str) -> Result:
    """Comments and layout of the file stay."""
    return _change_hosts(place, domain, added=True)


@command("remove_domain", "DOMAIN", "Serve a host no more: take it out of the configuration file, and reload.")
def remove_domain(place: Place, domain: str) -> Result:
    """Its sessions end; its data stay in the database."""
    return _change_hosts(place, domain, added=False)


def _change_hosts(place: Place, domain: str, *, added: bool) -> Result:
    """Edit the file of the running server, have it reloaded, and put the old file back if the server refuses it."""
    from monktalk.common.jid import InvalidJID, prepare_domain  # noqa: PLC0415 - see _problems
    from monktalk.xmpp.admin import hostlist  # noqa: PLC0415

    try:
        prepared = prepare_domain(domain)
    except InvalidJID as error:
        raise CommandError(f"{domain!r} can't be a host: {error}") from None
    facts = place.ask("status", seconds=STATUS_SECONDS)
    if facts["code"] != OK:
        raise CommandError(str(facts.get("error")))
    path = Path(facts["data"]["config"]).resolve()
    try:
        before = path.read_bytes()
        edited = (hostlist.add if added else hostlist.remove)(before.decode("utf-8"), prepared).encode()
        problems = _try(path, edited)
        if problems:
            raise CommandError("\n".join(problem["text"] for problem in problems))
        _replace(path, edited, expected=before)
        answer = place.ask("reload_local")
        if answer["code"] != OK:
            _replace(path, before, expected=edited)
            raise CommandError(str(answer.get("error")))
    except (hostlist.EditError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {error}") from None
    except OSError as error:
        raise CommandError(f"{path} can't be changed: {error.strerror or error}") from None
    done = f"Host {prepared} is {'served' if added else 'not served any more'}"
    return Result(f"{done}\n{answer['text']}", {"domain": prepared, "served": added, "reload": answer["data"]})


def _try(path: Path, edited: bytes) -> list[dict[str, Any]]:
    """The problems that the file would have. It is checked beside its place, as paths in it are relative to that."""
    candidate = path.with_name(f".{path.name}.{os.getpid()}.check")
    _write(candidate, edited, like=path)
    try:
        problems = _problems(candidate)
    finally:
        candidate.unlink(missing_ok=True)
    for problem in problems:
        problem["file"] = str(path)
        problem["text"] = problem["text"].replace(str(candidate), str(path))
    return problems


def _replace(path: Path, content: bytes, *, expected: bytes) -> None:
    """Put a new file in the place of one that still has the ``expected`` content. At any moment there is a whole one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    _write(temporary, content, like=path)
    try:
        if path.read_bytes() != expected:
            raise CommandError(f"{path} was changed by somebody else meanwhile: nothing was written.")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(path: Path, content: bytes, *, like: Path) -> None:
    """Write a file durably, with the owner and mode of another one."""
    facts = like.stat()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, facts.st_uid, facts.st_gid)
        os.fchmod(descriptor, facts.st_mode & 0o7777)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


LIFE_CYCLE: Final = "Life cycle"
CONFIGURATION: Final = "Configuration"

LOCAL: Final[dict[str, Command]] = by_name(
    [
        *collect(LIFE_CYCLE, (start, stop, restart, status, started, stopped)),
        *collect(CONFIGURATION, (check_config, add_domain, remove_domain)),
    ]
)

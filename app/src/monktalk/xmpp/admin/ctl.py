"""mongooseimctl: the command line of operators.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the server can't be reached. What a command finds is printed on
the standard output, why it could not be done on the standard error; with ``--json`` both are JSON on the standard output.

This module is loaded at every call, so it imports little: a command that the server carries out needs a socket and JSON.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monktalk.xmpp.admin import client
from monktalk.xmpp.admin.local import LOCAL, Place
from monktalk.xmpp.admin.registry import ERROR, OK, UNREACHABLE, USAGE, CommandError, Result, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE_USER: Final = "mongooseim"
_WITH_VALUE: Final = ("--config", "--socket")


@dataclass
class Invocation:
    """A command line, taken apart."""

    command: str | None = None
    arguments: list[str] = field(default_factory=list)
    config: str | None = None
    socket: str | None = None
    json: bool = False


def parse(argv: Sequence[str]) -> Invocation:
    """Take a command line apart. Raises :class:`UsageError`.

    The options may stand before and behind the command; behind ``--`` everything is an argument of the command, and so is
    everything else that begins with a dash: a password may.
    """
    found = Invocation()
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if word == "--":
            words += rest
        elif word == "--json":
            found.json = True
        elif word in ("--help", "-h") and not words:
            words.append("help")
        elif name in _WITH_VALUE:
            value = value if equals else next(rest, "")
            if not value:
                raise UsageError(f"{name} needs a file name behind it.")
            setattr(found, name[2:], value)
        elif word.startswith("-") and not words:
            raise UsageError(f"There is no option {word}. `mongooseimctl help` lists the commands.")
        else:
            words.append(word)
    for word in words:
        if not _is_text(word):
            raise UsageError("The arguments are not valid UTF-8.")
    if words:
        # The oldest releases wrote the commands with dashes, and scripts may still.
        found.command, found.arguments = words[0].replace("-", "_"), words[1:]
    return found


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def run(invocation: Invocation) -> Result:
    """Carry out a command line. Raises :class:`CommandError`, :class:`client.Unreachable`."""
    name = invocation.command
    if name is None or name == "help":
        from monktalk.xmpp.admin import usage  # noqa: PLC0415 - it loads all commands

        if name is None:
            raise UsageError(usage.overview().text)
        return usage.explain(invocation.arguments)
    entry = LOCAL.get(name)
    if entry is not None:
        entry.check(len(invocation.arguments))
        place = _place(invocation, needed=name != "check_config")
        result: Result = entry.handler(place, *invocation.arguments)
        return result
    place = _place(invocation)
    become_service_user(place.socket)
    answer = place.ask(name, *invocation.arguments)
    if "error" in answer:
        failure = UsageError if answer["code"] == USAGE else CommandError
        raise failure(str(answer["error"]))
    return Result(str(answer.get("text", "")), answer.get("data"), answer["code"], tuple(answer.get("warnings", ())))


def _place(invocation: Invocation, *, needed: bool = True) -> Place:
    config = client.config_path(invocation.config)
    if invocation.socket is not None:
        return Place(config, Path(invocation.socket))
    try:
        return Place(config, client.socket_path(config))
    except client.ConfigUnreadable as error:
        if not needed:
            return Place(config, client.DEFAULT_SOCKET)
        raise CommandError(f"{error}. Name the server by --config FILE or --socket PATH.") from None


def become_service_user(path: Path) -> None:
    """Go on as the service user, when root calls and the server runs as that user.

    The whole process changes its user, for good: starting another program as that user would show its arguments, some of
    which are passwords, in the list of processes once more.
    """
    if os.geteuid() != 0:
        return
    try:
        account = pwd.getpwnam(SERVICE_USER)
        owner = path.stat().st_uid
    except (KeyError, OSError):
        return
    if owner != account.pw_uid:
        return
    os.initgroups(SERVICE_USER, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    os.environ.update(USER=SERVICE_USER, LOGNAME=SERVICE_USER, HOME=account.pw_dir)


def main() -> int:
    """The console script. Returns the exit code."""
    argv = sys.argv[1:]
    as_json = "--json" in argv
    try:
        invocation = parse(argv)
        as_json = invocation.json
        result = run(invocation)
    except CommandError as error:
        return _print_failure(str(error), error.code, as_json=as_json)
    except client.Unreachable as error:
        return _print_failure(str(error), UNREACHABLE, as_json=as_json)
    except KeyboardInterrupt:
        return ERROR
    return _print(result, as_json=as_json)


def _print(result: Result, *, as_json: bool) -> int:
    """What was found; a result that is no success goes to the standard error, but for lists that hold both.

    Of what was found in part, the standard error says what is missing, with ``--json`` too.
    """
    if as_json:
        _write(sys.stdout, _dump(result.data), result.code)
    elif result.text:
        failed = result.code != OK and not isinstance(result.data, list) and not result.warnings
        _write(sys.stderr if failed else sys.stdout, result.text, result.code)
    for warning in result.warnings:
        _write(sys.stderr, warning, result.code)
    return result.code


def _print_failure(reason: str, code: int, *, as_json: bool) -> int:
    if as_json:
        return _write(sys.stdout, _dump({"error": reason}), code)
    return _write(sys.stderr, reason, code)


def _dump(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2)


def _write(stream: Any, text: str, code: int) -> int:
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        # The reader has had enough. Without this, closing the stream at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())

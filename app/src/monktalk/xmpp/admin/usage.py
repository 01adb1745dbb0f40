"""The help of mongooseimctl, and the list of all commands, made of what the commands say of themselves."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, Final

from monktalk.xmpp.admin.commands import COMMANDS
from monktalk.xmpp.admin.local import LOCAL
from monktalk.xmpp.admin.registry import Command, Result, UsageError, collect, command

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD: Final = """\
Usage: mongooseimctl [--config FILE | --socket PATH] [--json] COMMAND [ARGUMENT …]

The server is found by its configuration file: --config, else the environment variable MONGOOSEIM_CONFIG, else
/etc/mongooseim/mongooseim.toml. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the server can't be reached."""


@command("help", "[COMMAND]", "List all commands, or explain one; `help get_*` explains all that match.")
def _help(*_arguments: Any) -> None:
    """Only its declaration is used: see :func:`explain`."""


def catalogue() -> dict[str, Command]:
    """All commands by name: those that mongooseimctl carries out itself, then those of the server."""
    own = collect("Life cycle", [_help])
    return {entry.name: entry for entry in [*own, *LOCAL.values()]} | {
        name: entry for name, entry in COMMANDS.items() if name not in LOCAL
    }


def groups() -> dict[str, list[Command]]:
    """All commands by group."""
    found: dict[str, list[Command]] = {}
    for entry in catalogue().values():
        found.setdefault(entry.group, []).append(entry)
    return found


def overview() -> Result:
    """The list of all commands."""
    parts = [_HEAD]
    for group, entries in groups().items():
        parts.append(f"\n{group}:")
        parts += [f"  {entry.usage}\n      {entry.doc}" for entry in entries]
    return Result("\n".join(parts), _data(catalogue().values()))


def explain(arguments: list[str]) -> Result:
    """The list of all commands, or what there is to know of some. Raises :class:`UsageError`."""
    if not arguments:
        return overview()
    if len(arguments) > 1:
        raise UsageError("help takes one command. Usage: mongooseimctl help [COMMAND]")
    pattern = arguments[0].replace("-", "_")
    found = [entry for name, entry in catalogue().items() if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise UsageError(f"There is no command {arguments[0]!r}. `mongooseimctl help` lists all commands.")
    return Result("\n\n".join(map(_explain, found)), _data(found))


def _explain(entry: Command) -> str:
    lines = [f"Usage: mongooseimctl {entry.usage}", "", f"  {entry.doc}"]
    details = (entry.handler.__doc__ or "").strip().replace("``", "`")
    if entry.name != "help" and details and ":func:" not in details:
        lines.append(f"  {' '.join(details.split())}")
    return "\n".join(lines)


def _data(entries: Iterable[Command]) -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name,
            "group": entry.group,
            "parameters": [{"name": one.name, "optional": one.optional} for one in entry.parameters],
            "description": entry.doc,
        }
        for entry in entries
    ]

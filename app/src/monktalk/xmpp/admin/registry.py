"""The commands of mongooseimctl as data: name, parameters, one line that says what it does, and the handler.

A topic module in :mod:`monktalk.xmpp.admin.commands` declares them::

    @command("user_resources", "USER HOST", "List the resources of a user that is online.")
    async def user_resources(context: Context, user: str, host: str) -> list[str]: ...

A handler returns what ``--json`` shows; text is made of that, unless it returns a :class:`Result`. It refuses by
raising :class:`CommandError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from monktalk.xmpp.admin.context import Context

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3

Handler = Callable[..., Any]
"""``handler(context, *arguments)``, a coroutine function in the server."""

H = TypeVar("H", bound=Handler)


class CommandError(Exception):
    """A command could not be carried out; the message is a sentence for the operator."""

    code = ERROR


class UsageError(CommandError):
    """The arguments of a command are not what it takes."""

    code = USAGE


_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_text(text: str) -> None:
    """Raise :class:`UsageError` for a character that no XML may hold: a client could not read what is made of it."""
    found = _NOT_XML.search(text)
    if found is not None:
        raise UsageError(f"The character U+{ord(found[0]):04X} can't be used here.")


@dataclass(frozen=True)
class Table:
    """Rows of facts: a line of tab-separated values each, or with ``--json`` an object each."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Result:
    """Text and data of an answer, where the one is not simply made of the other."""

    text: str
    data: Any
    code: int = OK


@dataclass(frozen=True)
class Parameter:
    """One argument of a command. Where ``optional`` ones stand, the handler knows by their number which it got."""

    name: str
    optional: bool = False

    def __str__(self) -> str:
        return f"[{self.name}]" if self.optional else self.name


@dataclass(frozen=True)
class Command:
    """A command of mongooseimctl."""

    name: str
    group: str
    parameters: tuple[Parameter, ...]
    doc: str
    handler: Handler

    @property
    def usage(self) -> str:
        """How it is called: ``register USER HOST PASSWORD``."""
        return " ".join((self.name, *map(str, self.parameters)))

    def check(self, count: int) -> None:
        """Raise :class:`UsageError` when it does not take that many arguments."""
        least = sum(not parameter.optional for parameter in self.parameters)
        if not least <= count <= len(self.parameters):
            raise UsageError(f"{self.name} does not take {count} arguments. Usage: mongooseimctl {self.usage}")


def command(name: str, parameters: str, doc: str) -> Callable[[H], H]:
    """Declare a command. ``parameters`` are names in capitals, optional ones in brackets: ``HOST [DAYS]``."""

    def declare(handler: H) -> H:
        handler.__dict__["_command"] = (name, _parameters(parameters), doc)
        return handler

    return declare


def _parameters(text: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(word.strip("[]"), optional=word.startswith("[")) for word in text.split())


def collect(group: str, functions: Iterable[Any]) -> list[Command]:
    """The commands declared among ``functions``, in that order."""
    declared = [(function, getattr(function, "_command", None)) for function in functions]
    return [Command(mark[0], group, mark[1], mark[2], function) for function, mark in declared if mark is not None]


def by_name(commands: Iterable[Command]) -> dict[str, Command]:
    """The commands by name. Raises ValueError when two have the same name."""
    found: dict[str, Command] = {}
    for entry in commands:
        if entry.name in found:
            raise ValueError(f"two commands are called {entry.name}")
        found[entry.name] = entry
    return found


async def run(commands: Mapping[str, Command], name: str, arguments: Sequence[str], context: Context) -> Result:
    """Carry out a command. Raises :class:`CommandError`, and what else the handler does not expect."""
    entry = commands.get(name)
    if entry is None:
        raise UsageError(f"There is no command {name!r}. `mongooseimctl help` lists all commands.")
    entry.check(len(arguments))
    return render(await entry.handler(context, *arguments))


def render(outcome: Any) -> Result:
    """An answer of what a handler has returned."""
    if isinstance(outcome, Result):
        return outcome
    if isinstance(outcome, Table):
        text = "\n".join("\t".join(map(_cell, row)) for row in outcome.rows)
        return Result(text, [dict(zip(outcome.columns, row, strict=True)) for row in outcome.rows])
    if isinstance(outcome, list):
        return Result("\n".join(map(_cell, outcome)), outcome)
    return Result(_cell(outcome), outcome)


def _cell(value: object) -> str:
    """A value in a line of text, which it must not break."""
    return "" if value is None else str(value).replace("\t", " ").replace("\n", " ")

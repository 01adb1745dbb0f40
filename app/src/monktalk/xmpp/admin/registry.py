"""The commands of mongooseimctl as data: name, parameters, one line that says what it does, and the handler.

A topic module in :mod:`monktalk.xmpp.admin.commands` declares them::

    @command("user_resources", "USER HOST", "List the resources of a user that is online.")
    async def user_resources(context: Context, user: str, host: str) -> list[str]: ...

A handler returns what ``--json`` shows; text is made of that, unless it returns a :class:`Result`. It refuses by
raising :class:`CommandError`. Where it runs is said by the command's :class:`Scope`; it sees the sessions of that worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
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


class Scope(Enum):
    """Where a command is carried out. On a server that is alone all of these are the same."""

    HERE = "here"
    """By the worker that is asked: files, and what is in the storage."""
    HOME = "home"
    """By the worker that has the sessions of the user whom the first two arguments name."""
    NODE = "node"
    """By all workers of this node."""
    EVERYWHERE = "everywhere"
    """By all workers: numbers are added, lists and tables put together."""


Scopes = Scope | Mapping[str, Scope]
"""A scope, or scopes by the first argument; for all others it is :attr:`Scope.HERE`."""


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
    """Text and data of an answer, where the one is not simply made of the other.

    ``warnings`` say what is missing from them, a sentence each; the code is not OK then.
    """

    text: str
    data: Any
    code: int = OK
    warnings: Sequence[str] = ()


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
    scopes: Scopes = Scope.HERE

    def scope(self, arguments: Sequence[str]) -> Scope:
        """Where it is carried out with these arguments."""
        if isinstance(self.scopes, Scope):
            return self.scopes
        return self.scopes.get(arguments[0], Scope.HERE) if arguments else Scope.HERE

    @property
    def usage(self) -> str:
        """How it is called: ``register USER HOST PASSWORD``."""
        return " ".join((self.name, *map(str, self.parameters)))

    def check(self, count: int) -> None:
        """Raise :class:`UsageError` when it does not take that many arguments."""
        least = sum(not parameter.optional for parameter in self.parameters)
        if not least <= count <= len(self.parameters):
            raise UsageError(f"{self.name} does not take {count} arguments. Usage: mongooseimctl {self.usage}")


def command(name: str, parameters: str, doc: str, *, scope: Scopes = Scope.HERE) -> Callable[[H], H]:
    """Declare a command. ``parameters`` are names in capitals, optional ones in brackets: ``HOST [DAYS]``."""

    def declare(handler: H) -> H:
        handler.__dict__["_command"] = (name, _parameters(parameters), doc, scope)
        return handler

    return declare


def _parameters(text: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(word.strip("[]"), optional=word.startswith("[")) for word in text.split())


def collect(group: str, functions: Iterable[Any]) -> list[Command]:
    """The commands declared among ``functions``, in that order."""
    declared = [(function, getattr(function, "_command", None)) for function in functions]
    return [
        Command(mark[0], group, mark[1], mark[2], function, mark[3]) for function, mark in declared if mark is not None
    ]


def by_name(commands: Iterable[Command]) -> dict[str, Command]:
    """The commands by name. Raises ValueError when two have the same name."""
    found: dict[str, Command] = {}
    for entry in commands:
        if entry.name in found:
            raise ValueError(f"two commands are called {entry.name}")
        found[entry.name] = entry
    return found


def find(commands: Mapping[str, Command], name: str, arguments: Sequence[str]) -> Command:
    """The command of that name, which takes so many arguments. Raises :class:`UsageError`."""
    entry = commands.get(name)
    if entry is None:
        raise UsageError(f"There is no command {name!r}. `mongooseimctl help` lists all commands.")
    entry.check(len(arguments))
    return entry


async def run(commands: Mapping[str, Command], name: str, arguments: Sequence[str], context: Context) -> Result:
    """Carry out a command here. Raises :class:`CommandError`, and what else the handler does not expect."""
    return render(await find(commands, name, arguments).handler(context, *arguments))


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

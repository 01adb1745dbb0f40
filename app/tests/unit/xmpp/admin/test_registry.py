"""Commands as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monktalk.xmpp.admin.commands import COMMANDS
from monktalk.xmpp.admin.context import Context
from monktalk.xmpp.admin.registry import (
    Command,
    CommandError,
    Result,
    Table,
    UsageError,
    by_name,
    check_text,
    collect,
    command,
    render,
    run,
)


@command("pair", "ONE [OTHER]", "Give back what it gets.")
async def pair(_context: Context, *arguments: str) -> list[str]:
    """A command for the tests."""
    return list(arguments)


@command("empty", "", "Give nothing.")
async def empty(_context: Context) -> None:
    """Another one."""


def helper() -> None:
    """A function that is no command."""


PAIR, EMPTY = collect("Tests", [pair, helper, empty, "not a function"])
ALL = by_name([PAIR, EMPTY])


async def call(name: str, *arguments: str) -> Result:
    node: Any = None
    return await run(ALL, name, arguments, Context(node, Path("/")))


def test_what_a_declaration_says():
    assert (PAIR.name, PAIR.group, PAIR.doc) == ("pair", "Tests", "Give back what it gets.")
    assert [(one.name, one.optional) for one in PAIR.parameters] == [("ONE", False), ("OTHER", True)]
    assert (PAIR.usage, EMPTY.usage) == ("pair ONE [OTHER]", "empty")


def test_names_are_unique():
    with pytest.raises(ValueError, match="two commands are called pair"):
        by_name([PAIR, PAIR])


async def test_running():
    assert (await call("pair", "a")).data == ["a"]
    assert (await call("pair", "a", "b")).text == "a\nb"
    assert await call("empty") == Result("", None)


@pytest.mark.parametrize(("name", "arguments"), [("pair", ()), ("pair", ("a", "b", "c")), ("empty", ("a",))])
async def test_wrong_number_of_arguments(name, arguments):
    with pytest.raises(UsageError, match=f"Usage: mongooseimctl {name}"):
        await call(name, *arguments)


async def test_unknown_command():
    with pytest.raises(UsageError, match="There is no command 'paar'"):
        await call("paar")


@pytest.mark.parametrize(
    ("outcome", "text", "data"),
    [
        ("a sentence", "a sentence", "a sentence"),
        (3, "3", 3),
        ([], "", []),
        (["a", "b\tc\nd"], "a\nb c d", ["a", "b\tc\nd"]),
        (Table(("x", "y"), [(1, None), ("a\tb", 2)]), "1\t\na b\t2", [{"x": 1, "y": None}, {"x": "a\tb", "y": 2}]),
        (Result("text", {"more": 1}), "text", {"more": 1}),
    ],
)
def test_rendering(outcome, text, data):
    result = render(outcome)
    assert (result.text, result.data, result.code) == (text, data, 0)


def test_exit_codes_of_refusals():
    assert (CommandError.code, UsageError.code) == (1, 2)


@pytest.mark.parametrize("text", ["", "plain", "a\tb\r\n", "é\ue000\ufffd😀"])
def test_text_that_xml_can_hold(text):
    check_text(text)


@pytest.mark.parametrize(
    ("text", "named"), [("a\0", "U+0000"), ("\x1b[1m", "U+001B"), ("\ud800", "U+D800"), ("\uffff", "U+FFFF")]
)
def test_text_that_xml_can_not_hold(text, named):
    with pytest.raises(UsageError, match=named.replace("+", r"\+")):
        check_text(text)


@pytest.mark.parametrize("entry", COMMANDS.values(), ids=lambda entry: entry.name)
def test_every_command_describes_itself(entry: Command):
    assert entry.doc.endswith(".") or entry.doc.endswith("…")
    assert len(entry.doc) <= 120
    assert (entry.handler.__doc__ or "").strip()
    assert all(one.name.isupper() for one in entry.parameters)


def test_commands_of_later_issues_are_not_listed():
    later = {"backup", "restore", "dump", "load", "import_riak"}
    assert not later & set(COMMANDS)

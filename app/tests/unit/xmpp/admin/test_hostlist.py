"""Editing the list of hosts in a configuration file."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.xmpp.admin.hostlist import EditError, add, remove

NEW = "new.example"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[general]\nhosts = []\n", '[general]\nhosts = ["new.example"]\n'),
        ('[general]\nhosts = ["a"] # all\n', '[general]\nhosts = ["a", "new.example"] # all\n'),
        ('[general]\nhosts = ["a", ]\n', '[general]\nhosts = ["a", "new.example", ]\n'),
        ("general.hosts=['a']\n", "general.hosts=['a', \"new.example\"]\n"),
        (
            '[x]\nhosts = ["z"]\n[general]\n"hosts" = ["a"]\n',
            '[x]\nhosts = ["z"]\n[general]\n"hosts" = ["a", "new.example"]\n',
        ),
        (
            '[general]\nhosts = [ # some\n  "a", # one\n  "b" # two, ]\n] # end\nx = 1\n',
            '[general]\nhosts = [ # some\n  "a", # one\n  "b", # two, ]\n  "new.example"\n] # end\nx = 1\n',
        ),
        (
            '[general]\nhosts = [\n\t"a",\n\t"b", # two\n\t# more to come\n]\n',
            '[general]\nhosts = [\n\t"a",\n\t"b", # two\n\t"new.example",\n\t# more to come\n]\n',
        ),
        ('[general]\r\nhosts = [\r\n  "a",\r\n]\r\n', '[general]\r\nhosts = [\r\n  "a",\r\n  "new.example",\r\n]\r\n'),
        (
            '[general]\nhosts = ["a",\n         "b"]\n',
            '[general]\nhosts = ["a",\n         "b",\n         "new.example"]\n',
        ),
        ('[general]\nhosts = [\n "a"\n , "b"\n ]\n', '[general]\nhosts = [\n "a"\n , "b",\n    "new.example"\n ]\n'),
    ],
)
def test_adding(before, after):
    assert add(before, NEW) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[general]\nhosts = ["a", "b", "c"]\n', '[general]\nhosts = ["a", "c"]\n'),
        ('[general]\nhosts = ["a", "b"]\n', '[general]\nhosts = ["a"]\n'),
        ('[general]\nhosts = ["b", "c"]\n', '[general]\nhosts = ["c"]\n'),
        ("[general]\nhosts = [\"a\", 'b', ]\n", '[general]\nhosts = ["a", ]\n'),
        (
            '[general]\nhosts = [\n  "a", # one\n  "b", # two\n  "c"\n]\n',
            '[general]\nhosts = [\n  "a", # one\n  "c"\n]\n',
        ),
        ('[general]\nhosts = [\n  "a",\n  "b" # two\n]\n', '[general]\nhosts = [\n  "a",\n]\n'),
        ('[general]\nhosts = ["a",\n         "b"]\n', '[general]\nhosts = ["a"]\n'),
        ('[general]\nhosts = ["B", "a"]\n', '[general]\nhosts = ["a"]\n'),
    ],
)
def test_removing(before, after):
    assert remove(before, "b") == after


@pytest.mark.parametrize(
    ("edit", "text", "reason"),
    [
        (add, '[general]\nhosts = ["New.Example"]\n', "one of the hosts already"),
        (add, "[general]\n", "no list of hosts"),
        (add, '[general]\nhosts = "a"\n', "no list of hosts"),
        (remove, '[general]\nhosts = ["a"]\n', "not one of the hosts"),
        (remove, '[general]\nhosts = ["new.example"]\n', "the only host"),
        (remove, '[general]\nhosts = [\n "new.example"\n , "b"\n ]\n', "by hand"),
    ],
)
def test_refusals(edit, text, reason):
    with pytest.raises(EditError, match=reason):
        edit(text, NEW)


names = st.from_regex(r"[a-z]{1,5}\.example", fullmatch=True)
spaces = st.sampled_from(["", " ", "\n", "\n  ", "\t", ' # a comment, ["x"]\n'])


@st.composite
def files(draw) -> str:
    hosts = draw(st.lists(names.filter(lambda name: name != NEW), unique=True, max_size=4))
    parts = [draw(spaces)]
    for index, host in enumerate(hosts):
        quote = draw(st.sampled_from("\"'"))
        parts += [quote, host, quote, draw(spaces)]
        if index + 1 < len(hosts) or draw(st.booleans()):
            parts += [",", draw(spaces)]
    return f'# hosts = ["no"]\n[general]\nlanguage = "en"\nhosts = [{"".join(parts)}]\n[limits]\n'


@given(files())
def test_whatever_the_file_looks_like_nothing_else_changes(text):
    before = tomllib.loads(text)
    try:
        added = add(text, NEW)
    except EditError as error:
        assert "by hand" in str(error)  # noqa: PT017 - the other outcome is checked below
        return
    assert tomllib.loads(added) == before | {
        "general": before["general"] | {"hosts": [*before["general"]["hosts"], NEW]}
    }
    if before["general"]["hosts"]:
        try:
            assert tomllib.loads(remove(added, NEW)) == before
        except EditError as error:
            assert "by hand" in str(error)  # noqa: PT017 - see above

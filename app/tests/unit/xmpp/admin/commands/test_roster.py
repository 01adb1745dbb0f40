"""Roster templates, as `push_roster` reads them."""

from __future__ import annotations

import pytest

from monktalk.xmpp.admin.commands.roster import parse_template

BOB = ("bob", "example.org", "workers", "Bob")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"bob", "example.org", "workers", "Bob"}].', [BOB]),
        ('[{"bob","example.org","workers","Bob"}]', [BOB]),
        ("[].\n", []),
        ('\n%% {"no", "no", "no", "no"}\n[\n {"bob", "example.org", "workers", "Bob"} % "the" boss\n ].\n', [BOB]),
        (
            '[{"bob", "example.org", "workers", "Bob"},\n {<<"eve">>, <<"example.org">>, <<"">>, <<"E 100%">>}].',
            [BOB, ("eve", "example.org", "", "E 100%")],
        ),
        ('[{<<"é"/utf8>>, "h", "g", "a \\"b\\" \\\\ c"}].', [("é", "h", "g", 'a "b" \\ c')]),
    ],
)
def test_templates(text, expected):
    assert parse_template(text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[", 1),
        ('{"bob", "example.org", "workers", "Bob"}.', 1),
        ('[\n{"bob", "example.org", "workers"}].', 1),
        ('[{"bob", "example.org", "workers", "Bob"},\n].', 1),
        ('[{"bob", "example.org", "workers", "Bob"},\n\n {bob, "h", "g", "n"}].', 1),
        ('[{"bob", "example.org", "workers", "Bob"}] more', 1),
    ],
)
def test_what_is_no_template(text, line):
    with pytest.raises(ValueError, match=rf"line {line}: expected \["):
        parse_template(text)

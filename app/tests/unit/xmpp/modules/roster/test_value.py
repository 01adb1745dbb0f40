"""Rosters as values, and as stored bytes."""

from __future__ import annotations

import json
import sys

import pytest

from monktalk.xmpp.modules.roster.value import BOTH, CODEC, EMPTY, FROM, NONE, TO, Item, Roster

FULL = Roster(
    {
        "juliet@capulet.example": Item(BOTH, name="Juliet", groups=("Friends", "Verona")),
        "nurse@capulet.example": Item(TO),
        "mercutio@montague.example": Item(FROM, ask=True),
        "paris@capulet.example": Item(NONE, approved=True),
        "gateway.example": Item(),
    },
    {"tybalt@capulet.example": "<status>draw! &lt;</status>", "friar@church.example": ""},
)


@pytest.mark.parametrize("roster", [EMPTY, FULL], ids=["empty", "full"])
def test_what_is_stored_is_read_back(roster):
    assert CODEC.decode(CODEC.encode(roster)) == roster


def test_stored_form_says_only_what_is_unusual():
    stored = json.loads(CODEC.encode(FULL))
    assert stored["items"]["gateway.example"] == {}
    assert stored["items"]["juliet@capulet.example"] == {
        "subscription": "both",
        "name": "Juliet",
        "groups": ["Friends", "Verona"],
    }
    assert stored["items"]["mercutio@montague.example"] == {"subscription": "from", "ask": True}
    assert stored["requests"]["tybalt@capulet.example"] == "<status>draw! &lt;</status>"
    assert "requests" not in json.loads(CODEC.encode(EMPTY))


def test_names_in_any_script():
    roster = Roster({"ü@münchen.example": Item(name="☃ <&'\"", groups=("Grüße", "🎭"))}, {})
    assert CODEC.decode(CODEC.encode(roster)) == roster


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"[]",
        b"{}",
        b'{"items":{"a@b":{"subscription":"remove"}}}',
        b'{"items":{"a@b":null}}',
        b'{"items":{"a@b":{"groups":[1]}}}',
    ],
)
def test_what_is_no_roster_is_refused(stored):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        CODEC.decode(stored)


def test_addresses_and_groups_are_shared_between_rosters():
    stored = CODEC.encode(FULL)
    one, other = CODEC.decode(stored), CODEC.decode(stored)
    for mine, theirs in zip(one.items, other.items, strict=True):
        assert mine is theirs
        assert mine is sys.intern(mine)
    juliet = "juliet@capulet.example"
    assert one.items[juliet].groups[0] is other.items[juliet].groups[0]


def test_who_sees_whom():
    assert FULL.subscribers == ("juliet@capulet.example", "mercutio@montague.example")
    assert FULL.subscriptions == ("juliet@capulet.example", "nurse@capulet.example")
    assert FULL.shows_presence_to("juliet@capulet.example")
    assert not FULL.shows_presence_to("nurse@capulet.example")
    assert not FULL.shows_presence_to("stranger@example.org")


def test_size():
    assert EMPTY.size == 0
    assert Roster({"a@b": Item(name="ü" * 10, groups=("12", "345"))}, {"c@d": "<x/>"}).size == 18


def test_changes_make_another_roster():
    one = EMPTY.with_item("a@b", Item(TO))
    two = one.with_item("a@b", Item(BOTH)).with_request("c@d", "<x/>")
    assert (EMPTY.items, one.items["a@b"], two.items["a@b"]) == ({}, Item(TO), Item(BOTH))
    assert two.without_request("c@d").requests == {}
    assert two.without_item("a@b") == Roster({}, {"c@d": "<x/>"})
    assert two.requests == {"c@d": "<x/>"}


def test_nothing_changed_is_the_same_roster():
    assert FULL.with_item("nurse@capulet.example", Item(TO)) is FULL
    assert FULL.without_item("stranger@example.org") is FULL
    assert FULL.with_request("friar@church.example", "") is FULL
    assert FULL.without_request("stranger@example.org") is FULL


def test_relations():
    assert FULL.relation("juliet@capulet.example") == {"to", "from"}
    assert FULL.relation("mercutio@montague.example") == {"from", "ask"}
    assert FULL.relation("tybalt@capulet.example") == {"asked"}
    assert FULL.relation("stranger@example.org") == frozenset()

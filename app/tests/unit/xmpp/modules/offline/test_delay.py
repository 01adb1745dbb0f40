"""Delay stamps (XEP-0203)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.modules.offline.delay import stamped, unstamped
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.protocol.xmltree import find, from_bytes

MESSAGE = b"<message from='a@b.example/c' to='d@e.example'><body>&lt;/message></body></message>"


def test_a_stamp_is_put_behind_the_payloads():
    node = from_bytes(stamped(MESSAGE, "e.example", 1_700_000_000.25))
    assert [child.tag.rpartition("}")[2] for child in node] == ["body", "delay"]
    delay = find(node, "urn:xmpp:delay", "delay")
    assert delay is not None
    assert (delay.get("from"), delay.get("stamp")) == ("e.example", "2023-11-14T22:13:20.250Z")


def test_a_stamp_is_taken_off_again():
    stanza, when = unstamped(Stanza.from_bytes(stamped(MESSAGE, "e.example", 1_700_000_000.25)), "e.example")
    assert (stanza.raw, when) == (Stanza.from_tree(from_bytes(MESSAGE)).raw, 1_700_000_000.25)


@pytest.mark.parametrize("raw", [MESSAGE, stamped(MESSAGE, "room.example", 1_700_000_000)])
def test_other_stamps_stay(raw):
    original = Stanza.from_bytes(raw)
    assert unstamped(original, "e.example") == (original, None)


def test_a_stamp_without_a_time():
    raw = stamped(MESSAGE, "e.example", 1_700_000_000).replace(b"2023", b"last")
    stanza, when = unstamped(Stanza.from_bytes(raw), "e.example")
    assert (b"delay" in stanza.raw, when) == (False, None)

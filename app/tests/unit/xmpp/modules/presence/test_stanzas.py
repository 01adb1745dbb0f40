"""Presence stanzas that the server makes and reads."""

from __future__ import annotations

import sys

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.modules.presence import stanzas
from monktalk.xmpp.protocol import xmltree
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.parser import ElementParser
from monktalk.xmpp.protocol.stanza import Stanza
from tests.support.matching import assert_matches

ROMEO = JID.parse('romeo@montague.example/it\'s <here> & "now"')
JULIET = JID.parse("juliet@capulet.example/balcony")
HERE = "romeo@montague.example/it&apos;s &lt;here&gt; &amp; &quot;now&quot;"


def received(inner: str, attributes: str = "") -> Stanza:
    """A stanza of romeo's as the session hands it on."""
    raw = f"<presence from='{HERE}'{attributes}>{inner}</presence>".encode()
    (stanza,) = ElementParser().feed(raw)
    stanza.sender, stanza.recipient = ROMEO, None
    return stanza


def test_make():
    stanza = stanzas.make(ROMEO, JULIET, "subscribe", "<status>hi</status>")
    assert_matches(
        xmltree.from_bytes(stanza.raw),
        f"<presence from='{HERE}' to='{JULIET}' type='subscribe'><status>hi</status></presence>",
    )
    assert (stanza.type, stanza.sender, stanza.recipient) == ("subscribe", ROMEO, JULIET)
    assert stanza.attributes["from"] == ROMEO.full
    assert_matches(
        xmltree.from_bytes(stanzas.make(JULIET, ROMEO, None).raw), f"<presence from='{JULIET}' to='{HERE}'/>"
    )


def test_unavailable_is_for_anybody():
    stanza = stanzas.unavailable(ROMEO)
    assert_matches(xmltree.from_bytes(stanza.raw), f"<presence from='{HERE}' type='unavailable'/>")
    told = stanzas.addressed(stanza, JULIET)
    assert_matches(xmltree.from_bytes(told.raw), f"<presence from='{HERE}' to='{JULIET}' type='unavailable'/>")
    assert (told.type, told.recipient) == ("unavailable", JULIET)


@pytest.mark.parametrize("inner", ["", "<show>away</show><x xmlns='urn:x'><presence/></x>"])
def test_an_address_is_spliced_in(inner):
    broadcast = received(inner, " id='1' xml:lang='it'")
    copy = stanzas.addressed(broadcast, JULIET)
    assert_matches(
        xmltree.from_bytes(copy.raw), f"<presence from='{HERE}' to='{JULIET}' id='1' xml:lang='it'>{inner}</presence>"
    )
    assert copy.raw.endswith(broadcast.raw[len(b"<presence") :]), "the rest of the bytes is as it was"
    assert copy.attributes == {**broadcast.attributes, "to": JULIET.full}
    assert "to" not in broadcast.attributes
    assert xmltree.from_bytes(stanzas.addressed_bytes(broadcast, ROMEO)).get("to") == ROMEO.full


def test_what_a_session_keeps_is_small():
    one, other = (stanzas.kept(received("<c xmlns='urn:caps'/><priority>3</priority>")) for _ in range(2))
    assert one.raw == other.raw
    assert all(mine is theirs is sys.intern(mine) for mine, theirs in zip(one.payloads, other.payloads, strict=True))
    with_tree = received("<priority>3</priority>")
    with_tree.tree()
    assert stanzas.kept(with_tree)._tree is None


@pytest.mark.parametrize(
    ("inner", "priority"),
    [
        ("", 0),
        ("<priority>5</priority>", 5),
        ("<priority>-128</priority>", -128),
        ("<priority>127</priority>", 127),
        ("<priority> \n+7\t</priority>", 7),
        ("<priority>007</priority>", 7),
        ("<priority>-0</priority>", 0),
        ("<x xmlns='urn:x'><priority>99</priority></x><priority>1</priority>", 1),
        ("<priority xmlns='urn:x'>high</priority>", 0),
    ],
)
def test_priorities(inner, priority):
    assert stanzas.priority_of(received(inner)) == priority


@pytest.mark.parametrize(
    "inner",
    [
        "<priority/>",
        "<priority> </priority>",
        "<priority>128</priority>",
        "<priority>-129</priority>",
        "<priority>1000000000000000000000</priority>",
        "<priority>1.0</priority>",
        "<priority>high</priority>",
        "<priority>\u0661</priority>",
        "<priority>1 2</priority>",
        "<priority>1</priority><priority>1</priority>",
    ],
)
def test_what_is_no_priority(inner):
    with pytest.raises(StanzaError) as refused:
        stanzas.priority_of(received(inner))
    assert refused.value.condition == "bad-request"


def test_subscription_stanzas_go_between_bare_addresses():
    stanza = received("<status>hi</status>", f" to='{JULIET}' type='subscribe' id='s1'")
    copy = stanzas.stamped(stanza, ROMEO, JULIET.to_bare())
    assert_matches(
        xmltree.from_bytes(copy.raw),
        f"<presence from='{ROMEO.bare}' to='{JULIET.bare}' type='subscribe' id='s1'><status>hi</status></presence>",
    )
    assert copy.recipient == JULIET.to_bare()
    assert copy.sender == ROMEO, "whoever refuses it can answer the client"


def test_the_payload_of_a_request():
    assert stanzas.request_payload(received("")) == ""
    shown = "<status>hi &amp; bye</status><nick xmlns='http://jabber.org/protocol/nick'>R</nick>"
    assert stanzas.request_payload(received(shown)) == shown


def test_the_payload_of_a_request_stands_for_itself():
    payload = stanzas.request_payload(received("<n:nick>R</n:nick>", " xmlns:n='urn:n'"))
    kept = stanzas.make(ROMEO, JULIET, "subscribe", payload)
    assert xmltree.from_bytes(kept.raw).findtext("{urn:n}nick") == "R"


def test_a_long_request_is_kept_without_its_payload():
    assert stanzas.request_payload(received(f"<status>{'x' * 5000}</status>")) == ""

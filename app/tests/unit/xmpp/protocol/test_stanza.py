"""Stanzas: an envelope that is known around bytes that are kept."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.parser import ElementParser
from monktalk.xmpp.protocol.stanza import Stanza, error_reply, iq_result
from monktalk.xmpp.protocol.xmltree import element


def stanza(raw: bytes) -> Stanza:
    [found] = ElementParser().feed(raw)
    return found


def test_attributes_are_changed_and_the_rest_is_kept():
    changed = stanza(b"<message to='b@x' id='&lt;'><body>a &gt; b</body></message>").with_attributes(
        from_="a@x/it's", to=None
    )
    assert changed.raw == b"<message id='&lt;' from='a@x/it&apos;s'><body>a &gt; b</body></message>"


def test_an_empty_stanza_stays_empty():
    assert stanza(b"<presence to='b@x'/>").with_attributes(to="c@x").raw == b"<presence to='c@x'/>"


def test_declarations_on_the_stanza_survive_a_change():
    changed = stanza(b"<message xmlns:y='urn:y' to='b@x'><y:a/></message>").with_attributes(from_="a@x")
    assert changed.raw == b"<message to='b@x' from='a@x'><a xmlns='urn:y'/></message>"


def test_a_language_survives_a_change():
    changed = stanza(b"<message xml:lang='it' to='b@x'/>").with_attributes(from_="a@x")
    assert changed.raw == b"<message xml:lang='it' to='b@x' from='a@x'/>"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"<message/>", b"<message><n/></message>"),
        (b"<message><body>x</body></message>", b"<message><body>x</body><n/></message>"),
        (b"<message><body/></message >", b"<message><body/><n/></message >"),
    ],
)
def test_a_payload_is_added_at_the_end(before, after):
    changed = stanza(before).with_payload(b"<n/>", "jabber:client}n")
    assert changed.raw == after
    assert changed.payloads[-1] == "jabber:client}n"


def test_payloads_are_removed_by_name():
    changed = stanza(b"<message><body>x</body><s xmlns='urn:y'/></message>").without_payloads(["urn:y}s"])
    assert changed.raw == b"<message><body>x</body></message>"


def test_the_tree_is_of_the_stanza():
    child = stanza(b"<iq><q xmlns='urn:y'>t</q></iq>").child("urn:y", "q")
    assert child is not None
    assert child.text == "t"
    assert stanza(b"<iq/>").child("urn:y", "q") is None


def test_an_error_reply_goes_back_with_the_addresses_exchanged():
    reply = error_reply(
        stanza(b"<message from='a@x/r' to='b@x' id='1' type='chat'><body/></message>"), StanzaError("forbidden")
    )
    assert reply == (
        b"<message type='error' from='b@x' to='a@x/r' id='1'><error type='auth'>"
        b"<forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )


@pytest.mark.parametrize(
    "raw", [b"<message type='error'/>", b"<iq type='result' id='1'/>", b"<iq type='error' id='1'/>"]
)
def test_errors_and_results_are_never_answered(raw):
    assert error_reply(stanza(raw), StanzaError("forbidden")) is None


def test_results():
    request = stanza(b"<iq type='get' id='1' from='a@x/r' to='x'><q xmlns='urn:y'/></iq>")
    assert iq_result(request) == b"<iq type='result' from='x' to='a@x/r' id='1'/>"
    with_payload = iq_result(request, element("urn:y", "q", {"a": "<"}))
    assert with_payload == b"<iq type='result' from='x' to='a@x/r' id='1'><q xmlns='urn:y' a='&lt;'/></iq>"


def test_stored_stanzas_are_read_back():
    raw = b"<message from='a@x' xml:lang='it'><body>x</body></message>"
    found = Stanza.from_bytes(raw)
    assert (found.name, found.raw, found.payloads) == ("message", raw, ["jabber:client}body"])
    assert found.attributes["http://www.w3.org/XML/1998/namespace}lang"] == "it"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"<auth xmlns='urn:a' mechanism='PLAIN'>AGEAYg==</auth>", "AGEAYg=="),
        (b"<auth xmlns='urn:a'/>", ""),
        (b"<auth xmlns='urn:a'></auth>", ""),
        (b"<auth xmlns='urn:a' x='>'>ab</auth >", "ab"),
        (b"<auth xmlns='urn:a'>a&#98;c</auth>", "abc"),
        (b"<auth xmlns='urn:a'>a<![CDATA[b]]>c</auth>", "abc"),
        (b"<auth xmlns='urn:a'> a\n</auth>", " a\n"),
        (b"<auth xmlns='urn:a'>a<b/>c</auth>", "a"),
    ],
)
def test_text_is_what_stands_in_front_of_the_first_child(raw, text):
    assert stanza(raw).text() == text

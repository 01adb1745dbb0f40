"""Row 6: stanza smuggling through parsers that disagree (CVE-2022-22784 to -22787, CVE-2022-25235, CVE-2022-25236).

What no XML parser may accept ends the stream. What is passed on is read by the recipient as the sender meant it.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.client import stream_header
from tests.support.matching import STREAM, difference, parse, show

BAD_BYTES = {
    "lonely continuation byte": b"\x80",
    "overlong slash": b"\xc0\xaf",
    "overlong less-than": b"\xc0\xbc",
    "overlong in three bytes": b"\xe0\x80\xbc",
    "overlong in four bytes": b"\xf0\x80\x80\xbc",
    "surrogate": b"\xed\xa0\x80",
    "surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "never in UTF-8": b"\xfe\xff",
    "cut short": b"\xe2\x82<",
    "NUL": b"\0",
    "escape": b"\x1b",
    "U+FFFE": "\ufffe".encode(),
    "U+FFFF": "\uffff".encode(),
}
PLACES = {
    "text": b"<message to='%s'><body>a%%sb</body></message>",
    "attribute": b"<message to='%s' x='a%%sb'/>",
    "name": b"<message to='%s'><a%%sb/></message>",
    "namespace": b"<message to='%s'><a xmlns='urn:a%%sb'/></message>",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("bad", BAD_BYTES.values(), ids=BAD_BYTES.keys())
async def test_bytes_that_are_no_xml(server, account, place, bad):
    romeo = await server.online(account("romeo"))
    await romeo.wire.write(place % romeo.full.encode() % bad)
    await romeo.stream_error()


@pytest.mark.parametrize("reference", ["&#0;", "&#xFFFE;", "&#xFFFF;", "&#xD800;", "&#x110000;", "&#1;", "&#;", "&#x;"])
async def test_references_to_what_is_no_character(server, account, reference):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<message><body>{reference}</body></message>")
    await romeo.stream_error()


@pytest.mark.parametrize("separator", ["}", "{", "|", "&#10;", "&#9;", " ", "^"])
async def test_namespaces_with_characters_that_parsers_use_as_separators(server, account, separator):
    """CVE-2022-25236: expat joins namespace and name; a name in ``a}message`` is not a message, nor gets it mixed up."""
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    await romeo.send(
        f"<message to='{juliet.full}'><body>one</body><x xmlns='urn:a{separator}jabber:client{separator}body'/></message>"
    )
    await romeo.send(f"<a xmlns='jabber:client{separator}message' to='{juliet.full}'><body>forged</body></a>")
    await romeo.stream_error("unsupported-stanza-type", "not-well-formed")
    received = [node for node in await juliet.drained() if node.tag.endswith("}message")]
    assert [node.findtext("{jabber:client}body") for node in received] in ([], ["one"])


SMUGGLED = {
    "stream end": "<x xmlns='urn:x'>&lt;/stream:stream&gt;</x>",
    "stream error": "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "stream features": "<stream:features/>",
    "stanza in a stanza": "<message from='admin@localhost' to='victim@localhost'><body>forged</body></message>",
    "roster push in a stanza": "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>",
    "character data section": "<x xmlns='urn:x'><![CDATA[</message><message from='admin@localhost'><body>forged]]></x>",
    "entities": "<x xmlns='urn:x' y='&apos;&gt;&lt;/message&gt;'>&lt;/message&gt;</x>",
    "attribute with everything": "<x xmlns='urn:x' y='/>&lt;/message>&lt;presence/>'/>",
    "prefix declared again": "<stream:x xmlns:stream='urn:x'><stream:y/></stream:x>",
    "namespace undeclared": "<x xmlns='urn:x'><y xmlns=''/></x>",
    "jabber:server": "<message xmlns='jabber:server' from='admin@localhost'/>",
}


@pytest.mark.parametrize("content", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_the_recipient_sees_one_stanza(server, account, content):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<message to='{juliet.full}' type='chat'>{content}</message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}' type='chat'>{content}</message>")
    await juliet.receives_nothing(after=[romeo])


@pytest.mark.parametrize("content", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_with_prefixes_that_are_declared_in_the_header(server, account, content):
    """The sender's stream calls things otherwise; what the recipient gets is the same."""
    juliet = await server.online(account("juliet"))
    romeo = await server.stream()
    await romeo.sasl(account("romeo"))
    romeo.wire.restart()
    header = stream_header(**{"xmlns:s": STREAM, "xmlns:e": "urn:evil"})
    await romeo.send(header)
    await romeo.receives_header()
    await romeo.next()
    await romeo.bind()
    content = content.replace("stream:error", "s:error").replace("stream:features", "s:features")
    await romeo.send(f"<message to='{juliet.full}' type='chat'>{content}<e:x e:y='1'/></message>")
    received = await juliet.next()
    expected = (
        f"<message xmlns:s='{STREAM}' xmlns:e='urn:evil' from='{romeo.full}' to='{juliet.full}' type='chat'>"
        f"{content}<e:x e:y='1'/></message>"
    )
    assert difference(received, parse(expected)) is None, show(received)


async def test_attributes_of_the_sender_cannot_be_doubled(server, account):
    """A prefixed ``from`` is another attribute, and the true sender is stamped beside it."""
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    await romeo.send(
        f"<message xmlns:c='jabber:client' c:from='admin@localhost' to='{juliet.full}'><body>hi</body></message>"
    )
    received = await juliet.next()
    assert received.get("from") == romeo.full


async def test_elements_in_other_namespaces_are_no_stanzas(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<message xmlns='jabber:server' to='{juliet.full}'><body>hi</body></message>")
    await romeo.stream_error("unsupported-stanza-type")
    await juliet.receives_nothing()


# ---------------------------------------------------------------------------------------------------- fuzzing

_chars = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="\ufffe\uffff")
_text = st.text(_chars, max_size=20)
_name = st.from_regex(r"[A-Za-z_é][A-Za-z0-9._é-]{0,8}", fullmatch=True)
_namespace = st.sampled_from(["jabber:client", "urn:x", "urn:y", STREAM, "http://a/b?c&d'e\"f"])
_attributes = st.dictionaries(_name.filter(lambda name: not name.lower().startswith("xml")), _text, max_size=3)


def _build(namespace, name, attributes, text, children) -> ET.Element:
    node = ET.Element(f"{{{namespace}}}{name}", attributes)
    node.text = text
    for child, tail in children:
        child.tail = tail
        node.append(child)
    return node


def _element(children) -> st.SearchStrategy[ET.Element]:
    return st.builds(_build, _namespace, _name, _attributes, _text, st.lists(st.tuples(children, _text), max_size=3))


_leaf = st.builds(_build, _namespace, _name, _attributes, _text, st.just([]))
trees = st.recursive(_leaf, _element, max_leaves=8)


def same(one: ET.Element, other: ET.Element) -> bool:
    """Whether two trees are equal to the last character."""
    return (
        (one.tag, one.attrib, one.text or "", one.tail or "")
        == (other.tag, other.attrib, other.text or "", other.tail or "")
        and len(one) == len(other)
        and all(same(a, b) for a, b in zip(one, other, strict=True))
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=trees)
async def test_whatever_is_sent_arrives_as_it_was_meant(server, auth, payload):
    """Parse, serialise, parse again: nothing is lost, nothing is added."""
    romeo = await server.online(auth.account("romeo"))
    payload.tail = None
    xml = ET.tostring(payload, encoding="unicode")
    await romeo.send(f"<message to='{romeo.full}' type='chat'>{xml}</message>")
    received = await romeo.next()
    arrived = next(child for child in received if child.tag != "{urn:xmpp:sid:0}stanza-id")
    assert same(arrived, payload), f"sent {xml}, received {show(arrived)}"
    await romeo.end()

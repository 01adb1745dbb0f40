"""The XML parser behind limits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.xmpp.protocol import xmltree
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.parser import (
    STANDARD_HEADER,
    ElementParser,
    FaultAfter,
    ParserPool,
    XmlLimits,
    read_header,
)


def fault(data: bytes, limits: XmlLimits | None = None) -> FaultAfter:
    with pytest.raises(FaultAfter) as caught:
        ElementParser(limits=limits or XmlLimits()).feed(data)
    return caught.value


def test_an_element_is_an_envelope_around_its_bytes():
    raw = b"<message to='bob@x' type='chat' xml:lang='it'><body>ciao</body><x xmlns='urn:y'/></message>"
    [stanza] = ElementParser().feed(raw)
    assert stanza.name == "message"
    assert stanza.attributes == {
        "to": "bob@x",
        "type": "chat",
        "http://www.w3.org/XML/1998/namespace}lang": "it",
    }
    assert stanza.payloads == ["jabber:client}body", "urn:y}x"]
    assert stanza.raw == raw


def test_other_elements_have_their_qualified_name():
    [element] = ElementParser().feed(b"<r xmlns='urn:xmpp:sm:3'/>")
    assert element.name == "urn:xmpp:sm:3}r"


@pytest.mark.parametrize(
    "raw",
    [
        b"<presence/>",
        b"<presence type='a>b'/>",
        b"<presence ></presence >",
        b"<message><body/></message>",
        b"<message>text</message>",
        b"<iq><a><b>c</b></a></iq>",
    ],
)
def test_the_bytes_of_an_element_end_where_it_ends(raw):
    elements = ElementParser().feed(raw + b" \n" + raw + b"<presence/>")
    assert [element.raw for element in elements] == [raw, raw, b"<presence/>"]


def test_an_element_may_come_in_pieces():
    parser = ElementParser()
    whole = b"<message><body>hello</body></message><iq><q/></iq>"
    found = []
    for start, stop in pairwise((0, 9, 15, 18, 27, 41, len(whole))):
        found += parser.feed(whole[start:stop])
    assert [stanza.raw for stanza in found] == [whole[:37], whole[37:]]
    assert parser.clean
    assert parser.pending == 0


def test_pending_counts_the_unfinished_element():
    parser = ElementParser()
    parser.feed(b"<presence/><message>abc")
    assert parser.pending == len(b"<message>abc")
    assert not parser.clean


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (b"<message></iq>", "not-well-formed"),
        (b"<message a='1' a='2'/>", "not-well-formed"),
        (b"<a:b/>", "bad-namespace-prefix"),
        (b"<!-- x --><a/>", "restricted-xml"),
        (b"<?php x?>", "restricted-xml"),
        (b"<!DOCTYPE a>", "restricted-xml"),
        (b"<message>&boom;</message>", "restricted-xml"),
        (b"text<message/>", "bad-format"),
        (b"<message/>text", "bad-format"),
        (b"<message>\xff</message>", "not-well-formed"),
        (b"<message>\xc0\x80</message>", "not-well-formed"),
        (b"<message>\x00</message>", "not-well-formed"),
        (b"<message>\xef\xbf\xbe</message>", "not-well-formed"),
        (b"<message>\xef\xbf\xbf</message>", "not-well-formed"),
        (b"<message>\xed\xa0\x80</message>", "not-well-formed"),
        (b"<message xmlns:a='x}y' a:b='c'/>", "not-well-formed"),
    ],
)
def test_what_may_not_stand_in_a_stream_is_refused(data, condition):
    assert fault(data).error.condition == condition


def test_elements_before_a_fault_are_kept():
    caught = fault(b"<presence/><message></iq>")
    assert [stanza.name for stanza in caught.elements] == ["presence"]


@pytest.mark.parametrize(
    "data",
    [
        b"<a>" * 10,
        b"<a " + b" ".join(b"x%d='1'" % index for index in range(10)) + b"/>",
        b"<" + b"a" * 100 + b"/>",
        b"<a><" + b"a" * 100 + b"/></a>",
    ],
)
def test_limits_of_structure(data):
    assert fault(data, XmlLimits(depth=8, attributes=8, name_length=50)).error.condition == "policy-violation"


def test_the_end_of_the_stream():
    parser = ElementParser()
    assert parser.feed(b"</stream:stream>") == []
    assert parser.closed


def test_a_pool_lends_clean_parsers_again_and_retires_worn_ones():
    pool = ParserPool()
    parser = pool.take()
    parser.feed(b"<presence/>")
    pool.give(parser)
    assert pool.take() is parser
    for _ in range(1100):
        parser.feed(b"<message><body>" + b"x" * 1000 + b"</body></message>")
    pool.give(parser)
    assert pool.take() is not parser


def test_the_stream_header():
    found = read_header(b"<?xml version='1.0'?>" + STANDARD_HEADER + b"<a/>", XmlLimits())
    assert found is not None
    header, rest = found
    assert header.namespaces == {"": "jabber:client", "stream": "http://etherx.jabber.org/streams"}
    assert rest == b"<a/>"


def test_a_declaration_alone_is_no_header_yet():
    assert read_header(b"<?xml version='1.0'?>", XmlLimits()) is None


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (b"<stream xmlns='jabber:client'>", "invalid-namespace"),
        (b"<html>", "bad-format"),
        (b"<?xml version='1.0' encoding='latin1'?><a>", "unsupported-encoding"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>", "restricted-xml"),
        (b"GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        (b"<s:stream xmlns:s='http://etherx.jabber.org/streams'/>", "bad-format"),
    ],
)
def test_what_may_not_start_a_stream(data, condition):
    with pytest.raises(StreamError) as caught:
        read_header(data, XmlLimits())
    assert caught.value.condition == condition


_NAMES = st.sampled_from(["a", "b", "body", "x"])
_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=12)


@st.composite
def trees(draw, depth=3):
    node = xmltree.element(draw(st.sampled_from(["jabber:client", "urn:one", "urn:two'<&"])), draw(_NAMES))
    for name in draw(st.sets(_NAMES, max_size=2)):
        node.set(name, draw(_TEXT))
    node.text = draw(_TEXT)
    if depth:
        for child in draw(st.lists(trees(depth=depth - 1), max_size=2)):
            node.append(child)
            child.tail = draw(_TEXT)
    return node


@given(trees())
def test_parse_and_serialise_agree(node):
    """Row 6 of the known attacks: what one parser reads, the next one reads alike."""
    root = xmltree.element("jabber:client", "message", None, node)
    raw = xmltree.to_bytes(root)
    [stanza] = ElementParser().feed(raw)
    assert xmltree.to_bytes(stanza.tree()) == raw == stanza.raw


def test_a_header_that_comes_again_is_read_the_same():
    data = STANDARD_HEADER.replace(b"<stream:stream", b"<stream:stream to='again'") + b"<a/>"
    first, second = read_header(data, XmlLimits()), read_header(data, XmlLimits())
    assert first is not None
    assert first == second
    assert first[0].attributes == {"to": "again"}
    assert first[1] == b"<a/>"


def test_a_header_that_is_refused_is_refused_again():
    data = STANDARD_HEADER.replace(b"<stream:stream", b"<stream:stream a='1' b='2'")
    for _ in range(2):
        with pytest.raises(StreamError):
            read_header(data, XmlLimits(attributes=1))
    assert read_header(data, XmlLimits(attributes=2)) is not None

"""The receiving half of a stream."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol.parser import STANDARD_HEADER, ParserPool
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.protocol.stream import StreamClosed, StreamFault, StreamOpened, XmlStream, stream_header

HEADER = STANDARD_HEADER.replace(b"<stream:stream", b"<?xml version='1.0'?><stream:stream to='x' version='1.0'")
MESSAGE = b"<message to='b@x' type='chat'><body>it's &gt; 1</body></message>"


def opened(max_bytes: int = 10_000) -> XmlStream:
    stream = XmlStream(ParserPool(), max_bytes)
    [event] = stream.receive(HEADER)
    assert isinstance(event, StreamOpened)
    return stream


def condition(events) -> str:
    assert isinstance(events[-1], StreamFault), events
    return events[-1].error.condition


def test_the_header_is_reported_with_its_attributes():
    stream = XmlStream(ParserPool(), 10_000)
    header = HEADER.replace(b"to='x'", b"to='x' from='a@x' xml:lang='it'")
    [event] = stream.receive(header)
    assert event == StreamOpened("x", "a@x", "1.0", "it")


def test_whitespace_before_the_header_and_between_stanzas_is_allowed():
    stream = XmlStream(ParserPool(), 10_000)
    events = stream.receive(b"\n " + HEADER + b"\n" + MESSAGE + b" ")
    assert [type(event) for event in events] == [StreamOpened, Stanza]
    assert stream.receive(b" ") == []
    [stanza] = stream.receive(MESSAGE)
    assert stanza.raw == MESSAGE


def test_every_stanza_is_handled_with_its_last_byte():
    whole = HEADER + MESSAGE + b"<presence/>" + b"<iq id='1' type='get'><q xmlns='a' b='>'/></iq>" + b"</stream:stream>"
    stream = XmlStream(ParserPool(), 10_000)
    found = []
    for index in range(len(whole)):
        found += [(index + 1, event) for event in stream.receive(whole[index : index + 1])]
    ends = [len(HEADER), len(MESSAGE), 11, 47, 16]
    assert [at for at, _ in found] == [sum(ends[: n + 1]) for n in range(5)]
    assert isinstance(found[-1][1], StreamClosed)


@pytest.mark.parametrize("size", [2, 3, 7, 50])
def test_any_cut_gives_the_same_stanzas(size):
    whole = (MESSAGE + b"<presence/>") * 3
    stream = opened()
    events = []
    for at in range(0, len(whole), size):
        events += stream.receive(whole[at : at + size])
    assert b"".join(event.raw for event in events) == whole


def test_a_stanza_beyond_the_limit_is_refused_whole_or_dripped():
    big = b"<message><body>" + b"x" * 300 + b"</body></message>"
    assert condition(opened(200).receive(big)) == "policy-violation"
    stream = opened(200)
    events = []
    for at in range(len(big)):
        events += stream.receive(big[at : at + 1])
    assert condition(events) == "policy-violation"


def test_an_unfinished_tag_counts_against_the_limit():
    stream = opened(200)
    events = stream.receive(b"<a b='")
    for _ in range(30):
        events += stream.receive(b"x" * 10)
    assert condition(events) == "policy-violation"


def test_a_header_beyond_the_limit_is_refused():
    stream = XmlStream(ParserPool(), 200)
    assert condition(stream.receive(b"<stream:stream a='" + b"x" * 300)) == "policy-violation"


def test_after_a_fault_all_input_is_ignored():
    stream = opened()
    assert condition(stream.receive(b"<a></b>")) == "not-well-formed"
    assert stream.receive(MESSAGE) == []
    assert stream.receive(HEADER) == []


def test_stanzas_before_a_fault_count():
    events = opened().receive(MESSAGE + b"<a></b>")
    assert events[0].raw == MESSAGE
    assert condition(events) == "not-well-formed"


def test_a_restart_expects_a_header_and_drops_what_was_held():
    stream = opened()
    stream.receive(b"<message to='")
    stream.restart()
    [event] = stream.receive(HEADER)
    assert isinstance(event, StreamOpened)


def test_streams_share_parsers_but_not_their_input():
    pool = ParserPool()
    one, two = XmlStream(pool, 1000), XmlStream(pool, 1000)
    one.receive(HEADER)
    two.receive(HEADER)
    assert one.receive(MESSAGE[:20]) == []
    [second] = two.receive(b"<presence/>")
    [first] = one.receive(MESSAGE[20:])
    assert (first.raw, second.raw) == (MESSAGE, b"<presence/>")
    assert condition(one.receive(b"</iq>")) == "not-well-formed"
    [third] = two.receive(MESSAGE)
    assert third.raw == MESSAGE


def test_a_prefix_declared_in_the_header_is_written_out():
    stream = XmlStream(ParserPool(), 10_000)
    stream.receive(HEADER.replace(b" to=", b" xmlns:y='urn:y' to="))
    [stanza] = stream.receive(b"<message><y:a y:b='c'/></message>")
    assert stanza.raw == b"<message><a xmlns='urn:y' xmlns:a1='urn:y' a1:b='c'/></message>"


def test_stanzas_may_have_a_prefix_for_the_content_namespace():
    stream = XmlStream(ParserPool(), 10_000)
    stream.receive(b"<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client' to='x' version='1.0'>")
    [stanza] = stream.receive(b"<c:message to='b@x'><c:body>hi</c:body></c:message>")
    assert stanza.name == "message"
    assert stanza.raw == b"<message to='b@x'><body>hi</body></message>"


def test_a_wrong_content_namespace_is_refused():
    stream = XmlStream(ParserPool(), 10_000)
    assert condition(stream.receive(HEADER.replace(b"jabber:client", b"jabber:wrong"))) == "invalid-namespace"


def test_the_servers_header_is_escaped():
    header = stream_header("1", "x", "a'b@x", "en")
    assert b"to='a&apos;b@x'" in header


def test_the_end_of_a_stream_is_seen_whatever_it_comes_with():
    for data in (b"</stream:stream>", b" </stream:stream>", b"</stream:stream >", MESSAGE + b"</stream:stream>"):
        stream = opened()
        stream.receive(MESSAGE)
        assert isinstance(stream.receive(data)[-1], StreamClosed)
        assert stream.receive(MESSAGE) == []


def test_the_end_tag_of_a_stream_inside_of_a_stanza_is_no_end():
    stream = opened()
    stream.receive(b"<message>")
    assert condition(stream.receive(b"</stream:stream>")) == "not-well-formed"

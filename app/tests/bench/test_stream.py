from __future__ import annotations

import pytest

from bench.stream import INCOMPLETE, StreamReader, StreamSyntaxError, attribute, element_end

HEADER = b"<?xml version='1.0'?><stream:stream from='localhost' xmlns='jabber:client'>"
FEATURES = b"<stream:features><mechanisms xmlns='urn:x'><mechanism>PLAIN</mechanism></mechanisms></stream:features>"
MESSAGE = b'<message from="a@b/c" id=\'1>2\'><body>Tom &amp; Jerry\'s "5 > 4"</body><x/></message>'


def test_stream_is_cut_into_its_elements():
    reader = StreamReader()
    assert reader.feed(HEADER + FEATURES + b"\n <presence/> " + MESSAGE + b"</stream:stream>") == [
        HEADER.removeprefix(b"<?xml version='1.0'?>"),
        FEATURES,
        b"<presence/>",
        MESSAGE,
        b"</stream:stream>",
    ]
    assert reader.pending == b""


def test_elements_that_come_byte_by_byte_are_complete_with_their_last_byte():
    reader = StreamReader()
    came = [(index, element) for index in range(len(MESSAGE)) for element in reader.feed(MESSAGE[index : index + 1])]
    assert came == [(len(MESSAGE) - 1, MESSAGE)]


@pytest.mark.parametrize(
    "cut", [b"<", b"<message", b"<message from='a", b"<message><body>x</body", b"<message><body/>"]
)
def test_beginning_of_an_element_is_not_one(cut):
    assert element_end(cut, 0) == INCOMPLETE


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x<presence/>"])
def test_what_is_no_stream_is_refused(rubbish):
    with pytest.raises(StreamSyntaxError, match="expected a tag"):
        StreamReader().feed(rubbish)


def test_attribute_of_the_first_tag_only():
    element = b"<iq id='7' type=\"get\"><query from='inner'/></iq>"
    assert attribute(element, b"id") == b"7"
    assert attribute(element, b"type") == b"get"
    assert attribute(element, b"from") is None

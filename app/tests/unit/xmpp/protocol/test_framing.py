"""Holding bytes back until a tag is complete."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.framing import COMPLETE_TAG, Holdback


@pytest.mark.parametrize(
    "tag",
    [b"<a>", b"</a>", b"<a/>", b"<a b='>'/>", b'<a b=">">', b"<a b='\"' c=\"'\">", b"<?xml version='1.0'?>"],
)
def test_complete_tags_are_recognised(tag):
    match = COMPLETE_TAG.match(tag + b"text>")
    assert match is not None
    assert match[0] == tag


@pytest.mark.parametrize("tag", [b"<a", b"<a b='>", b'<a b=">"', b"<a b='<'>"])
def test_incomplete_tags_are_not(tag):
    assert COMPLETE_TAG.match(tag) is None


@pytest.mark.parametrize(
    ("data", "released"),
    [
        (b"<a><b/></a>", b"<a><b/></a>"),
        (b"<a>text", b"<a>text"),
        (b"<a><b", b"<a>"),
        (b"<a><b c='>", b"<a>"),
        (b"<a>x &am", b"<a>x "),
        (b"<a>x &amp;", b"<a>x &amp;"),
        (b"<a>fish & chips are good, they say", b"<a>fish & chips are good, they say"),
        (b"text", b"text"),
        (b"<![CDATA[ 1 < 2", b"<![CDATA[ 1 "),
    ],
)
def test_only_whole_tags_are_released(data, released):
    holdback = Holdback()
    assert holdback.push(data) == released
    assert len(holdback) == len(data) - len(released)


def test_a_quote_in_cdata_does_not_hold_the_stanza_back():
    holdback = Holdback()
    released = [holdback.push(part) for part in (b"<a><![CDATA[ 1 < it's", b" so ]]>", b"</a>")]
    assert b"".join(released) == b"<a><![CDATA[ 1 < it's so ]]></a>"
    assert not len(holdback)


@given(st.lists(st.integers(min_value=1, max_value=7)))
def test_nothing_is_lost_however_the_input_is_cut(sizes):
    whole = b"<m to='a&gt;b' x=\">\"><body>1 &lt; 2 &amp; <![CDATA[ <it's> ]]></body></m><p/>" * 2
    holdback = Holdback()
    released, at = b"", 0
    for size in [*sizes, len(whole)]:
        if at < len(whole):
            released += holdback.push(whole[at : at + size])
            at += size
    assert released == whole


def test_a_complete_tag_is_released_with_its_last_byte():
    holdback = Holdback()
    whole = b"<iq a='>'><q/></iq>"
    ends = [index for index in range(len(whole)) if holdback.push(whole[index : index + 1]).endswith(b">")]
    assert ends == [9, 13, 18]


@pytest.mark.parametrize("start", [b"<!-", b"<!D", b"<!E"])
def test_comments_and_declarations_are_refused_before_they_end(start):
    with pytest.raises(StreamError) as caught:
        Holdback().push(b"<a>" + start)
    assert caught.value.condition == "restricted-xml"


def test_clear_forgets():
    holdback = Holdback()
    holdback.push(b"<a b='")
    holdback.clear()
    assert holdback.push(b"<c/>") == b"<c/>"


def _seconds(length: int) -> float:
    holdback = Holdback()
    holdback.push(b"<a b='")
    started = time.process_time()
    for _ in range(length // 10):
        holdback.push(b"x>yyyyyy>z")
    assert len(holdback) == length + 6
    return time.process_time() - started


def test_a_dripped_attribute_costs_linear_time():
    _seconds(10_000)
    small, large = min(_seconds(50_000) for _ in range(3)), min(_seconds(400_000) for _ in range(3))
    assert large < small * 8 * 4

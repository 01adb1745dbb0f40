"""Counting and acknowledging stanzas (XEP-0198)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.sm import StreamManagement


def with_queue(*stanzas: bytes) -> StreamManagement:
    sm = StreamManagement()
    for raw in stanzas:
        sm.sent(raw)
    return sm


def test_an_acknowledgement_drops_what_it_covers():
    sm = with_queue(b"a", b"bb", b"ccc")
    assert sm.acknowledge("2") == 2
    assert (list(sm.queue), sm.size) == ([b"ccc"], 3)
    assert sm.acknowledge("2") == 0
    assert sm.acknowledge("3") == 1


def test_more_than_was_sent_can_not_be_acknowledged():
    with pytest.raises(StreamError) as caught:
        with_queue(b"a").acknowledge("2")
    assert caught.value.condition == "undefined-condition"
    assert b"<handled-count-too-high xmlns='urn:xmpp:sm:3' h='2' send-count='1'/>" in caught.value.to_bytes()


@pytest.mark.parametrize("h", [None, "", "-1", "1.0", "one", "٣", "99999999999"])
def test_a_counter_is_a_number(h):
    with pytest.raises(StreamError):
        with_queue(b"a").acknowledge(h)


def test_counters_wrap_around():
    sm = with_queue()
    sm.acknowledged = (1 << 32) - 1
    sm.sent(b"a")
    sm.sent(b"b")
    assert sm.acknowledge("1") == 2
    sm.received = (1 << 32) + 5
    assert sm.h == 5
    assert sm.answer() == b"<a xmlns='urn:xmpp:sm:3' h='5'/>"


def test_nothing_behind_an_unsettled_stanza_is_acknowledged():
    sm = with_queue()
    sm.received = 1
    first = sm.unsettle()
    sm.received = 2
    second = sm.unsettle()
    sm.received = 3
    assert sm.handled == 0
    assert not sm.settle(second)
    assert sm.handled == 0
    assert sm.settle(first)
    assert sm.handled == 3

from __future__ import annotations

import pytest

from bench.messages import BODY_SIZE, Findings, Ledger, make_body, read_body


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(7)


def test_body_says_what_it_is():
    body = make_body(7, 123)
    assert len(body) == BODY_SIZE
    assert read_body(body) == (7, 123)


@pytest.mark.parametrize("position", [0, 8, 12, 20, 60, BODY_SIZE - 1])
def test_body_with_one_changed_byte_is_damaged(position):
    body = bytearray(make_body(7, 123))
    body[position] ^= 1
    assert read_body(bytes(body)) is None


def test_messages_that_arrive_once_and_in_order_give_no_findings(ledger):
    bodies = [ledger.new_body(float(moment)) for moment in range(5)]
    assert [ledger.arrived(body) for body in bodies] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert not ledger.close()


def test_message_that_never_arrives_is_lost(ledger):
    first, second = ledger.new_body(1.0), ledger.new_body(2.0)
    assert ledger.arrived(second) == 2.0
    assert ledger.close() == Findings(lost=1)
    assert ledger.arrived(first) is None


def test_message_at_the_end_that_never_arrives_is_lost(ledger):
    assert ledger.arrived(ledger.new_body(1.0)) == 1.0
    ledger.new_body(2.0)
    assert ledger.close() == Findings(lost=1)


def test_message_that_arrives_twice_is_duplicated(ledger):
    body = ledger.new_body(1.0)
    ledger.arrived(body)
    assert ledger.arrived(body) is None
    assert ledger.close() == Findings(duplicated=1)


def test_message_that_is_overtaken_is_reordered_and_not_lost(ledger):
    first, second = ledger.new_body(1.0), ledger.new_body(2.0)
    ledger.arrived(second)
    ledger.arrived(first)
    assert ledger.close() == Findings(reordered=1)


def test_damaged_message_is_not_counted_as_arrived(ledger):
    body = ledger.new_body(1.0)
    assert ledger.arrived(body[:-1] + b"!") is None
    assert ledger.close() == Findings(lost=1, damaged=1)


def test_message_of_another_pair_is_misdelivered(ledger):
    assert ledger.arrived(make_body(8, 0)) is None
    assert ledger.close() == Findings(misdelivered=1)
    assert Findings(misdelivered=1)

"""The client's half of stream management."""

import pytest

from load.interruptions import Interruptions
from load.ledger import Ledger
from load.management import Management, TooManyAcknowledgedError


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def management():
    return Management()


def test_acknowledgements_are_cumulative(management, ledger):
    messages = [ledger.new(0, 1, 0) for _ in range(4)]
    management.sent(b"<presence/>")
    for message in messages:
        management.sent(b"<message/>", message)
    assert management.acknowledge(0) == []
    assert management.acknowledge(3) == messages[:2]
    assert management.acknowledge(3) == []
    assert management.messages == 2
    assert management.acknowledge(5) == messages[2:]


def test_the_counter_wraps_around(management):
    management._acknowledged = 2**32 - 1
    management.sent(b"<presence/>")
    management.sent(b"<presence/>")
    management.acknowledge(1)
    assert not management.queue
    management.inbound = 2**32 - 1
    management.received()
    assert management.inbound == 0


@pytest.mark.parametrize("h", [2, 2**32 - 1])
def test_more_than_was_sent_cannot_be_acknowledged(management, h):
    management.sent(b"<presence/>")
    with pytest.raises(TooManyAcknowledgedError, match="1 were sent"):
        management.acknowledge(h)


def test_a_new_session_hands_back_the_messages_that_are_open(management, ledger):
    done, left = ledger.new(0, 1, 0), ledger.new(0, 1, 0)
    management.sent(b"<message id='1'/>", done)
    management.sent(b"<presence/>")
    management.sent(b"<message id='2'/>", left)
    management.received()
    management.acknowledge(1)
    assert management.begin(b"token") == [(b"<message id='2'/>", left)]
    assert (management.token, management.inbound, len(management.queue)) == (b"token", 0, 0)
    management.sent(b"<presence/>")
    assert management.acknowledge(1) == []


def test_interruptions():
    waits = Interruptions()
    waits.waited(0.5)
    waits.down(10)
    waits.down(11)
    waits.up(12)
    waits.up(20)
    assert waits.close_round(20) == 2
    assert waits.close_round(21) == 0
    waits.down(22)
    assert waits.close_round(25) == 3
    waits.up(26)
    assert waits.close_round(30) == 4

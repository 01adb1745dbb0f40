"""The account of every message."""

import pytest

from load.ledger import Ledger

ALICE, BOB, CAROL = 0, 1, 2


@pytest.fixture
def ledger():
    return Ledger()


def arrives(ledger, message, *, recipient=None, session=1, now=2.0):
    to = message.recipient if recipient is None else recipient
    ledger.arrived(message.id, message.body, to, session, now)


def test_a_message_that_arrives_once(ledger):
    message = ledger.new(ALICE, BOB, 1.0)
    assert ledger.open() == [message]
    arrives(ledger, message, now=1.5)
    assert ledger.acknowledged(message, 3.0) == 2.0
    assert ledger.open() == []
    findings, wrong = ledger.close_round({BOB})
    assert (findings.sent, findings.acknowledged, findings.lost, findings.duplicated) == (1, 1, 0, 0)
    assert findings.delay == 0.5
    assert wrong == []


def test_ids_differ_between_runs():
    assert Ledger().new(ALICE, BOB, 0).id != Ledger().new(ALICE, BOB, 0).id


def test_lost_is_what_was_acknowledged_only(ledger):
    promised, not_promised = ledger.new(ALICE, BOB, 1), ledger.new(ALICE, BOB, 1)
    ledger.acknowledged(promised, 2)
    findings, wrong = ledger.close_round({BOB})
    assert (findings.lost, findings.unacknowledged) == (1, 1)
    assert wrong == [promised, not_promised]


def test_a_second_acknowledgement_changes_nothing(ledger):
    message = ledger.new(ALICE, BOB, 1)
    ledger.acknowledged(message, 2)
    assert ledger.acknowledged(message, 9) == 1


@pytest.mark.parametrize(
    ("resent", "session", "kind"),
    [(False, 1, "same session"), (False, 2, "new session"), (True, 2, "resent"), (True, 1, "resent")],
)
def test_duplicates_and_how_they_came_about(ledger, resent, session, kind):
    message = ledger.new(ALICE, BOB, 1)
    arrives(ledger, message)
    if resent:
        ledger.resent(message)
    arrives(ledger, message, session=session)
    findings, wrong = ledger.close_round({BOB})
    assert findings.duplicated == 1
    assert findings.duplicates == {kind: 1}
    assert findings.resent == int(resent)
    assert wrong == [message]


def test_a_duplicate_of_an_earlier_round_counts_when_it_comes(ledger):
    message = ledger.new(ALICE, BOB, 1)
    ledger.acknowledged(message, 1)
    arrives(ledger, message)
    assert ledger.close_round({BOB})[0].duplicated == 0
    arrives(ledger, message)
    assert ledger.close_round({BOB})[0].duplicated == 1


def test_order_is_between_two(ledger):
    first, second, other = (ledger.new(*pair, 1.0) for pair in ((ALICE, BOB), (ALICE, BOB), (CAROL, BOB)))
    for message in (other, second, first):
        arrives(ledger, message)
    assert ledger.close_round({BOB})[0].misordered == 1


def test_a_repetition_is_no_matter_of_order(ledger):
    first, second = ledger.new(ALICE, BOB, 1), ledger.new(ALICE, BOB, 1)
    for message in (first, second, first):
        arrives(ledger, message)
    assert ledger.close_round({BOB})[0].misordered == 0


def test_a_message_that_came_back(ledger):
    message = ledger.new(ALICE, BOB, 1)
    ledger.acknowledged(message, 1)
    ledger.bounced(message.id, "resource-constraint")
    assert ledger.open() == []
    findings, wrong = ledger.close_round({BOB})
    assert (findings.lost, findings.bounced) == (0, {"resource-constraint": 1})
    assert wrong == [message]


def test_damage_somebody_else_and_strays(ledger):
    message = ledger.new(ALICE, BOB, 1)
    arrives(ledger, message, recipient=CAROL)
    ledger.arrived(message.id, b"something else", BOB, 1, 2)
    ledger.arrived(b"unheard-of", b"", BOB, 1, 2)
    ledger.bounced(b"unheard-of", "gone")
    findings = ledger.close_round({BOB})[0]
    assert (findings.misdelivered, findings.damaged, findings.strays) == (1, 1, 2)


def test_stored_messages_may_take_their_time(ledger):
    message = ledger.new(ALICE, CAROL, 1)
    ledger.acknowledged(message, 1)
    assert ledger.open({BOB}) == []
    assert ledger.open({CAROL}) == [message]
    arrives(ledger, message, now=500)
    assert ledger.close_round({BOB})[0].delay == 0

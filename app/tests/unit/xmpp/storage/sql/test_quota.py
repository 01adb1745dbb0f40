"""How the quota is counted; `integration/storage/test_offline.py` has the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, Engine, event, text

from monktalk.common.clock import ManualClock
from monktalk.db import migrate
from monktalk.db.engine import create_engine, for_writing, write_transaction
from monktalk.xmpp.storage.sql.messages import MessagesApplier
from monktalk.xmpp.storage.sql.quota import RECOUNT_AFTER, RECOUNT_FULL_AFTER
from monktalk.xmpp.storage.sql.requests import Append

if TYPE_CHECKING:
    from pathlib import Path

BOX = ("example.org", "bob")


class Mailboxes:
    """An applier on a database, and the queries that it makes."""

    def __init__(self, engine: Engine, clock: ManualClock) -> None:
        self.engine = engine
        self.applier = MessagesApplier(clock.now, clock.monotonic)
        self.counts = 0
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        self.counts += "count(*)" in statement

    def append(self, number: int, limit: int = 1000, expires: float | None = None) -> list[bool]:
        requests = [Append(BOX, b"x", 1.0, expires, limit) for _ in range(number)]
        with write_transaction(self.engine) as connection:
            self.applier.begin()
            outcomes = self.applier.apply(connection, requests)
        self.applier.settle(committed=True)
        return outcomes

    def append_and_roll_back(self, number: int, limit: int) -> None:
        """An attempt that fails; whether it is settled is left to the test."""
        with for_writing(self.engine.connect()) as connection:
            transaction = connection.begin()
            self.applier.begin()
            self.applier.apply(connection, [Append(BOX, b"x", 1.0, None, limit)] * number)
            transaction.rollback()

    def other_process(self, statement: str) -> None:
        with write_transaction(self.engine) as connection:
            connection.execute(text(statement))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def mailboxes(tmp_path: Path, clock: ManualClock) -> Iterator[Mailboxes]:
    url = f"sqlite:///{tmp_path}/a.db"
    migrate.upgrade(url)
    engine = create_engine(url)
    yield Mailboxes(engine, clock)
    engine.dispose()


DELETE = "DELETE FROM offline_messages"
INSERT = "INSERT INTO offline_messages (host, username, stanza, stamp) VALUES ('example.org', 'bob', x'00', 1.0)"


def test_a_mailbox_is_counted_once(mailboxes: Mailboxes) -> None:
    for _ in range(20):
        mailboxes.append(5)
    assert mailboxes.counts == 1


def test_a_full_mailbox_is_counted_once_a_second_at_most(mailboxes: Mailboxes, clock: ManualClock) -> None:
    mailboxes.append(10, limit=10)
    for _ in range(20):
        assert mailboxes.append(5, limit=10) == [False] * 5
    assert mailboxes.counts == 1
    clock.advance(RECOUNT_FULL_AFTER + 0.1)
    assert mailboxes.append(5, limit=10) == [False] * 5
    assert mailboxes.counts == 2


def test_room_that_another_process_made_is_seen_before_refusing(mailboxes: Mailboxes, clock: ManualClock) -> None:
    mailboxes.append(3, limit=3)
    mailboxes.other_process(DELETE)
    clock.advance(RECOUNT_FULL_AFTER + 0.1)
    assert mailboxes.append(4, limit=3) == [True, True, True, False]


def test_a_recount_includes_what_is_about_to_be_stored(mailboxes: Mailboxes, clock: ManualClock) -> None:
    mailboxes.append(2, limit=3)
    clock.advance(RECOUNT_FULL_AFTER + 0.1)
    assert mailboxes.append(3, limit=3) == [True, False, False]


def test_messages_of_other_processes_count_after_a_while(mailboxes: Mailboxes, clock: ManualClock) -> None:
    mailboxes.append(1, limit=3)
    for _ in range(2):
        mailboxes.other_process(INSERT)
    clock.advance(RECOUNT_AFTER + 1)
    assert mailboxes.append(1, limit=3) == [False]


def test_expired_messages_do_not_fill_a_mailbox(mailboxes: Mailboxes, clock: ManualClock) -> None:
    mailboxes.append(3, limit=3, expires=clock.now() + 10)
    clock.advance(11)
    assert mailboxes.append(1, limit=3) == [True]
    with mailboxes.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM offline_messages")) == 1


def test_what_was_rolled_back_does_not_count(mailboxes: Mailboxes) -> None:
    mailboxes.append(1, limit=3)
    mailboxes.append_and_roll_back(2, limit=3)
    mailboxes.applier.settle(committed=False)
    assert mailboxes.append(3, limit=3) == [True, True, False]


def test_a_transaction_that_is_tried_again_counts_once(mailboxes: Mailboxes) -> None:
    mailboxes.append(1, limit=3)
    mailboxes.append_and_roll_back(2, limit=3)
    # `append` begins anew, without a word about the attempt before.
    assert mailboxes.append(3, limit=3) == [True, True, False]

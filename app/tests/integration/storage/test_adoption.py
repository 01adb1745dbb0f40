"""Two processes and one session: what one of them has written when the other takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from monktalk.db.engine import create_engine, for_writing
from monktalk.xmpp.storage.interfaces import Delivered
from monktalk.xmpp.storage.sql.messages import MessagesApplier
from monktalk.xmpp.storage.sql.requests import Adopt, Append, Deliver
from monktalk.xmpp.storage.sql.storage import SqlStorage
from tests.integration.storage.sessions import HOST, contents, delivered, left, opened, waiting
from tests.integration.storage.waiting import eventually

if TYPE_CHECKING:
    from monktalk.common.clock import ManualClock
    from monktalk.xmpp.storage.sql.requests import Request
    from tests.integration.storage.conftest import Opener
    from tests.postgres import PostgresServer

BOX = (HOST, "bob")


async def test_the_former_owner_finds_out(open_storage: Opener) -> None:
    one, two = await open_storage(), await open_storage()
    session = await opened(one)
    await delivered(one, "1", (session, 1), number=1)
    (adopted,) = await two.sessions.adopt(HOST, "bob", "worker-2")
    assert contents(adopted) == [(1, "1")]
    assert await delivered(one, "2", (session, 2), number=2) is Delivered.SUPERSEDED
    # The sender's message goes on to the new owner, who may know it already.
    assert await delivered(two, "1", (adopted.id, 2), number=1) is Delivered.DUPLICATE
    assert await delivered(two, "2", (adopted.id, 2), number=2) is Delivered.STORED
    assert await one.sessions.close(session) is False
    assert await left(one) == {"token": [(1, "1"), (2, "2")]}


async def test_the_sessions_of_a_dead_process_are_shared_out(open_storage: Opener) -> None:
    dead, *adopters = [await open_storage() for _ in range(3)]
    await asyncio.gather(*(opened(dead, f"t{number}", user=f"u{number}", owner="dead") for number in range(100)))
    await dead.close()

    async def adopt(storage: SqlStorage, owner: str) -> list[str]:
        tokens = []
        while adopted := await storage.sessions.adopt_from("dead", owner, 7):
            tokens += [session.token for session in adopted]
        return tokens

    shares = await asyncio.gather(*(adopt(storage, f"w{place}") for place, storage in enumerate(adopters)))
    assert sorted(token for share in shares for token in share) == sorted(f"t{number}" for number in range(100))


async def test_nothing_is_lost_between_two_homes(open_storage: Opener) -> None:
    """Two processes take one session from each other while a sender goes on: each message is there once."""
    storages = [await open_storage() for _ in range(2)]
    current = [await opened(storages[0], owner="worker-0"), 0]
    out_seq = 0

    async def send(number: int) -> None:
        nonlocal out_seq
        outcome = Delivered.SUPERSEDED
        while outcome is Delivered.SUPERSEDED:
            for storage, session in zip(storages, tuple(current), strict=True):
                if outcome is Delivered.SUPERSEDED:
                    out_seq += 1
                    outcome = await delivered(storage, str(number), (session, out_seq), number=number)

    async def take(place: int) -> None:
        (adopted,) = await storages[place].sessions.adopt(HOST, "bob", f"worker-{place}")
        current[place] = adopted.id

    for turn in range(20):
        sending = [send(number) for number in range(turn * 10, turn * 10 + 10)]
        await asyncio.gather(*sending[:5], take((turn + 1) % 2), *sending[5:])
    (messages,) = (await left(storages[0])).values()
    assert sorted(int(body) for _, body in messages) == list(range(200))


@pytest.fixture
def url(postgres: PostgresServer, migrated: str) -> str:
    return postgres.create_database(template=migrated)


@pytest.fixture
async def storage(url: str, clock: ManualClock) -> AsyncIterator[SqlStorage]:
    storage = SqlStorage(url, now=clock.now)
    await storage.start()
    yield storage
    await storage.close()


class SlowProcess:
    """Another process, in the middle of a transaction."""

    def __init__(self, url: str, postgres: PostgresServer, clock: ManualClock) -> None:
        self._url = url
        self._postgres = postgres
        self._applier = MessagesApplier(clock.now)

    @contextmanager
    def writing(self, *requests: Request) -> Iterator[None]:
        """Requests are carried out at the beginning and committed at the end."""
        engine = create_engine(self._url)
        try:
            with for_writing(engine.connect()) as connection, connection.begin():
                self._applier.begin()
                self._applier.apply(connection, requests)
                yield
        finally:
            engine.dispose()

    async def somebody_waits(self) -> None:
        """Until another transaction waits for a lock."""
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
        await eventually(lambda: bool(self._postgres.execute(waiting)))


@pytest.fixture
def slow(url: str, postgres: PostgresServer, clock: ManualClock) -> SlowProcess:
    return SlowProcess(url, postgres, clock)


@pytest.mark.integration
async def test_an_adopter_waits_for_what_is_being_stored(storage: SqlStorage, slow: SlowProcess) -> None:
    session = await opened(storage)
    with slow.writing(Deliver(BOX, b"hello", 1.0, None, [(session, 1)], ("alice's", 1))):
        adoption = asyncio.ensure_future(storage.sessions.adopt(HOST, "bob", "worker-2"))
        await slow.somebody_waits()
        assert not adoption.done()
    (adopted,) = await adoption
    assert contents(adopted) == [(1, "hello")]


@pytest.mark.integration
async def test_nothing_is_stored_for_what_is_being_adopted(storage: SqlStorage, slow: SlowProcess) -> None:
    session = await opened(storage)
    with slow.writing(Adopt("worker-2", BOX)):
        delivery = asyncio.ensure_future(delivered(storage, "hello", (session, 1), number=1))
        await slow.somebody_waits()
    assert await delivery is Delivered.SUPERSEDED
    assert await left(storage) == {"token": []}


@pytest.mark.integration
async def test_a_session_goes_to_one_of_two_adopters(storage: SqlStorage, slow: SlowProcess) -> None:
    for number in range(5):
        await opened(storage, f"t{number}")
    with slow.writing(Adopt("worker-2", BOX)):
        adoption = asyncio.ensure_future(storage.sessions.adopt(HOST, "bob", "worker-3"))
        await slow.somebody_waits()
    assert await adoption == []
    assert await storage.sessions.owners() == {"worker-2": 5}


@pytest.mark.integration
async def test_none_left_is_not_said_while_the_dead_owners_last_transaction_is_open(
    storage: SqlStorage, slow: SlowProcess
) -> None:
    session = await opened(storage, owner="dead")
    with slow.writing(Deliver(BOX, b"hello", 1.0, None, [(session, 1)], ("alice's", 1))):
        adoption = asyncio.ensure_future(storage.sessions.adopt_from("dead", "worker-2", 10))
        await slow.somebody_waits()
    (adopted,) = await adoption
    assert contents(adopted) == [(1, "hello")]


@pytest.mark.integration
async def test_a_message_that_is_being_stored_elsewhere_is_a_duplicate(storage: SqlStorage, slow: SlowProcess) -> None:
    one, two = await opened(storage, "one"), await opened(storage, "two")
    with slow.writing(Append(BOX, b"hello", 1.0, None, 10, ("alice's", 1))):
        delivery = asyncio.ensure_future(delivered(storage, "hello", (one, 1), (two, 1), number=1))
        await slow.somebody_waits()
    assert await delivery is Delivered.DUPLICATE
    assert await waiting(storage) == ["hello"]
    assert await left(storage) == {"one": [], "two": []}

"""A storage with patience, while PostgreSQL is away for a moment or for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from monktalk.db import migrate
from monktalk.db.engine import create_engine
from monktalk.xmpp.storage.interfaces import Delivered, StorageUnavailable
from monktalk.xmpp.storage.sql.storage import SqlStorage
from tests.integration.storage.codecs import TextCodec
from tests.integration.storage.sessions import HOST, delivered, left, opened
from tests.integration.storage.waiting import eventually
from tests.postgres import free_port

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def url(postgres_victim: PostgresServer) -> str:
    url = postgres_victim.create_database()
    migrate.upgrade(url)
    return url


@pytest.fixture
async def storage(url: str, postgres_victim: PostgresServer) -> AsyncIterator[SqlStorage]:
    # Several hosts, as a cluster has them.
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{postgres_victim.port}"
    several = postgres_victim.url(url.rpartition("/")[2], hosts=hosts)
    storage = SqlStorage(several, patience=30.0, statement_timeout=2.0)
    await storage.start()
    yield storage
    await storage.close()


async def test_nothing_fails_nothing_is_lost_and_nothing_is_there_twice(
    storage: SqlStorage, postgres_victim: PostgresServer
) -> None:
    """The database is killed twice while messages are stored all the time."""
    session = await opened(storage)
    stored: list[int] = []
    ended = False

    async def deliver_all_the_time(sender: int) -> None:
        number = 0
        while not ended:
            number += 1
            outcome = await delivered(storage, "x", (session, number), number=number, origin=f"o{sender}")
            assert outcome is Delivered.STORED
            assert await storage.offline.append(HOST, "bob", b"y", 1.0, None, 10**6, f"a{sender}", number) is True
            assert await storage.sessions.handled(session, number) is True
            stored.append(sender)

    senders = [asyncio.ensure_future(deliver_all_the_time(sender)) for sender in range(20)]
    for _ in range(2):
        before = len(stored)
        await eventually(lambda: len(stored) > before + 100)  # noqa: B023 - it is called at once
        await asyncio.to_thread(postgres_victim.kill)
        await asyncio.to_thread(postgres_victim.start)
    before = len(stored)
    await eventually(lambda: len(stored) > before + 100)
    ended = True
    await asyncio.gather(*senders)
    assert await storage.offline.count(HOST, "bob") == len(stored)
    assert len((await left(storage))["token"]) == len(stored)


async def test_everything_waits_until_the_database_is_back(
    storage: SqlStorage, postgres_victim: PostgresServer
) -> None:
    session = await opened(storage)
    store = storage.keyvalue("roster", TextCodec(), cache_size=10)
    await asyncio.to_thread(postgres_victim.stop)
    calls: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(store.get(HOST, "alice", "")),
        asyncio.ensure_future(storage.accounts.find(HOST, "alice")),
        asyncio.ensure_future(storage.offline.count(HOST, "bob")),
    ]
    await eventually(lambda: not storage.healthy())
    calls += [
        asyncio.ensure_future(store.put(HOST, "bob", "", "x", 0)),
        asyncio.ensure_future(storage.offline.append(HOST, "bob", b"1", 1.0, None, 10)),
        asyncio.ensure_future(delivered(storage, "2", (session, 1), number=1)),
        asyncio.ensure_future(storage.offline.load(HOST, "carol", 10)),
        asyncio.ensure_future(storage.sessions.owners()),
    ]
    await asyncio.sleep(0)
    assert not any(call.done() for call in calls)
    await asyncio.to_thread(postgres_victim.start)
    absent, account, _, version, appended, outcome, messages, owners = await asyncio.gather(*calls)
    assert (absent, account, messages) == (None, None, [])
    assert version > 0
    assert (appended, outcome, owners) == (True, Delivered.STORED, {"worker-1": 1})
    assert storage.healthy()


async def test_patience_ends(url: str, postgres_victim: PostgresServer) -> None:
    storage = SqlStorage(url, patience=1.0)
    await storage.start()
    try:
        await asyncio.to_thread(postgres_victim.stop)
        began = time.monotonic()
        async with asyncio.timeout(10):
            results = await asyncio.gather(
                storage.offline.append(HOST, "bob", b"x", 1.0, None, 10, "o", 1),
                storage.offline.append(HOST, "bob", b"x", 1.0, None, 10),
                storage.offline.count(HOST, "bob"),
                storage.accounts.count(HOST),
                storage.accounts.find(HOST, "bob"),
                return_exceptions=True,
            )
        assert [type(result) for result in results] == [StorageUnavailable] * 5
        assert time.monotonic() - began >= 1.0
        assert storage.statistics()["queued_writes"] == storage.statistics()["queued_reads"] == 0
    finally:
        await storage.close()
        await asyncio.to_thread(postgres_victim.start)


async def test_what_waits_is_bounded(url: str, postgres_victim: PostgresServer) -> None:
    storage = SqlStorage(url, patience=30.0, queue_limit=5)
    await storage.start()
    try:
        await asyncio.to_thread(postgres_victim.stop)
        appends = [storage.offline.append(HOST, "bob", b"x", 1.0, None, 10) for _ in range(6)]
        with pytest.raises(StorageUnavailable, match="too many"):
            await appends[5]
        await asyncio.to_thread(postgres_victim.start)
        assert await asyncio.gather(*appends[:5]) == [True] * 5
    finally:
        await storage.close()


async def test_closing_waits_for_nobody(url: str, postgres_victim: PostgresServer) -> None:
    storage = SqlStorage(url, patience=60.0)
    await storage.start()
    await asyncio.to_thread(postgres_victim.stop)
    calls: list[asyncio.Future[Any]] = [
        storage.offline.append(HOST, "bob", b"x", 1.0, None, 10),
        asyncio.ensure_future(storage.offline.count(HOST, "bob")),
    ]
    await eventually(lambda: not storage.healthy())
    async with asyncio.timeout(10):
        await storage.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [StorageUnavailable] * 2
    await asyncio.to_thread(postgres_victim.start)


async def test_a_start_does_not_wait(url: str, postgres_victim: PostgresServer) -> None:
    await asyncio.to_thread(postgres_victim.stop)
    storage = SqlStorage(url, patience=60.0)
    async with asyncio.timeout(10):
        await storage.start()
    append = storage.offline.append(HOST, "bob", b"x", 1.0, None, 10)
    await asyncio.to_thread(postgres_victim.start)
    assert await append is True
    await storage.close()


async def test_a_lock_that_is_held_too_long_is_waited_for(
    storage: SqlStorage, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a failover that left the transaction of an interrupted commit open on the server."""
    session = await opened(storage)
    engine = create_engine(url)
    with engine.connect() as holder:
        holder.execute(text("SELECT id FROM sessions FOR UPDATE"))
        delivery = asyncio.ensure_future(delivered(storage, "x", (session, 1), number=1))
        await eventually(lambda: "writes_repeated" in caplog.messages)
        assert storage.healthy()
    engine.dispose()
    assert await delivery is Delivered.STORED

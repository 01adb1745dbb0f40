"""The connection to PostgreSQL breaks during a commit, which has taken place or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from monktalk.xmpp.storage.interfaces import Delivered, StorageUnavailable
from monktalk.xmpp.storage.sql.storage import SqlStorage
from tests.integration.storage.codecs import TextCodec
from tests.integration.storage.proxy import Fault, Proxy
from tests.integration.storage.sessions import HOST, contents, delivered, left, opened, waiting
from tests.integration.storage.waiting import eventually

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

pytestmark = pytest.mark.integration

BEHIND = Callable[[float], Awaitable[SqlStorage]]


@pytest.fixture
def url(postgres: PostgresServer, migrated: str) -> str:
    return postgres.create_database(template=migrated)


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    proxy = Proxy(postgres.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def behind(url: str, proxy: Proxy, postgres: PostgresServer) -> AsyncIterator[BEHIND]:
    """A storage with so much patience, whose commits the proxy can break."""
    opened: list[SqlStorage] = []

    async def opener(patience: float) -> SqlStorage:
        database = url.rpartition("/")[2]
        storage = SqlStorage(postgres.url(database, hosts=f"127.0.0.1:{proxy.port}"), patience=patience)
        opened.append(storage)
        await storage.start()
        return storage

    yield opener
    for storage in opened:
        await storage.close()


@pytest.fixture
async def storage(behind: BEHIND) -> SqlStorage:
    return await behind(20.0)


@pytest.fixture
async def other(url: str) -> AsyncIterator[SqlStorage]:
    """Another process, whose connection is as it should be."""
    storage = SqlStorage(url)
    await storage.start()
    yield storage
    await storage.close()


@pytest.fixture(params=list(Fault))
def fault(request: pytest.FixtureRequest) -> Fault:
    fault: Fault = request.param
    return fault


async def test_messages_are_there_once(storage: SqlStorage, other: SqlStorage, proxy: Proxy, fault: Fault) -> None:
    one, two = await opened(storage, "one"), await opened(storage, "two")
    await delivered(storage, "known", (one, 1), number=9)
    proxy.fault = fault
    results = await asyncio.gather(
        delivered(storage, "1", (one, 2), (two, 1), number=1),
        delivered(storage, "2", (one, 3), number=2),
        delivered(storage, "known", (one, 4), number=9),
        delivered(storage, "gone", (999_999, 4), number=10),
        storage.offline.append(HOST, "bob", b"3", 1.0, None, 2, "alice's", 3),
        storage.offline.append(HOST, "bob", b"4", 1.0, None, 2, "alice's", 4),
        storage.offline.append(HOST, "bob", b"full", 1.0, None, 2, "alice's", 5),
    )
    stored = Delivered.STORED
    assert list(results) == [stored, stored, Delivered.DUPLICATE, Delivered.SUPERSEDED, True, True, False]
    assert await waiting(storage) == ["3", "4"]
    assert await left(other) == {"one": [(1, "known"), (2, "1"), (3, "2")], "two": [(1, "1")]}


async def test_a_message_without_origin_is_not_stored_twice(
    storage: SqlStorage, other: SqlStorage, proxy: Proxy, fault: Fault
) -> None:
    proxy.fault = fault
    append = storage.offline.append(HOST, "bob", b"x", 1.0, None, 10)
    known = storage.offline.append(HOST, "bob", b"y", 1.0, None, 10, "alice's", 1)
    with pytest.raises(StorageUnavailable, match="during a commit"):
        await append
    assert await known is True
    assert await waiting(other) == (["x", "y"] if fault is Fault.ANSWER_LOST else ["y"])


async def test_a_value_is_not_written_twice(storage: SqlStorage, proxy: Proxy, fault: Fault) -> None:
    store = storage.keyvalue("roster", TextCodec(), cache_size=10)
    first = await store.put(HOST, "alice", "", "1", 0)
    proxy.fault = fault
    with pytest.raises(StorageUnavailable, match="during a commit"):
        await store.put(HOST, "alice", "", "2", first)
    found = await store.get(HOST, "alice", "")
    assert found is not None
    assert found.value == ("2" if fault is Fault.ANSWER_LOST else "1")


async def test_sessions_are_written_down(storage: SqlStorage, other: SqlStorage, proxy: Proxy, fault: Fault) -> None:
    session = await opened(storage)
    proxy.fault = fault
    results = await asyncio.gather(
        storage.sessions.handled(session, 5),
        storage.sessions.acknowledged(session, 4),
        storage.sessions.update(session, b"new"),
        storage.sessions.update(999_999, b"new"),
        opened(storage, "second"),
    )
    assert list(results[:4]) == [True, True, True, False]
    assert await storage.sessions.handled(results[4], 1) is True
    one, two = await other.sessions.adopt(HOST, "bob", "worker-2")
    assert (one.handled, one.acknowledged, one.state) == (5, 4, b"new")
    assert (two.token, two.handled) == ("second", 1)


async def test_sessions_are_closed(storage: SqlStorage, proxy: Proxy, fault: Fault) -> None:
    one, two, three = [await opened(storage, token) for token in ("one", "two", "three")]
    for number in (1, 2):
        await delivered(storage, str(number), (two, number), number=number)
    proxy.fault = fault
    results = await asyncio.gather(
        storage.sessions.close(one),
        storage.offline.reassign(HOST, "bob", two, [(1, three, 1), (2, None, 0)], close=True),
    )
    assert list(results) == [True, True]
    assert await waiting(storage) == ["2"]
    assert await left(storage) == {"three": [(1, "1")]}


async def test_an_adoption_is_carried_out(storage: SqlStorage, other: SqlStorage, proxy: Proxy, fault: Fault) -> None:
    session = await opened(other)
    await delivered(other, "hello", (session, 1), number=1)
    await opened(other, "carol's", user="carol", owner="dead")
    proxy.fault = fault
    (adopted,) = await storage.sessions.adopt(HOST, "bob", "worker-2")
    assert contents(adopted) == [(1, "hello")]
    assert await storage.sessions.handled(adopted.id, 1) is True
    proxy.fault = fault
    (carols,) = await storage.sessions.adopt_from("dead", "worker-2", 10)
    assert await storage.sessions.handled(carols.id, 1) is True
    assert await storage.sessions.owners() == {"worker-2": 2}


async def test_an_adoption_that_failed_is_in_the_next_one(
    behind: BEHIND, other: SqlStorage, proxy: Proxy, fault: Fault
) -> None:
    impatient = await behind(0.0)
    session = await opened(other)
    await delivered(other, "hello", (session, 1), number=1)
    proxy.fault = fault
    with pytest.raises(StorageUnavailable, match="during a commit"):
        await impatient.sessions.adopt(HOST, "bob", "worker-2")
    await eventually(impatient.healthy)
    (adopted,) = await impatient.sessions.adopt(HOST, "bob", "worker-2")
    assert contents(adopted) == [(1, "hello")]
    assert await impatient.sessions.adopt(HOST, "bob", "worker-2") == []


async def test_a_mailbox_is_assigned(storage: SqlStorage, proxy: Proxy, fault: Fault) -> None:
    session = await opened(storage)
    await delivered(storage, "before", (session, 1), number=9)
    for number in range(3):
        await storage.offline.append(HOST, "bob", b"%d" % number, 1.0, None, 10)
    ids = [message.id for message in await storage.offline.load(HOST, "bob", 10)]
    proxy.fault = fault
    assert await storage.offline.assign(HOST, "bob", ids, session, 2) == ids
    (adopted,) = await storage.sessions.adopt(HOST, "bob", "worker-2")
    assert contents(adopted) == [(1, "before"), (2, "0"), (3, "1"), (4, "2")]
    proxy.fault = fault
    assert await storage.offline.renumber(adopted.id, 3) is True
    (again,) = await storage.sessions.adopt(HOST, "bob", "worker-3")
    assert (again.acknowledged, contents(again)) == (3, [(4, "2")])


async def test_without_patience_the_callers_are_told(behind: BEHIND, proxy: Proxy, fault: Fault) -> None:
    storage = await behind(0.0)
    session = await opened(storage)
    proxy.fault = fault
    calls: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(delivered(storage, "x", (session, 1), number=1)),
        storage.offline.append(HOST, "bob", b"x", 1.0, None, 10, "alice's", 2),
        storage.sessions.handled(session, 1),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [StorageUnavailable] * 3
    # Whatever has happened, the same call again does no harm.
    await eventually(storage.healthy)
    assert await delivered(storage, "x", (session, 1), number=1) is Delivered.STORED
    assert await left(storage) == {"token": [(1, "x")]}

"""PostgreSQL is stopped, killed and frozen under a working storage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from monktalk.db import migrate
from monktalk.xmpp.storage.interfaces import StorageError, StorageUnavailable, Versioned
from monktalk.xmpp.storage.sql.storage import SqlStorage
from tests.integration.storage.codecs import TextCodec
from tests.integration.storage.waiting import eventually
from tests.postgres import free_port

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

pytestmark = pytest.mark.integration

HOST = "example.org"


@pytest.fixture
def url(postgres_victim: PostgresServer) -> str:
    url = postgres_victim.create_database()
    migrate.upgrade(url)
    return url


@pytest.fixture
async def storage(url: str) -> AsyncIterator[SqlStorage]:
    storage = SqlStorage(url, statement_timeout=1.0)
    await storage.start()
    yield storage
    await storage.close()


async def test_killed_in_the_middle_and_restarted(storage: SqlStorage, postgres_victim: PostgresServer) -> None:
    store = storage.keyvalue("roster", TextCodec(), cache_size=10)
    await store.put(HOST, "alice", "", "cached", None)
    durable: set[bytes] = set()
    failed: list[BaseException] = []
    attempts = 0

    async def write_all_the_time() -> None:
        nonlocal attempts
        while not failed:
            body = str(attempts).encode()
            attempts += 1
            try:
                await storage.offline.append(HOST, "bob", body, 1.0, None, 1_000_000)
                durable.add(body)
            except StorageUnavailable as error:
                failed.append(error)

    writers = [asyncio.ensure_future(write_all_the_time()) for _ in range(20)]
    await eventually(lambda: len(durable) > 200)
    await asyncio.to_thread(postgres_victim.kill)
    async with asyncio.timeout(10):
        await asyncio.gather(*writers)
    await eventually(lambda: not storage.healthy())

    # What is cached can be read, everything else fails at once.
    found = store.peek(HOST, "alice", "")
    assert isinstance(found, Versioned)
    assert found == await store.get(HOST, "alice", "")
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(StorageUnavailable):
            await store.get(HOST, "somebody", "else")
        with pytest.raises(StorageUnavailable):
            await storage.offline.append(HOST, "bob", b"x", 1.0, None, 10)
        with pytest.raises(StorageUnavailable):
            await store.put(HOST, "alice", "", "y", None)
    assert time.monotonic() - began < 2

    await asyncio.to_thread(postgres_victim.start)
    await eventually(storage.healthy)
    assert await storage.offline.append(HOST, "bob", b"back", 1.0, None, 1_000_000) is True
    stored = {message.stanza for message in await storage.offline.load(HOST, "bob", 1_000_000)}
    assert durable <= stored
    # The put that failed is not what the cache says now.
    assert (await store.get(HOST, "alice", "")) == found


async def test_a_restart_while_nothing_is_going_on_is_not_noticed(
    storage: SqlStorage, postgres_victim: PostgresServer
) -> None:
    store = storage.keyvalue("roster", TextCodec(), cache_size=10)
    await store.put(HOST, "alice", "", "x", None)
    await asyncio.to_thread(postgres_victim.restart)
    assert await storage.offline.append(HOST, "bob", b"x", 1.0, None, 10) is True
    store.invalidate_all()
    assert await store.get(HOST, "alice", "") is not None
    assert storage.healthy()


async def test_frozen(storage: SqlStorage, postgres_victim: PostgresServer) -> None:
    """The machine of the database hangs: connections stay open, nobody answers."""
    store = storage.keyvalue("roster", TextCodec(), cache_size=10)
    await store.put(HOST, "alice", "", "x", None)
    store.invalidate_all()
    with postgres_victim.frozen():
        append = storage.offline.append(HOST, "bob", b"x", 1.0, None, 10)
        gets = [store.get(HOST, name, "") for name in ("alice", "bob", "carol")]
        async with asyncio.timeout(15):
            results = await asyncio.gather(append, *gets, return_exceptions=True)
        assert [type(result) for result in results] == [StorageUnavailable] * 4
        assert not storage.healthy()
    await eventually(storage.healthy)
    found = await store.get(HOST, "alice", "")
    assert found is not None
    assert found.value == "x"


async def test_what_waits_is_bounded(url: str, postgres_victim: PostgresServer) -> None:
    storage = SqlStorage(url, queue_limit=50, queue_bytes=10_000, statement_timeout=1.0)
    await storage.start()
    try:
        with postgres_victim.frozen():
            appends = [storage.offline.append(HOST, "bob", b"x", 1.0, None, 10) for _ in range(80)]
            refused = [append for append in appends if append.done()]
            assert len(refused) == 30
            with pytest.raises(StorageUnavailable, match="too many writes"):
                await refused[0]
            reads = [asyncio.ensure_future(storage.offline.count(HOST, "bob")) for _ in range(80)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert storage.statistics()["queued_writes"] <= 50
            assert storage.statistics()["queued_reads"] <= 50
            async with asyncio.timeout(20):
                await asyncio.gather(*appends, *reads, return_exceptions=True)
            assert storage.statistics()["queued_writes"] == storage.statistics()["queued_reads"] == 0
        await eventually(storage.healthy)
        big = [storage.offline.append(HOST, "bob", bytes(4_000), 1.0, None, 10) for _ in range(3)]
        with pytest.raises(StorageUnavailable, match="too many writes"):
            await big[2]
        assert await big[0] is await big[1] is True
    finally:
        await storage.close()


async def test_started_before_its_database(url: str, postgres_victim: PostgresServer) -> None:
    await asyncio.to_thread(postgres_victim.stop)
    storage = SqlStorage(url)
    try:
        await storage.start()
        assert not storage.healthy()
        with pytest.raises(StorageUnavailable):
            await storage.offline.count(HOST, "bob")
        await asyncio.to_thread(postgres_victim.start)
        await eventually(storage.healthy)
        assert await storage.offline.count(HOST, "bob") == 0
    finally:
        await storage.close()


async def test_a_host_that_is_down_is_passed_over(url: str, postgres_victim: PostgresServer) -> None:
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{postgres_victim.port}"
    several = postgres_victim.url(url.rpartition("/")[2], hosts=hosts)
    storage = SqlStorage(several)
    await storage.start()
    try:
        assert await storage.offline.append(HOST, "bob", b"x", 1.0, None, 10) is True
    finally:
        await storage.close()


async def append_until_it_fails(storage: SqlStorage) -> None:
    # A server process learns of its new configuration a moment after the reload.
    async with asyncio.timeout(10):
        while True:
            await storage.offline.append(HOST, "bob", b"2", 1.0, None, 1_000_000)


async def test_a_standby_is_not_written_to(storage: SqlStorage, postgres_victim: PostgresServer) -> None:
    """A primary that was deposed keeps its connections, and only reads from then on."""
    assert await storage.offline.append(HOST, "bob", b"1", 1.0, None, 10) is True
    postgres_victim.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    postgres_victim.execute("SELECT pg_reload_conf()")
    await eventually(lambda: postgres_victim.execute("SHOW default_transaction_read_only") == [("on",)])
    with pytest.raises(StorageUnavailable):
        await append_until_it_fails(storage)
    assert not storage.healthy()
    postgres_victim.execute("ALTER SYSTEM RESET default_transaction_read_only")
    postgres_victim.execute("SELECT pg_reload_conf()")
    await eventually(storage.healthy)
    assert await storage.offline.append(HOST, "bob", b"3", 1.0, None, 1_000_000) is True


async def test_close_does_not_wait_for_a_dead_database_for_ever(url: str, postgres_victim: PostgresServer) -> None:
    storage = SqlStorage(url, statement_timeout=1.0)
    await storage.start()
    with postgres_victim.frozen():
        append = storage.offline.append(HOST, "bob", b"x", 1.0, None, 10)
        async with asyncio.timeout(15):
            await storage.close()
        with pytest.raises(StorageUnavailable):
            await append


async def test_a_database_without_schema_is_refused(postgres_victim: PostgresServer) -> None:
    storage = SqlStorage(postgres_victim.create_database())
    with pytest.raises(StorageError, match=r"no schema yet.*python -m monktalk\.db upgrade"):
        await storage.start()
    assert not storage.healthy()


async def test_a_wrong_password_is_told_and_not_repeated(
    postgres_victim: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = SqlStorage(url.replace(postgres_victim.password, "geheim"))
    await storage.start()
    try:
        assert not storage.healthy()
    finally:
        await storage.close()
    fields = [str(getattr(record, "fields", {})) for record in caplog.records]
    assert any("password authentication failed" in text for text in fields)
    assert not any("geheim" in text for text in [*fields, *caplog.messages])

"""Several storages on one database, as several processes have them, and one storage after the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from monktalk.db.engine import create_engine, for_writing
from monktalk.xmpp.storage.interfaces import UNKNOWN, KeyValueStore, StorageUnavailable, VersionConflict
from monktalk.xmpp.storage.sql.messages import MessagesApplier
from monktalk.xmpp.storage.sql.requests import Append
from tests.integration.storage.codecs import TextCodec
from tests.integration.storage.waiting import eventually

if TYPE_CHECKING:
    from monktalk.common.clock import ManualClock
    from monktalk.xmpp.storage.sql.storage import SqlStorage
    from tests.integration.storage.conftest import Opener
    from tests.postgres import PostgresServer

HOST = "example.org"


def table(storage: SqlStorage) -> KeyValueStore[str]:
    return storage.keyvalue("roster", TextCodec(), cache_size=100)


async def increment(store: KeyValueStore[str], owner: str) -> None:
    """What a roster change does: read, change, write if nobody else has, else again."""
    while True:
        found = await store.get(HOST, owner, "")
        value = int(found.value) if found else 0
        try:
            await store.put(HOST, owner, "", str(value + 1), found.version if found else 0)
        except VersionConflict:
            continue
        return


async def test_no_update_is_lost(open_storage: Opener) -> None:
    stores = [table(await open_storage()) for _ in range(2)]
    await asyncio.gather(*(increment(store, owner) for owner in "ab" for store in stores for _ in range(40)))
    for owner in "ab":
        stores[0].invalidate(HOST, owner, "")
        found = await stores[0].get(HOST, owner, "")
        assert found is not None
        assert found.value == "80"


async def test_no_unconditional_put_takes_a_version_of_another_one(open_storage: Opener) -> None:
    stores = [table(await open_storage()) for _ in range(2)]
    puts = [store.put(HOST, "alice", "", "x", None) for store in stores for _ in range(30)]
    versions = await asyncio.gather(*puts)
    assert len(set(versions)) == len(versions)


async def test_a_conflict_makes_the_next_read_fresh(open_storage: Opener) -> None:
    one, two = table(await open_storage()), table(await open_storage())
    version = await one.put(HOST, "alice", "", "old", 0)
    assert (await two.get(HOST, "alice", "")) is not None
    await one.put(HOST, "alice", "", "new", version)
    # No news has come: what this process knows is old, and a write on top of it is refused.
    with pytest.raises(VersionConflict):
        await two.put(HOST, "alice", "", "lost update", version)
    assert two.peek(HOST, "alice", "") is UNKNOWN
    fresh = await two.get(HOST, "alice", "")
    assert fresh is not None
    assert fresh.value == "new"


async def test_news_carried_from_one_process_to_the_other(open_storage: Opener) -> None:
    one, two = await open_storage(), await open_storage()
    one.on_invalidate = two.invalidate
    writer, reader = table(one), table(two)
    await writer.put(HOST, "alice", "a", "1", None)
    assert await reader.get(HOST, "alice", "b") is None
    await reader.get(HOST, "alice", "a")
    await writer.put(HOST, "alice", "a", "2", None)
    await writer.put(HOST, "alice", "b", "3", None)
    values = [await reader.get(HOST, "alice", key) for key in "ab"]
    assert [value.value for value in values if value] == ["2", "3"]
    await writer.delete_owner(HOST, "alice")
    assert [await reader.get(HOST, "alice", key) for key in "ab"] == [None, None]
    assert await two.accounts.disabled(HOST, "alice") is False
    await one.accounts.set_disabled(HOST, "alice", True)
    assert await two.accounts.disabled(HOST, "alice") is True


async def test_forgetting_everything_after_news_were_lost(open_storage: Opener) -> None:
    one, two = await open_storage(), await open_storage()
    await table(one).put(HOST, "alice", "", "old", None)
    await table(two).get(HOST, "alice", "")
    assert await two.accounts.disabled(HOST, "alice") is False
    await table(one).put(HOST, "alice", "", "new", None)
    await one.accounts.set_disabled(HOST, "alice", True)
    two.invalidate_all()
    found = await table(two).get(HOST, "alice", "")
    assert found is not None
    assert found.value == "new"
    assert await two.accounts.disabled(HOST, "alice") is True


async def test_without_trust_in_its_cache_a_process_sees_what_others_write(open_storage: Opener) -> None:
    one, two = await open_storage(), await open_storage()
    await table(one).put(HOST, "alice", "", "old", None)
    await table(two).get(HOST, "alice", "")
    assert await two.accounts.disabled(HOST, "alice") is False
    two.trust_cache(False)
    later = two.keyvalue("opened later", TextCodec(), cache_size=10)
    for value in ("new", "newer"):
        await table(one).put(HOST, "alice", "", value, None)
        await one.keyvalue("opened later", TextCodec(), cache_size=10).put(HOST, "alice", "", value, None)
        for store in (table(two), later):
            found = await store.get(HOST, "alice", "")
            assert found is not None
            assert found.value == value
            assert store.peek(HOST, "alice", "") is UNKNOWN
    await one.accounts.set_disabled(HOST, "alice", True)
    assert await two.accounts.disabled(HOST, "alice") is True
    two.trust_cache(True)
    await table(two).get(HOST, "alice", "")
    assert table(two).peek(HOST, "alice", "") is not UNKNOWN


async def test_gets_of_one_key_share_one_read(open_storage: Opener) -> None:
    storage = await open_storage()
    store = table(storage)
    await store.put(HOST, "alice", "", "x", None)
    store.invalidate_all()
    before = storage.statistics()["reads"]
    gets = [asyncio.ensure_future(store.get(HOST, "alice", "")) for _ in range(50)]
    await asyncio.sleep(0)
    gets[0].cancel()  # whoever asked first and gave up takes nothing from the others
    found = await asyncio.gather(*gets[1:])
    assert {value.value for value in found if value} == {"x"}
    assert None not in found
    assert storage.statistics()["reads"] == before + 1


async def test_many_writes_share_few_transactions(open_storage: Opener) -> None:
    storage = await open_storage()
    appends = [storage.offline.append(HOST, f"u{n % 50}", b"x", 1.0, None, 100) for n in range(1000)]
    assert all(await asyncio.gather(*appends))
    statistics = storage.statistics()
    assert statistics["writes"] == 1000
    assert statistics["transactions"] <= 10


async def test_one_bad_write_does_not_fail_the_others(open_storage: Opener) -> None:
    storage = await open_storage()
    store = table(storage)
    beyond_sql = 2**70
    results = await asyncio.gather(
        store.put(HOST, "one", "", "1", 0),
        storage.offline.append(HOST, "bob", b"before", 1.0, None, 10),
        store.put(HOST, "bad", "", "x", beyond_sql),
        storage.offline.append(HOST, "bob", b"after", 1.0, None, 10),
        store.put(HOST, "two", "", "2", 0),
        return_exceptions=True,
    )
    assert isinstance(results[2], StorageUnavailable | OverflowError)
    assert results[1] is results[3] is True
    assert await store.keys(HOST, "bad") == []
    assert await store.owners(HOST) == ["one", "two"]
    assert [message.stanza for message in await storage.offline.load(HOST, "bob", 9)] == [b"before", b"after"]
    assert storage.healthy()
    # The count of the mailbox survived the second attempt, too.
    assert await storage.offline.append(HOST, "bob", b"full", 1.0, None, 2) is False


async def test_everything_is_there_after_a_restart(open_storage: Opener) -> None:
    first = await open_storage()
    version = await table(first).put(HOST, "alice", "", "x", None)
    for number in range(3):
        await first.offline.append(HOST, "bob", str(number).encode(), float(number), None, 3)
    first.accounts.seen(HOST, "bob", 5.0)
    await first.close()
    second = await open_storage()
    found = await table(second).get(HOST, "alice", "")
    assert found is not None
    assert (found.value, found.version) == ("x", version)
    messages = await second.offline.load(HOST, "bob", 10)
    assert [(message.stamp, message.stanza) for message in messages] == [(0.0, b"0"), (1.0, b"1"), (2.0, b"2")]
    # The quota counts what an earlier process has stored.
    assert await second.offline.append(HOST, "bob", b"full", 1.0, None, 3) is False
    assert await second.accounts.count(HOST) == 1


async def test_close_writes_what_is_queued(open_storage: Opener) -> None:
    first = await open_storage()
    appends = [first.offline.append(HOST, "bob", b"x", 1.0, None, 1000) for _ in range(700)]
    await first.close()
    assert all(append.result() for append in appends)
    with pytest.raises(StorageUnavailable, match="closed"):
        await first.offline.append(HOST, "bob", b"late", 1.0, None, 1000)
    with pytest.raises(StorageUnavailable, match="closed"):
        await first.offline.count(HOST, "bob")
    assert not first.healthy()
    await first.close()
    assert await (await open_storage()).offline.count(HOST, "bob") == 700


@pytest.mark.integration
async def test_a_mailbox_grows_in_the_order_of_the_commits(
    postgres: PostgresServer, migrated: str, clock: ManualClock
) -> None:
    """Else `remove` up to a loaded id could delete a message that was not visible yet when it was loaded."""
    from monktalk.xmpp.storage.sql.storage import SqlStorage

    url = postgres.create_database(template=migrated)
    storage = SqlStorage(url, now=clock.now)
    await storage.start()
    slow_process = MessagesApplier(clock.now)
    engine = create_engine(url)
    try:
        with for_writing(engine.connect()) as connection:
            with connection.begin():
                slow_process.begin()
                slow_process.apply(connection, [Append((HOST, "bob"), b"first", 1.0, None, 10)])
                # Another process stores for the same user while the transaction of the first is open.
                second = storage.offline.append(HOST, "bob", b"second", 2.0, None, 10)
                waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                await eventually(lambda: bool(postgres.execute(waiting)))
                assert await storage.offline.load(HOST, "bob", 10) == []
                assert not second.done()
            assert await second is True
        messages = await storage.offline.load(HOST, "bob", 10)
        assert [message.stanza for message in messages] == [b"first", b"second"]
    finally:
        engine.dispose()
        await storage.close()


@pytest.mark.integration
async def test_crosswise_writes_of_two_processes_all_succeed(
    postgres: PostgresServer, migrated: str, clock: ManualClock
) -> None:
    """Rows are locked in one order everywhere: opposite orders of calls do not end in deadlocks."""
    from monktalk.xmpp.storage.sql.storage import SqlStorage

    url = postgres.create_database(template=migrated)
    storages = [SqlStorage(url, now=clock.now) for _ in range(2)]
    for storage in storages:
        await storage.start()
    try:
        owners = [f"u{number}" for number in range(100)]
        for _ in range(5):
            writes = [table(storages[0]).put(HOST, owner, "", "x", None) for owner in owners]
            writes += [table(storages[1]).put(HOST, owner, "", "y", None) for owner in reversed(owners)]
            appends = []
            for storage, order in zip(storages, (owners, owners[::-1]), strict=True):
                for owner in order:
                    storage.accounts.seen(HOST, owner, 1.0)
                    appends.append(storage.offline.append(HOST, owner, b"x", 1.0, None, 1000))
            await asyncio.gather(*writes)
            assert all(await asyncio.gather(*appends))
        assert await storages[0].accounts.count(HOST) == 100
        assert postgres.execute("SELECT count(*) FROM keyvalue", url.rpartition("/")[2]) == [(100,)]
    finally:
        for storage in storages:
            await storage.close()

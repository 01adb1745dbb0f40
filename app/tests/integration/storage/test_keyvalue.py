from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from monktalk.xmpp.storage.interfaces import (
    ALL_KEYS,
    UNKNOWN,
    KeyValueStore,
    StoredValueError,
    VersionConflict,
    Versioned,
)
from tests.integration.storage.codecs import TextCodec

if TYPE_CHECKING:
    from monktalk.common.clock import ManualClock
    from monktalk.xmpp.storage.interfaces import Storage

HOST = "example.org"


@pytest.fixture
def store(storage: Storage) -> KeyValueStore[str]:
    return storage.keyvalue("roster", TextCodec(), cache_size=100)


async def stored(store: KeyValueStore[str], owner: str, key: str) -> str | None:
    """What the database holds, not the cache."""
    store.invalidate(HOST, owner, key)
    found = await store.get(HOST, owner, key)
    return found.value if found else None


async def test_a_value_comes_back_with_its_version(store: KeyValueStore[str]) -> None:
    assert await store.get(HOST, "alice", "") is None
    version = await store.put(HOST, "alice", "", "böb ☃ 😀", None)
    assert version > 0
    assert await store.get(HOST, "alice", "") == Versioned("böb ☃ 😀", version)
    store.invalidate_all()
    assert await store.get(HOST, "alice", "") == Versioned("böb ☃ 😀", version)


async def test_hosts_owners_keys_and_tables_are_kept_apart(store: KeyValueStore[str], storage: Storage) -> None:
    other = storage.keyvalue("vcard", TextCodec(), cache_size=10)
    await store.put(HOST, "alice", "k", "1", None)
    await store.put("example.net", "alice", "k", "2", None)
    await store.put(HOST, "Alice", "k", "3", None)
    await store.put(HOST, "alice", "K", "4", None)
    await other.put(HOST, "alice", "k", "5", None)
    assert await stored(store, "alice", "k") == "1"
    assert await stored(store, "Alice", "k") == "3"
    assert await stored(store, "alice", "K") == "4"
    assert await stored(other, "alice", "k") == "5"


async def test_put_with_the_version_read_replaces_the_value(store: KeyValueStore[str]) -> None:
    first = await store.put(HOST, "alice", "", "a", 0)
    second = await store.put(HOST, "alice", "", "b", first)
    third = await store.put(HOST, "alice", "", "c", None)
    assert first < second < third
    assert await store.get(HOST, "alice", "") == Versioned("c", third)
    assert await stored(store, "alice", "") == "c"


async def test_put_with_another_version_is_refused(store: KeyValueStore[str]) -> None:
    first = await store.put(HOST, "alice", "", "a", 0)
    second = await store.put(HOST, "alice", "", "b", first)
    for wrong in (0, first, second + 1):
        with pytest.raises(VersionConflict):
            await store.put(HOST, "alice", "", "x", wrong)
    with pytest.raises(VersionConflict):
        await store.put(HOST, "nobody", "", "x", first)
    assert await stored(store, "alice", "") == "b"
    assert await stored(store, "nobody", "") is None


async def test_a_conflict_does_not_harm_writes_of_the_same_group(store: KeyValueStore[str]) -> None:
    await store.put(HOST, "taken", "", "old", 0)
    results = await asyncio.gather(
        store.put(HOST, "one", "", "1", 0),
        store.put(HOST, "taken", "", "new", 0),
        store.put(HOST, "two", "", "2", 0),
        return_exceptions=True,
    )
    assert isinstance(results[1], VersionConflict)
    assert [await stored(store, owner, "") for owner in ("one", "taken", "two")] == ["1", "old", "2"]


async def test_delete(store: KeyValueStore[str]) -> None:
    version = await store.put(HOST, "alice", "", "a", None)
    with pytest.raises(VersionConflict):
        await store.delete(HOST, "alice", "", version + 1)
    with pytest.raises(VersionConflict):
        await store.delete(HOST, "alice", "", 0)
    assert await store.delete(HOST, "alice", "", version) is True
    assert store.peek(HOST, "alice", "") is None
    assert await stored(store, "alice", "") is None
    assert await store.delete(HOST, "alice", "") is False
    assert await store.delete(HOST, "alice", "", 0) is False
    with pytest.raises(VersionConflict):
        await store.delete(HOST, "alice", "", version)


async def test_a_version_does_not_come_back_after_a_delete(store: KeyValueStore[str], clock: ManualClock) -> None:
    first = await store.put(HOST, "alice", "", "a", None)
    last = await store.put(HOST, "alice", "", "b", first)
    await store.delete(HOST, "alice", "")
    clock.advance(0.001)
    again = await store.put(HOST, "alice", "", "c", 0)
    assert again not in {first, last}
    for old in (first, last):
        with pytest.raises(VersionConflict):
            await store.put(HOST, "alice", "", "lost update", old)


async def test_keys_and_owners_are_sorted(store: KeyValueStore[str]) -> None:
    for owner, key in (("bob", "b"), ("alice", "z"), ("alice", "é"), ("alice", "a"), ("Zoe", "")):
        await store.put(HOST, owner, key, "x", None)
    await store.put("example.net", "carol", "a", "x", None)
    assert await store.keys(HOST, "alice") == ["a", "z", "é"]
    assert await store.keys(HOST, "nobody") == []
    assert await store.owners(HOST) == ["Zoe", "alice", "bob"]
    assert await store.owners("nowhere.example") == []


async def test_delete_owner(store: KeyValueStore[str]) -> None:
    for owner, key in (("alice", "a"), ("alice", "b"), ("bob", "a")):
        await store.put(HOST, owner, key, "x", None)
    assert await store.delete_owner(HOST, "alice") == 2
    assert await store.get(HOST, "alice", "a") is None
    assert await store.keys(HOST, "alice") == []
    assert await stored(store, "bob", "a") == "x"
    assert await store.delete_owner(HOST, "alice") == 0


async def test_writes_of_one_owner_keep_their_order(store: KeyValueStore[str]) -> None:
    writes = [store.put(HOST, "alice", "", str(number), None) for number in range(50)]
    versions = await asyncio.gather(*writes)
    assert versions == sorted(set(versions))
    assert await stored(store, "alice", "") == "49"


async def test_peek_knows_what_was_read_or_written(store: KeyValueStore[str]) -> None:
    assert store.peek(HOST, "alice", "") is UNKNOWN
    assert await store.get(HOST, "alice", "") is None
    assert store.peek(HOST, "alice", "") is None
    version = await store.put(HOST, "alice", "", "a", None)
    assert store.peek(HOST, "alice", "") == Versioned("a", version)
    store.invalidate(HOST, "alice", "")
    assert store.peek(HOST, "alice", "") is UNKNOWN


async def test_invalidating_an_owner_forgets_all_keys_of_that_owner(
    store: KeyValueStore[str], storage: Storage
) -> None:
    for owner, key in (("alice", "a"), ("alice", "b"), ("bob", "a")):
        await store.put(HOST, owner, key, "x", None)
    assert await store.get(HOST, "alice", "absent") is None
    storage.invalidate("roster", HOST, "alice", ALL_KEYS)
    assert [store.peek(HOST, "alice", key) for key in ("a", "b", "absent")] == [UNKNOWN] * 3
    assert store.peek(HOST, "bob", "a") is not UNKNOWN


async def test_changes_are_announced_once_they_are_made(store: KeyValueStore[str], storage: Storage) -> None:
    announced: list[tuple[str, str, str, str]] = []
    storage.on_invalidate = lambda *change: announced.append(change)
    await store.put(HOST, "alice", "a", "x", None)
    await store.get(HOST, "alice", "a")
    with pytest.raises(VersionConflict):
        await store.put(HOST, "alice", "a", "x", 0)
    assert announced == [("roster", HOST, "alice", "a")]
    await store.delete(HOST, "alice", "a")
    await store.delete_owner(HOST, "bob")
    assert announced[1:] == [("roster", HOST, "alice", "a"), ("roster", HOST, "bob", ALL_KEYS)]


async def test_a_put_whose_caller_gave_up_is_still_announced_and_cached(
    store: KeyValueStore[str], storage: Storage
) -> None:
    announced = asyncio.Event()
    storage.on_invalidate = lambda *_: announced.set()
    writing = asyncio.ensure_future(store.put(HOST, "alice", "", "a", None))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait_for(announced.wait(), 10)
    found = store.peek(HOST, "alice", "")
    assert isinstance(found, Versioned)
    assert found.value == "a"


async def test_text_that_cannot_be_stored_is_refused_before_it_reaches_the_database(
    store: KeyValueStore[str],
) -> None:
    for bad in ("a\0b", "\ud800"):
        for host, owner, key in ((bad, "o", "k"), (HOST, bad, "k"), (HOST, "o", bad)):
            with pytest.raises(ValueError, match="cannot be stored"):
                await store.put(host, owner, key, "x", None)
            with pytest.raises(ValueError, match="cannot be stored"):
                await store.get(host, owner, key)
            with pytest.raises(ValueError, match="cannot be stored"):
                await store.delete(host, owner, key)
        with pytest.raises(ValueError, match="cannot be stored"):
            await store.keys(HOST, bad)
        with pytest.raises(ValueError, match="cannot be stored"):
            await store.owners(bad)
        with pytest.raises(ValueError, match="cannot be stored"):
            await store.delete_owner(HOST, bad)


async def test_the_longest_jid_parts_fit_in_a_key(store: KeyValueStore[str]) -> None:
    # RFC 7622: 1,023 bytes each; random text, because PostgreSQL compresses what repeats.
    owner = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(341))
    host = "".join(chr(0x4E00 + number * 6101 % 20_000) for number in range(341))
    assert len(owner.encode()) == len(host.encode()) == 1023
    await store.put(host, owner, "k" * 400, "x", None)
    store.invalidate_all()
    found = await store.get(host, owner, "k" * 400)
    assert found is not None
    assert found.value == "x"
    with pytest.raises(ValueError, match="2500 is the limit"):
        await store.put(host, owner, "k" * 500, "x", None)


async def test_a_value_that_cannot_be_decoded_is_named(store: KeyValueStore[str]) -> None:
    await store.put(HOST, "alice", "k", "bad secret", None)
    store.invalidate_all()
    with pytest.raises(StoredValueError, match=r"roster example\.org/alice/k") as caught:
        await store.get(HOST, "alice", "k")
    assert "secret" not in str(caught.value)
    # It can be replaced.
    await store.put(HOST, "alice", "k", "good", None)
    assert await stored(store, "alice", "k") == "good"


async def test_large_values_and_all_bytes(storage: Storage) -> None:
    class Bytes:
        def encode(self, value: bytes) -> bytes:
            return value

        def decode(self, data: bytes) -> bytes:
            return data

    store = storage.keyvalue("blobs", Bytes(), cache_size=10)
    value = bytes(range(256)) * 4096
    await store.put(HOST, "alice", "", value, None)
    store.invalidate_all()
    found = await store.get(HOST, "alice", "")
    assert found is not None
    assert found.value == value


async def test_a_table_is_opened_once(storage: Storage) -> None:
    codec = TextCodec()
    store = storage.keyvalue("private", codec, cache_size=10)
    assert storage.keyvalue("private", codec, cache_size=10) is store
    # A module that is loaded again brings a codec of its own.
    assert storage.keyvalue("private", TextCodec(), cache_size=10) is store

    class OtherCodec(TextCodec):
        pass

    with pytest.raises(ValueError, match="another codec"):
        storage.keyvalue("private", OtherCodec(), cache_size=10)
    for name in ("", "accounts", "a\0"):
        with pytest.raises(ValueError, match="cannot be"):
            storage.keyvalue(name, codec, cache_size=10)

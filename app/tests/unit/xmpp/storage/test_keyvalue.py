"""The order in which a back end answers; `integration/storage/test_keyvalue.py` has the rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from monktalk.xmpp.storage.interfaces import ALL_KEYS, UNKNOWN, StorageUnavailable, VersionConflict, Versioned
from monktalk.xmpp.storage.keyvalue import CachedKeyValueStore, Key


class Bytes:
    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


class Backend:
    """A `KeyValueBackend` whose answers the test gives."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[Any]] = []
        self.refuse = False

    def _call(self, *_: object) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.refuse:
            future.set_exception(StorageUnavailable("away"))
        self.calls.append(future)
        return future

    def read(self, table: str, key: Key) -> asyncio.Future[tuple[bytes, int] | None]:
        return self._call()

    def put(self, table: str, key: Key, data: bytes, expected: int | None) -> asyncio.Future[int]:
        return self._call()

    def delete(self, table: str, key: Key, expected: int | None) -> asyncio.Future[bool]:
        return self._call()

    def delete_owner(self, table: str, host: str, owner: str) -> asyncio.Future[int]:
        return self._call()

    def keys(self, table: str, host: str, owner: str) -> asyncio.Future[list[str]]:
        return self._call()

    def owners(self, table: str, host: str) -> asyncio.Future[list[str]]:
        return self._call()


K = ("example.org", "alice", "")


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def announced() -> list[tuple[str, ...]]:
    return []


@pytest.fixture
def store(backend: Backend, announced: list[tuple[str, ...]]) -> CachedKeyValueStore[bytes]:
    return CachedKeyValueStore(
        "t",
        Bytes(),
        backend,
        cache_size=10,
        cache_bytes=1000,
        announce=lambda *change: announced.append(change),
    )


async def started(call: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    return task


async def test_a_value_read_before_an_invalidation_is_not_cached(
    store: CachedKeyValueStore[bytes], backend: Backend
) -> None:
    get = await started(store.get(*K))
    store.invalidate(*K)
    backend.calls[0].set_result((b"old", 1))
    assert await get == Versioned(b"old", 1)
    assert store.peek(*K) is UNKNOWN


async def test_a_write_answered_after_the_news_of_a_later_one_is_not_cached(
    store: CachedKeyValueStore[bytes], backend: Backend
) -> None:
    put = await started(store.put(*K, b"mine", 1))
    store.invalidate(*K)
    backend.calls[0].set_result(2)
    assert await put == 2
    assert store.peek(*K) is UNKNOWN


async def test_of_two_puts_the_later_one_is_cached(store: CachedKeyValueStore[bytes], backend: Backend) -> None:
    one, two = await started(store.put(*K, b"1", None)), await started(store.put(*K, b"2", None))
    backend.calls[0].set_result(1)
    backend.calls[1].set_result(2)
    assert [await one, await two] == [1, 2]
    assert store.peek(*K) == Versioned(b"2", 2)


@pytest.mark.parametrize("operation", ["put", "delete", "delete_owner"])
async def test_an_interrupted_write_may_have_taken_place(
    operation: str,
    store: CachedKeyValueStore[bytes],
    backend: Backend,
    announced: list[tuple[str, ...]],
) -> None:
    get = await started(store.get(*K))
    backend.calls[0].set_result((b"old", 1))
    await get
    arguments = {"put": (*K, b"new", 1), "delete": K, "delete_owner": K[:2]}[operation]
    write = await started(getattr(store, operation)(*arguments))
    backend.calls[1].set_exception(StorageUnavailable("broke"))
    with pytest.raises(StorageUnavailable):
        await write
    assert store.peek(*K) is UNKNOWN
    assert announced == [("t", *K[:2], ALL_KEYS if operation == "delete_owner" else K[2])]


async def test_a_refused_write_changes_nothing(
    store: CachedKeyValueStore[bytes], backend: Backend, announced: list[tuple[str, ...]]
) -> None:
    get = await started(store.get(*K))
    backend.calls[0].set_result((b"old", 1))
    await get
    backend.refuse = True
    for call in (store.put(*K, b"new", 1), store.delete(*K), store.delete_owner(*K[:2])):
        with pytest.raises(StorageUnavailable):
            await call
    assert store.peek(*K) == Versioned(b"old", 1)
    assert announced == []


async def test_a_conflict_is_no_news_to_others_but_the_own_cache_is_old(
    store: CachedKeyValueStore[bytes], backend: Backend, announced: list[tuple[str, ...]]
) -> None:
    get = await started(store.get(*K))
    backend.calls[0].set_result((b"old", 1))
    await get
    put = await started(store.put(*K, b"new", 1))
    backend.calls[1].set_exception(VersionConflict("somebody was faster"))
    with pytest.raises(VersionConflict):
        await put
    assert store.peek(*K) is UNKNOWN
    assert announced == []


async def test_values_too_large_for_the_cache_are_read_each_time(
    store: CachedKeyValueStore[bytes], backend: Backend
) -> None:
    for number in range(2):
        get = await started(store.get(*K))
        backend.calls[number].set_result((bytes(2000), 1))
        assert await get == Versioned(bytes(2000), 1)
        assert store.peek(*K) is UNKNOWN

"""The key-value store over any back end: codec, cache, announcements to other processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from monktalk.xmpp.storage.cache import Activity, ReadCache
from monktalk.xmpp.storage.interfaces import (
    ALL_KEYS,
    UNKNOWN,
    StoredValueError,
    Unknown,
    VersionConflict,
    Versioned,
)
from monktalk.xmpp.storage.text import check_key, check_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from monktalk.xmpp.storage.interfaces import Codec

T = TypeVar("T")

Key = tuple[str, str, str]
"""Host, owner and key of a value within its table."""


class KeyValueBackend(Protocol):
    """Where encoded values are kept.

    A future that is done when it is returned was refused: nothing has been done, nothing will be. Those of
    writes of one owner resolve in the order of the calls. Texts have been checked by the caller.
    """

    def read(self, table: str, key: Key) -> asyncio.Future[tuple[bytes, int] | None]:
        """The encoded value and its version."""
        ...

    def put(self, table: str, key: Key, data: bytes, expected: int | None) -> asyncio.Future[int]:
        """As `KeyValueStore.put`."""
        ...

    def delete(self, table: str, key: Key, expected: int | None) -> asyncio.Future[bool]:
        """As `KeyValueStore.delete`."""
        ...

    def delete_owner(self, table: str, host: str, owner: str) -> asyncio.Future[int]:
        """As `KeyValueStore.delete_owner`."""
        ...

    def keys(self, table: str, host: str, owner: str) -> asyncio.Future[list[str]]:
        """As `KeyValueStore.keys`."""
        ...

    def owners(self, table: str, host: str) -> asyncio.Future[list[str]]:
        """As `KeyValueStore.owners`."""
        ...


@dataclass(frozen=True, slots=True)
class _Stored(Generic[T]):
    """A cached value, and how long it is when encoded."""

    versioned: Versioned[T]
    length: int


class CachedKeyValueStore(Generic[T]):
    """A `KeyValueStore` with a cache over a back end.

    Args:
        table: the name of the table.
        codec: encodes and decodes its values.
        backend: keeps the encoded values.
        cache_size: values cached at most, and absent ones at most.
        cache_bytes: encoded bytes of cached values at most.
        announce: called with table, host, owner and key when this process has changed a value.
    """

    def __init__(
        self,
        table: str,
        codec: Codec[T],
        backend: KeyValueBackend,
        *,
        cache_size: int,
        cache_bytes: int,
        announce: Callable[[str, str, str, str], None],
    ) -> None:
        self.table = table
        self.codec = codec
        self._backend = backend
        self._announce = announce
        self._cache: ReadCache[Key, _Stored[T]] = ReadCache(cache_size, cache_bytes, lambda stored: stored.length)

    def peek(self, host: str, owner: str, key: str) -> Versioned[T] | Unknown | None:
        """See `KeyValueStore.peek`."""
        stored = self._cache.peek((host, owner, key))
        return stored.versioned if isinstance(stored, _Stored) else stored

    async def get(self, host: str, owner: str, key: str) -> Versioned[T] | None:
        """See `KeyValueStore.get`."""
        known = self.peek(host, owner, key)
        if known is not UNKNOWN:
            return known
        full = (host, owner, key)
        stored = await self._cache.get(full, partial(self._read, full))
        return stored.versioned if stored is not None else None

    async def put(self, host: str, owner: str, key: str, value: T, expected: int | None) -> int:
        """See `KeyValueStore.put`."""
        check_key(self.table, host, owner, key)
        data = self.codec.encode(value)
        full = (host, owner, key)
        future = self._backend.put(self.table, full, data, expected)
        if future.done():
            return await future
        future.add_done_callback(partial(self._put_done, full, self._cache.begin_write(full), value, len(data)))
        return await asyncio.shield(future)

    async def delete(self, host: str, owner: str, key: str, expected: int | None = None) -> bool:
        """See `KeyValueStore.delete`."""
        check_key(self.table, host, owner, key)
        full = (host, owner, key)
        future = self._backend.delete(self.table, full, expected)
        if future.done():
            return await future
        future.add_done_callback(partial(self._delete_done, full, self._cache.begin_write(full)))
        return await asyncio.shield(future)

    async def delete_owner(self, host: str, owner: str) -> int:
        """See `KeyValueStore.delete_owner`."""
        check_text(host, owner)
        future = self._backend.delete_owner(self.table, host, owner)
        if future.done():
            return await future
        future.add_done_callback(partial(self._delete_owner_done, host, owner))
        return await asyncio.shield(future)

    async def keys(self, host: str, owner: str) -> list[str]:
        """See `KeyValueStore.keys`."""
        check_text(host, owner)
        return await self._backend.keys(self.table, host, owner)

    async def owners(self, host: str) -> list[str]:
        """See `KeyValueStore.owners`."""
        check_text(host)
        return await self._backend.owners(self.table, host)

    def invalidate(self, host: str, owner: str, key: str) -> None:
        """See `KeyValueStore.invalidate`."""
        if key == ALL_KEYS:
            self._cache.invalidate_where(lambda full: full[:2] == (host, owner))
        else:
            self._cache.invalidate((host, owner, key))

    def invalidate_all(self) -> None:
        """See `KeyValueStore.invalidate_all`."""
        self._cache.clear()

    def trust_cache(self, trusted: bool) -> None:
        """See `Storage.trust_cache`."""
        self._cache.trust(trusted)

    def _read(self, key: Key) -> asyncio.Future[_Stored[T] | None]:
        check_key(self.table, *key)
        decoded: asyncio.Future[_Stored[T] | None] = asyncio.get_running_loop().create_future()
        self._backend.read(self.table, key).add_done_callback(partial(self._decode, key, decoded))
        return decoded

    def _decode(
        self,
        key: Key,
        decoded: asyncio.Future[_Stored[T] | None],
        future: asyncio.Future[tuple[bytes, int] | None],
    ) -> None:
        error = future.exception()
        if error is not None:
            decoded.set_exception(error)
            return
        row = future.result()
        if row is None:
            decoded.set_result(None)
            return
        try:
            value = self.codec.decode(row[0])
        except Exception as problem:  # noqa: BLE001 - codecs fail in many ways, and waiters need an answer
            names = "/".join(key)
            failure = StoredValueError(f"{self.table} {names}: the stored value cannot be decoded")
            failure.__cause__ = problem
            decoded.set_exception(failure)
        else:
            decoded.set_result(_Stored(Versioned(value, row[1]), len(row[0])))

    def _put_done(self, key: Key, activity: Activity, value: T, length: int, future: asyncio.Future[int]) -> None:
        error = future.exception()
        if error is None:
            self._cache.written(key, activity, _Stored(Versioned(value, future.result()), length))
        self._finish(key, activity, error)

    def _delete_done(self, key: Key, activity: Activity, future: asyncio.Future[bool]) -> None:
        error = future.exception()
        if error is None:
            self._cache.written(key, activity, None)
        self._finish(key, activity, error)

    def _finish(self, key: Key, activity: Activity, error: BaseException | None) -> None:
        if error is not None:
            self._cache.not_written(key, activity)
        # A write that was interrupted may have taken place all the same: others must read again.
        if not isinstance(error, VersionConflict):
            self._announce(self.table, *key)

    def _delete_owner_done(self, host: str, owner: str, future: asyncio.Future[int]) -> None:
        # Asking for the exception marks it as seen; an interrupted deletion may have taken place as well.
        future.exception()
        self.invalidate(host, owner, ALL_KEYS)
        self._announce(self.table, host, owner, ALL_KEYS)

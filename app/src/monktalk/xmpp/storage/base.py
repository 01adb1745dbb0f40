"""What all back ends have in common: the open tables, and the news of changes from and to other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from monktalk.xmpp.storage.interfaces import ACCOUNTS_TABLE, DEFAULT_CACHE_BYTES
from monktalk.xmpp.storage.keyvalue import CachedKeyValueStore
from monktalk.xmpp.storage.text import check_text

if TYPE_CHECKING:
    from monktalk.xmpp.storage.interfaces import Codec, InvalidateHook, KeyValueStore
    from monktalk.xmpp.storage.keyvalue import KeyValueBackend

T = TypeVar("T")


class TableRegistry:
    """The key-value tables that are open, over one back end."""

    def __init__(self, backend: KeyValueBackend) -> None:
        self.on_invalidate: InvalidateHook | None = None
        self._backend = backend
        self._tables: dict[str, CachedKeyValueStore[Any]] = {}
        self._trusted = True

    def keyvalue(
        self, table: str, codec: Codec[T], cache_size: int, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> KeyValueStore[T]:
        """See `Storage.keyvalue`."""
        store = self._tables.get(table)
        if store is None:
            check_text(table)
            if not table or table == ACCOUNTS_TABLE:
                raise ValueError(f"{table!r} cannot be the name of a key-value table")
            store = CachedKeyValueStore(
                table,
                codec,
                self._backend,
                cache_size=cache_size,
                cache_bytes=cache_bytes,
                announce=self.announce,
            )
            store.trust_cache(self._trusted)
            self._tables[table] = store
        elif type(store.codec) is not type(codec):
            raise ValueError(f"the key-value table {table!r} is open already with another codec")
        return cast("KeyValueStore[T]", store)

    def invalidate(self, table: str, host: str, owner: str, key: str) -> None:
        """See `Storage.invalidate`."""
        store = self._tables.get(table)
        if store is not None:
            store.invalidate(host, owner, key)

    def invalidate_all(self) -> None:
        """See `Storage.invalidate_all`."""
        for store in self._tables.values():
            store.invalidate_all()

    def trust_cache(self, trusted: bool) -> None:
        """See `Storage.trust_cache`."""
        self._trusted = trusted
        for store in self._tables.values():
            store.trust_cache(trusted)

    def announce(self, table: str, host: str, owner: str, key: str) -> None:
        """Tell other processes that this one has changed a value."""
        if self.on_invalidate is not None:
            self.on_invalidate(table, host, owner, key)

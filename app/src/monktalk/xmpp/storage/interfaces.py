"""What the XMPP server asks of its storage: the only part of storage that core and modules import.

All methods are called on the event loop, and none of them blocks it. Strings are Unicode without NUL
characters and lone surrogates (ValueError otherwise: PostgreSQL can store neither); hosts, owners and users
are prepared by the caller (RFC 7622) and compared exactly.

Writes that are under way at the same time (the first one's result has not been awaited yet) keep their order
when they concern the same owner of one key-value table or are appends to one mailbox. All others may be
carried out in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

InvalidateHook = Callable[[str, str, str, str], None]
"""Called with table, host, owner and key of a value that this process has changed."""

ACCOUNTS_TABLE: Final = "accounts"
"""The table name under which changes of accounts are announced to other processes (the key is empty)."""

ALL_KEYS: Final = "\0"
"""Stands for all keys of an owner in `invalidate` and in announcements; no key can be this text."""

DEFAULT_CACHE_BYTES: Final = 64 * 1024 * 1024
"""Encoded size of the values that one key-value cache keeps at most, besides its number of entries."""


class StorageUnavailable(Exception):
    """The database cannot be reached, refuses, or has more queued than it can take.

    Whether an interrupted write took place is unknown. Callers answer the client `resource-constraint` with
    type `wait` (RFC 6120, section 8.3.3.18).
    """


class VersionConflict(Exception):
    """Somebody else has written the value since it was read: read it again and repeat the change."""


class StoredValueError(Exception):
    """A stored value cannot be decoded. The message names the value, never its content."""


class Unknown(Enum):
    """The type of `UNKNOWN`."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""The answer of `KeyValueStore.peek` when only the database knows."""


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A value and its version: a positive number that grows with every write, and never comes back.

    Not even when the value is deleted and another one is put in its place: a version names one value.
    """

    value: T
    version: int


class Codec(Protocol[T]):
    """Translates the values of one table to and from the bytes that are stored."""

    def encode(self, value: T) -> bytes:
        """The bytes to store."""
        ...

    def decode(self, data: bytes) -> T:
        """The value of stored bytes; any exception is reported as `StoredValueError`."""
        ...


class KeyValueStore(Protocol[T]):
    """Versioned values by host, owner and key, read through a cache.

    Values come from the cache and are shared: everybody treats them as immutable.
    """

    def peek(self, host: str, owner: str, key: str) -> Versioned[T] | Unknown | None:
        """What the cache knows, without waiting: a value, None (known to be absent) or `UNKNOWN`."""
        ...

    async def get(self, host: str, owner: str, key: str) -> Versioned[T] | None:
        """The value, from the cache or the database.

        Raises:
            StorageUnavailable: not cached, and the database does not answer.
            StoredValueError: the stored bytes cannot be decoded.
        """
        ...

    async def put(self, host: str, owner: str, key: str, value: T, expected: int | None) -> int:
        """Store a value by compare-and-swap and return its new version once it is durable.

        Args:
            host: the served domain.
            owner: whose value it is, for example the localpart of the account.
            key: which of the owner's values.
            value: the new value.
            expected: the version that was read before; 0 when there must be none yet; None for whatever is
                there.

        Raises:
            VersionConflict: the stored version is not `expected`; the cache has forgotten the value.
            StorageUnavailable: the database does not answer; the write may or may not have taken place.
        """
        ...

    async def delete(self, host: str, owner: str, key: str, expected: int | None = None) -> bool:
        """Delete a value; True when there was one. `expected` and the exceptions are those of `put`."""
        ...

    async def keys(self, host: str, owner: str) -> list[str]:
        """All keys of an owner, sorted."""
        ...

    async def owners(self, host: str) -> list[str]:
        """All owners of a host that have a value, sorted."""
        ...

    async def delete_owner(self, host: str, owner: str) -> int:
        """Delete all values of an owner and return how many there were."""
        ...

    def invalidate(self, host: str, owner: str, key: str) -> None:
        """Forget a cached value (`ALL_KEYS`: all of the owner), because another process has written it."""
        ...

    def invalidate_all(self) -> None:
        """Forget everything cached, because news of other processes' writes may have been lost."""
        ...


@dataclass(frozen=True, slots=True)
class OfflineMessage:
    """A stored stanza; `stamp` is the time of its arrival in seconds since 1970."""

    id: int
    stamp: float
    stanza: bytes


class OfflineStore(Protocol):
    """Messages waiting for a user, in order of arrival (XEP-0160)."""

    def append(  # noqa: PLR0917 - called for every stored message, and keywords would make that dearer
        self, host: str, user: str, stanza: bytes, stamp: float, expires: float | None, limit: int
    ) -> asyncio.Future[bool]:
        """Queue a message for storing and return a future that resolves once its fate is known.

        True: durably stored. False: the mailbox holds `limit` messages already. Exception
        `StorageUnavailable`: not known to be stored. Ids grow in the order in which messages become visible
        to `load`, over all processes.
        """
        ...

    async def load(self, host: str, user: str, limit: int) -> list[OfflineMessage]:
        """The oldest `limit` messages in order, without those that have expired."""
        ...

    async def remove(self, host: str, user: str, up_to_id: int) -> int:
        """Delete the messages with ids up to and including `up_to_id` and return how many there were."""
        ...

    async def count(self, host: str, user: str) -> int:
        """How many messages wait, expired ones left out."""
        ...

    async def delete_user(self, host: str, user: str) -> int:
        """Delete all messages of a user and return how many there were."""
        ...

    async def delete_expired(self, host: str, now: float) -> int:
        """Delete the messages of a host that expired at or before `now`, and return how many there were."""
        ...

    async def delete_older(self, host: str, before: float) -> int:
        """Delete the messages of a host that arrived before `before`, and return how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """An account that this server has seen or made; times are seconds since 1970, None for never."""

    user: str
    created: float
    last_login: float | None
    disabled: bool
    reason: str = ""


AccountList = list[Account]
"""Named here, because inside of `AccountStore` the word `list` means its method."""


class AccountStore(Protocol):
    """Accounts seen at login or made by an administrator; who may log in only the auth service knows."""

    def seen(self, host: str, user: str, when: float) -> None:
        """Remember a login. Batched; lost (and counted in the log) when the database is away."""
        ...

    async def add(self, host: str, user: str, when: float) -> None:
        """Remember an account that was made now and has never logged in; nothing happens when it is known."""
        ...

    async def list(self, host: str, offset: int = 0, limit: int | None = None) -> AccountList:
        """Accounts of a host sorted by user, from the `offset`-th on, at most `limit`."""
        ...

    async def count(self, host: str) -> int:
        """How many accounts of a host are known."""
        ...

    async def find(self, host: str, user: str) -> Account | None:
        """The account, or None when it is not known here."""
        ...

    async def set_disabled(self, host: str, user: str, disabled: bool, reason: str = "") -> None:
        """Disable or enable an account; it is remembered even when it has never been seen."""
        ...

    async def disabled(self, host: str, user: str) -> bool:
        """Whether the account is disabled (cached); an unknown account is not."""
        ...

    async def delete(self, host: str, user: str) -> None:
        """Forget an account."""
        ...


class Storage(Protocol):
    """All stores of one process."""

    on_invalidate: InvalidateHook | None
    """Set by the bus; called on the event loop after this process has changed a value."""

    @property
    def offline(self) -> OfflineStore:
        """The offline messages."""
        ...

    @property
    def accounts(self) -> AccountStore:
        """The accounts seen or made."""
        ...

    def keyvalue(
        self, table: str, codec: Codec[T], cache_size: int, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> KeyValueStore[T]:
        """Open a table of values.

        Args:
            table: its name; opening it twice gives the same store back.
            codec: the translation of its values.
            cache_size: entries cached at most (as many again for values known to be absent).
            cache_bytes: encoded bytes of cached values at most.

        Raises:
            ValueError: the table is open already with a codec of another type.
        """
        ...

    async def start(self) -> None:
        """Open the database and start working.

        A database that is away does not hinder the start. Raises `StorageError` when the schema is missing or
        older than this program needs.
        """
        ...

    async def close(self) -> None:
        """Finish what is queued, within a bounded time, and release everything.

        Later calls raise StorageUnavailable.
        """
        ...

    def healthy(self) -> bool:
        """Whether the database answered when it was last asked."""
        ...

    def invalidate(self, table: str, host: str, owner: str, key: str) -> None:
        """Forget a cached value of a table; tables that are not open here are ignored."""
        ...

    def invalidate_all(self) -> None:
        """Forget every cached value of every table."""
        ...


class StorageError(Exception):
    """The storage cannot be used as it is configured; the message says what to do."""

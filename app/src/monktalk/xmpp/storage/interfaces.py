"""What the XMPP server asks of its storage: the only part of storage that core and modules import.

All methods are called on the event loop, and none of them blocks it. Strings are Unicode without NUL
characters and lone surrogates (ValueError otherwise: PostgreSQL can store neither); hosts, owners and users
are prepared by the caller (RFC 7622) and compared exactly.

Writes that are under way at the same time (the first one's result has not been awaited yet) keep their order
when they concern the same owner of one key-value table, are appends to one mailbox, or name the same session.
All others may be carried out in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Delivered(Enum):
    """What became of a message that was to be stored for sessions."""

    STORED = "stored"  # it is durable, under the numbers that were given
    DUPLICATE = "duplicate"  # it is there already, in the mailbox or with some session; nothing was stored
    SUPERSEDED = "superseded"  # a session was adopted by another process, or is gone; nothing was stored


Move = tuple[int, int | None, int]
"""Where a message of an ending session goes: its `out_seq` there, the id of the other session and its `out_seq`
in that one, or None (and any number) for the mailbox."""


class MessageStore(Protocol):
    """Messages for users, each of them waiting in the mailbox (XEP-0160) or given to a session.

    A message that was given to a session is stored under the number `out_seq` that its stanza has in the stream
    to that client, counted as in XEP-0198. It is committed before it is sent, so that whoever adopts the
    session after a crash has it. `acknowledged` of the session says which of them the client has had; those,
    and all of a session that has ended, are kept until `forget_delivered` as the memory of what was delivered.

    A message is known by its origin and number: the token of its sender's session, and the number of its stanza
    in the stream from there. What the sender repeats after a failure is recognised by them.

    Without patience (see `Storage`), a write that ends in `StorageUnavailable` may have taken place. The same call
    may be made again for everything that names an origin, for `assign`, and for `renumber`; also for `reassign`,
    but when that closes the session, False may come from the first call.
    """

    def append(  # noqa: PLR0917 - called for every stored message, and keywords would make that dearer
        self,
        host: str,
        user: str,
        stanza: bytes,
        stamp: float,
        expires: float | None,
        limit: int,
        origin: str | None = None,
        number: int | None = None,
    ) -> asyncio.Future[bool]:
        """Queue a message for the mailbox and return a future that resolves once its fate is known.

        True: durably stored, by this call or by an earlier one with the same origin and number, in the mailbox
        or with a session. False: the mailbox holds `limit` messages already. Exception `StorageUnavailable`:
        not known to be stored. Ids grow in the order in which messages become visible to `load`, over all
        processes.
        """
        ...

    def deliver(  # noqa: PLR0917 - as `append`
        self,
        host: str,
        user: str,
        stanza: bytes,
        stamp: float,
        sessions: Sequence[tuple[int, int]],
        origin: str,
        number: int,
        expires: float | None = None,
    ) -> asyncio.Future[Delivered]:
        """Queue a message for some sessions of a user: for each of them or, if that cannot be, for none.

        Args:
            host: the served domain.
            user: the localpart of the recipient.
            stanza: what is sent to the client.
            stamp: the time of its arrival.
            sessions: session ids, each with the `out_seq` of the message in that session; at least one.
            origin: the token of the sender's session, or whatever else tells senders apart.
            number: the number of the message among those of its origin.
            expires: until when it is kept, if it should come to wait in the mailbox.

        Raises (from the future):
            StorageUnavailable: not known to be stored.
        """
        ...

    def assign(
        self, host: str, user: str, ids: Sequence[int], session: int, first_out_seq: int
    ) -> asyncio.Future[list[int] | None]:
        """Give a session those of the messages `ids` that wait and have not expired.

        In the order of their ids they become its stanzas `first_out_seq`, `first_out_seq` + 1 and so on. The
        result has their ids in this order: fewer than were loaded, when another session was faster or one has
        expired. None: the session is superseded, and nothing has changed. Numbers from the first one on
        must be new in the session.
        """
        ...

    def reassign(
        self, host: str, user: str, session: int, moves: Sequence[Move], *, close: bool = False
    ) -> asyncio.Future[bool]:
        """Give messages of a session to other sessions of the user, or back to the mailbox.

        Messages that are not named stay as they are. In the mailbox they are the latest ones, in the order of
        their `out_seq`, whatever its quota. With `close` the session ends in the same transaction, and what has
        stayed counts as delivered. False: this session, or one of the others, is superseded, and nothing has
        changed.
        """
        ...

    def renumber(self, session: int, delivered_up_to: int) -> asyncio.Future[bool]:
        """A client has resumed a session that was adopted, and says how many stanzas it has had.

        Messages up to and including that number are delivered, and it becomes the session's `acknowledged`. The
        others become `delivered_up_to` + 1, + 2 and so on, in the order that they had: what was between them and
        was not stored is gone. False: superseded.
        """
        ...

    async def load(self, host: str, user: str, limit: int) -> list[OfflineMessage]:
        """The oldest `limit` messages that wait, in order, without those that have expired."""
        ...

    async def remove(self, host: str, user: str, up_to_id: int) -> int:
        """Delete what waits with ids up to and including `up_to_id` and return how many there were.

        It is not remembered that they were there: `assign` does.
        """
        ...

    async def count(self, host: str, user: str) -> int:
        """How many messages wait, expired ones left out."""
        ...

    async def arrivals(self, after: int | None, limit: int) -> tuple[int, set[tuple[str, str]]]:
        """Whose mailboxes have got messages with ids above `after`: hosts and users, of the first `limit` messages.

        The number is the highest id that was seen, or `after`; with None it is the highest id of all, and nobody is
        named. An id that becomes visible late may be lower than one that was seen, by the few that are being
        written at the same time.
        """
        ...

    async def delete_user(self, host: str, user: str) -> int:
        """Delete all messages of a user, those given to sessions too, and return how many waited."""
        ...

    async def delete_expired(self, host: str, now: float) -> int:
        """Delete what waits on a host and expired at or before `now`, and return how many there were."""
        ...

    async def delete_older(self, host: str, before: float) -> int:
        """Delete what waits on a host and arrived before `before`, and return how many there were."""
        ...

    async def forget_delivered(self, before: float) -> int:
        """Delete delivered messages that arrived before `before`, on all hosts, and return how many there were.

        What a sender repeats is not recognised any more then: `before` is longer ago than a session can wait
        for its resumption.
        """
        ...


@dataclass(frozen=True, slots=True)
class SessionMessage:
    """A stored stanza that was given to a session as the `out_seq`-th of its stream."""

    out_seq: int
    stamp: float
    stanza: bytes


@dataclass(frozen=True, slots=True)
class Adopted:
    """A session that was taken over, as its former owner left it.

    `stamp` is the time at which an owner last wrote something of it: opened or updated it, or a counter.
    `messages` are those that are not acknowledged, in order.
    """

    id: int
    token: str
    host: str
    user: str
    resource: str
    handled: int
    acknowledged: int
    resumable: bool
    state: bytes
    stamp: float
    messages: list[SessionMessage]


class SessionStore(Protocol):
    """Sessions written down, so that another process can go on with those of one that died.

    The id names one incarnation of a session: adopting a session gives it another id. Every write of a former
    owner then finds nothing under its id, and reports that the session is superseded. The token stays.

    Everything but `adopt` and `adopt_from` is cheap: writes of many sessions share one statement and one
    transaction.
    """

    def open(  # noqa: PLR0917 - the columns of a row
        self, token: str, host: str, user: str, resource: str, owner: str, resumable: bool, state: bytes
    ) -> asyncio.Future[int]:
        """Write a new session down; the future has its id.

        Args:
            token: names the session for ever; no other session has it.
            host: the served domain.
            user: the localpart of its user.
            resource: its resource.
            owner: the process that has it, not the same after a restart.
            resumable: whether its client may resume it.
            state: what an adopter needs to know, for the caller to encode.

        Raises (from the future):
            ValueError: another owner has a session with this token.
            StorageUnavailable: not known to be stored; the same call may be repeated.
        """
        ...

    def update(self, id: int, state: bytes, *, resumable: bool | None = None) -> asyncio.Future[bool]:  # noqa: A002
        """Replace the state, and whether the client may resume (None: as before). False: superseded."""
        ...

    def handled(self, id: int, count: int) -> asyncio.Future[bool]:  # noqa: A002
        """The first `count` stanzas from the client are taken care of; less than before changes nothing.

        False: superseded.
        """
        ...

    def acknowledged(self, id: int, count: int) -> asyncio.Future[bool]:  # noqa: A002
        """The client has had the first `count` stanzas; less than before changes nothing. False: superseded."""
        ...

    def close(self, id: int) -> asyncio.Future[bool]:  # noqa: A002
        """The session has ended: forget it. False: superseded.

        Its messages count as delivered then, so `MessageStore.reassign` (with `close`) saves those that are not.
        """
        ...

    async def adopt(self, host: str, user: str, owner: str) -> list[Adopted]:
        """Take over all sessions of a user that belong to other owners.

        When several do so at once, each session goes to one of them. A session whose adoption ended in
        `StorageUnavailable` is in the result of the next call. A call that was cancelled leaves what it has
        taken to nobody.
        """
        ...

    async def adopt_from(self, dead_owner: str, owner: str, limit: int) -> list[Adopted]:
        """Take over at most `limit` sessions of an owner that is gone; empty when none is left.

        Several may share the work. As to failures, see `adopt`.
        """
        ...

    async def owners(self) -> dict[str, int]:
        """All owners that have sessions, and how many."""
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
    """All stores of one process.

    A storage may have patience: operations then wait, in bounded queues, while the database is away, instead of
    failing at once, and those whose commit was interrupted are repeated where that does no harm. They fail with
    `StorageUnavailable` when patience is over.
    """

    on_invalidate: InvalidateHook | None
    """Set by the bus; called on the event loop after this process has changed a value."""

    @property
    def offline(self) -> MessageStore:
        """The messages that wait, and those given to sessions."""
        ...

    @property
    def sessions(self) -> SessionStore:
        """The sessions written down."""
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

    def trust_cache(self, trusted: bool) -> None:
        """Whether news of other processes' writes arrive; they do at the start.

        While they may be lost, nothing is answered from memory: `KeyValueStore.peek` says `UNKNOWN`, and every
        get reads the database. Either change forgets every cached value.
        """
        ...


class StorageError(Exception):
    """The storage cannot be used as it is configured; the message says what to do."""

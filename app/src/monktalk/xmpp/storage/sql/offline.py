"""Offline messages in SQL: appends of one group are one INSERT, and a quota costs no query per message.

How many messages a mailbox holds is counted once, and then kept and corrected in the writer's thread. Appends of
other processes are seen when the number is counted again, which happens at latest after `RECOUNT_AFTER` seconds
and before a message is refused: nobody is refused wrongly, and several processes together exceed a quota by no
more than they store within that time.

On PostgreSQL a transaction that appends locks the mailboxes first (advisory locks), so that ids grow in the order
of the commits. Without that, a message with a lower id could become visible after one with a higher id was
loaded, and `remove` up to the higher one would delete it unseen.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, delete, func, or_, select, text
from sqlalchemy import insert as sql_insert

from monktalk.db.query import Query
from monktalk.db.schema import offline_messages
from monktalk.xmpp.storage.interfaces import OfflineMessage
from monktalk.xmpp.storage.sql.dialect import on_postgresql
from monktalk.xmpp.storage.text import check_key, check_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from monktalk.xmpp.storage.sql.submit import SubmitRead, SubmitWrite

Mailbox = tuple[str, str]
"""Host and user."""

RECOUNT_AFTER: Final = 60.0
RECOUNT_FULL_AFTER: Final = 1.0
MAX_COUNTS: Final = 50_000

_COLUMNS = offline_messages.c
_MAILBOX = and_(_COLUMNS.host == bindparam("p_host"), _COLUMNS.username == bindparam("p_user"))
_WAITING = and_(_MAILBOX, or_(_COLUMNS.expires.is_(None), _COLUMNS.expires > bindparam("p_now")))

_APPEND = sql_insert(offline_messages)
_LOAD = Query(
    select(_COLUMNS.id, _COLUMNS.stamp, _COLUMNS.stanza)
    .where(_WAITING)
    .order_by(_COLUMNS.id)
    .limit(bindparam("p_limit"))
)
_COUNT_WAITING = select(func.count()).select_from(offline_messages).where(_WAITING)
_COUNT = select(func.count()).select_from(offline_messages).where(_MAILBOX)
_DROP_EXPIRED = delete(offline_messages).where(_MAILBOX, _COLUMNS.expires <= bindparam("p_now"))
# PostgreSQL only: one round trip for all mailboxes of a group.
_COUNT_MANY = text(
    "SELECT box.host, box.username, (SELECT count(*) FROM offline_messages AS message"
    " WHERE message.host = box.host AND message.username = box.username)"
    " FROM unnest(CAST(:hosts AS text[]), CAST(:users AS text[])) AS box(host, username)"
)
_LOCK = text("SELECT pg_advisory_xact_lock(mailbox) FROM unnest(CAST(:mailboxes AS bigint[])) AS mailbox")


@dataclass(frozen=True, slots=True)
class Append:
    """Store one message, if the mailbox holds less than `limit`."""

    mailbox: Mailbox
    stanza: bytes
    stamp: float
    expires: float | None
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class Remove:
    """Delete the messages that meet a condition, of one mailbox or (None) of any."""

    condition: ColumnElement[bool]
    mailbox: Mailbox | None


Request = Append | Remove


@dataclass(slots=True)
class _Count:
    messages: int
    counted: float


class OfflineApplier:
    """Carries out writes of offline messages. See `Applier`.

    Args:
        now: the time in seconds since 1970.
        monotonic: seconds that only grow.
    """

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._counts: OrderedDict[Mailbox, _Count] = OrderedDict()
        self._changed: dict[Mailbox, _Count] = {}
        self._unknown: set[Mailbox | None] = set()

    def begin(self) -> None:
        """See `Applier.begin`."""
        self._changed.clear()
        self._unknown.clear()

    def settle(self, *, committed: bool) -> None:
        """See `Applier.settle`."""
        if not committed:
            self._unknown.update(self._changed)
        for mailbox, count in self._changed.items():
            self._counts[mailbox] = count
            self._counts.move_to_end(mailbox)
        if None in self._unknown:
            self._counts.clear()
        for unknown in self._unknown:
            if unknown is not None:
                self._counts.pop(unknown, None)
        while len(self._counts) > MAX_COUNTS:
            self._counts.popitem(last=False)
        self.begin()

    def apply(self, connection: Connection, requests: Sequence[Request]) -> list[Any]:
        """See `Applier.apply`. Outcomes: whether it was stored (append), how many were deleted (remove)."""
        outcomes: list[Any] = [None] * len(requests)
        appends = [(at, request) for at, request in enumerate(requests) if isinstance(request, Append)]
        if appends:
            stored = self._append(connection, [request for _, request in appends])
            for (at, _), outcome in zip(appends, stored, strict=True):
                outcomes[at] = outcome
        # After the appends: an account that is being deleted leaves nothing to a later account of the name.
        for at, request in enumerate(requests):
            if isinstance(request, Remove):
                outcomes[at] = connection.execute(delete(offline_messages).where(request.condition)).rowcount
                self._unknown.add(request.mailbox)
        return outcomes

    def _append(self, connection: Connection, requests: Sequence[Append]) -> list[bool]:
        mailboxes = {request.mailbox for request in requests}
        if on_postgresql(connection):
            connection.execute(_LOCK, {"mailboxes": sorted(_lock_number(mailbox) for mailbox in mailboxes)})
        self._count(connection, mailboxes)
        accepted: Counter[Mailbox] = Counter()
        stored = [self._has_room(connection, request, accepted) for request in requests]
        rows = [
            {
                "host": request.mailbox[0],
                "username": request.mailbox[1],
                "stanza": request.stanza,
                "stamp": request.stamp,
                "expires": request.expires,
            }
            for request, room in zip(requests, stored, strict=True)
            if room
        ]
        if rows:
            connection.execute(_APPEND, rows)
        return stored

    def _count(self, connection: Connection, mailboxes: set[Mailbox]) -> None:
        """Bring the numbers of messages of all mailboxes into `_changed`, counting those that are not known."""
        now = self._monotonic()
        unknown = []
        for mailbox in mailboxes - self._changed.keys():
            count = self._counts.get(mailbox)
            if count is None or now - count.counted > RECOUNT_AFTER:
                unknown.append(mailbox)
                self._changed[mailbox] = _Count(0, now)
            else:
                self._changed[mailbox] = _Count(count.messages, count.counted)
        if unknown and on_postgresql(connection):
            hosts, users = zip(*unknown, strict=True)
            for host, user, messages in connection.execute(_COUNT_MANY, {"hosts": list(hosts), "users": list(users)}):
                self._changed[host, user].messages = messages
            return
        for mailbox in unknown:
            where = {"p_host": mailbox[0], "p_user": mailbox[1]}
            self._changed[mailbox].messages = connection.execute(_COUNT, where).scalar_one()

    def _has_room(self, connection: Connection, request: Append, accepted: Counter[Mailbox]) -> bool:
        count = self._changed[request.mailbox]
        now = self._monotonic()
        if count.messages >= request.limit and now - count.counted > RECOUNT_FULL_AFTER:
            host, user = request.mailbox
            where = {"p_host": host, "p_user": user}
            # What has expired no longer counts; nobody else may have deleted it yet.
            connection.execute(_DROP_EXPIRED, where | {"p_now": self._now()})
            # Those that have just been accepted are not in the table yet.
            count.messages = connection.execute(_COUNT, where).scalar_one() + accepted[request.mailbox]
            count.counted = now
        if count.messages >= request.limit:
            return False
        count.messages += 1
        accepted[request.mailbox] += 1
        return True


class SqlOffline:
    """An `OfflineStore` on SQL."""

    def __init__(self, write: SubmitWrite, read: SubmitRead, applier: OfflineApplier, now: Callable[[], float]) -> None:
        self._write = write
        self._read = read
        self._applier = applier
        self._now = now

    def append(  # noqa: PLR0917 - the signature of the interface
        self, host: str, user: str, stanza: bytes, stamp: float, expires: float | None, limit: int
    ) -> asyncio.Future[bool]:
        """See `OfflineStore.append`."""
        check_key(host, user)
        request = Append((host, user), bytes(stanza), stamp, expires, limit)
        return self._write(self._applier, request, len(stanza))

    async def load(self, host: str, user: str, limit: int) -> list[OfflineMessage]:
        """See `OfflineStore.load`."""
        check_text(host, user)
        where = {"p_host": host, "p_user": user, "p_now": self._now(), "p_limit": limit}

        def work(connection: Connection) -> list[OfflineMessage]:
            rows = _LOAD.rows(connection, where)
            return [OfflineMessage(number, stamp, bytes(stanza)) for number, stamp, stanza in rows]

        return await self._read(work)

    async def count(self, host: str, user: str) -> int:
        """See `OfflineStore.count`."""
        check_text(host, user)
        where = {"p_host": host, "p_user": user, "p_now": self._now()}
        return await self._read(lambda connection: int(connection.execute(_COUNT_WAITING, where).scalar_one()))

    async def remove(self, host: str, user: str, up_to_id: int) -> int:
        """See `OfflineStore.remove`."""
        return await self._remove((host, user), _COLUMNS.id <= up_to_id)

    async def delete_user(self, host: str, user: str) -> int:
        """See `OfflineStore.delete_user`."""
        return await self._remove((host, user))

    async def delete_expired(self, host: str, now: float) -> int:
        """See `OfflineStore.delete_expired`."""
        check_text(host)
        return await self._submit(Remove(and_(_COLUMNS.host == host, _COLUMNS.expires <= now), None))

    async def delete_older(self, host: str, before: float) -> int:
        """See `OfflineStore.delete_older`."""
        check_text(host)
        return await self._submit(Remove(and_(_COLUMNS.host == host, _COLUMNS.stamp < before), None))

    async def _remove(self, mailbox: Mailbox, *further: ColumnElement[bool]) -> int:
        check_text(*mailbox)
        mine = and_(_COLUMNS.host == mailbox[0], _COLUMNS.username == mailbox[1], *further)
        return await self._submit(Remove(mine, mailbox))

    async def _submit(self, request: Remove) -> int:
        removed: int = await self._write(self._applier, request)
        return removed


def _lock_number(mailbox: Mailbox) -> int:
    """A 64-bit number that stands for a mailbox; that two share one now and then only costs a wait."""
    digest = blake2b("\0".join(mailbox).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

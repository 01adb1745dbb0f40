"""Messages in SQL, as the event loop sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, func, or_, select

from monktalk.db.query import Query
from monktalk.db.schema import offline_messages
from monktalk.xmpp.storage.interfaces import OfflineMessage
from monktalk.xmpp.storage.sql.requests import Append, Assign, Deliver, Forget, Reassign, Remove, Renumber
from monktalk.xmpp.storage.text import check_key, check_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from monktalk.xmpp.storage.interfaces import Delivered, Move
    from monktalk.xmpp.storage.sql.messages import MessagesApplier
    from monktalk.xmpp.storage.sql.submit import SubmitRead, SubmitWrite

FORGET_BATCH: Final = 1_000
"""Delivered messages that are deleted by one transaction: others wait for it."""

_COLUMNS = offline_messages.c
_WAITING = and_(
    _COLUMNS.host == bindparam("p_host"),
    _COLUMNS.username == bindparam("p_user"),
    _COLUMNS.session.is_(None),
    or_(_COLUMNS.expires.is_(None), _COLUMNS.expires > bindparam("p_now")),
)
_LOAD = Query(
    select(_COLUMNS.id, _COLUMNS.stamp, _COLUMNS.stanza)
    .where(_WAITING)
    # The session is null everywhere; by its name, the order is that of the index.
    .order_by(_COLUMNS.session, _COLUMNS.id)
    .limit(bindparam("p_limit"))
)
_COUNT_WAITING = select(func.count()).select_from(offline_messages).where(_WAITING)
_ARRIVALS = Query(
    select(_COLUMNS.id, _COLUMNS.host, _COLUMNS.username)
    .where(_COLUMNS.id > bindparam("p_after"), _COLUMNS.session.is_(None))
    .order_by(_COLUMNS.id)
    .limit(bindparam("p_limit"))
)
_NEWEST = select(func.coalesce(func.max(_COLUMNS.id), 0))


class SqlMessages:
    """A `MessageStore` on SQL; `now` is the time in seconds since 1970."""

    def __init__(
        self, write: SubmitWrite, read: SubmitRead, applier: MessagesApplier, now: Callable[[], float]
    ) -> None:
        self._write = write
        self._read = read
        self._applier = applier
        self._now = now

    def append(  # noqa: PLR0917 - the signature of the interface
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
        """See `MessageStore.append`."""
        check_key(host, user)
        source = None
        if origin is not None and number is not None:
            check_key(origin)
            source = (origin, number)
        request = Append((host, user), bytes(stanza), stamp, expires, limit, source)
        return self._write(self._applier, request, len(stanza))

    def deliver(  # noqa: PLR0917 - the signature of the interface
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
        """See `MessageStore.deliver`."""
        check_key(host, user)
        check_key(origin)
        if not sessions:
            raise ValueError("a message is delivered to one session at least")
        request = Deliver((host, user), bytes(stanza), stamp, expires, tuple(sessions), (origin, number))
        return self._write(self._applier, request, len(stanza))

    def assign(
        self, host: str, user: str, ids: Sequence[int], session: int, first_out_seq: int
    ) -> asyncio.Future[list[int] | None]:
        """See `MessageStore.assign`."""
        check_text(host, user)
        return self._write(self._applier, Assign((host, user), tuple(ids), session, first_out_seq))

    def reassign(
        self, host: str, user: str, session: int, moves: Sequence[Move], *, close: bool = False
    ) -> asyncio.Future[bool]:
        """See `MessageStore.reassign`."""
        check_text(host, user)
        return self._write(self._applier, Reassign((host, user), session, tuple(moves), close))

    def renumber(self, session: int, delivered_up_to: int) -> asyncio.Future[bool]:
        """See `MessageStore.renumber`."""
        return self._write(self._applier, Renumber(session, delivered_up_to))

    async def load(self, host: str, user: str, limit: int) -> list[OfflineMessage]:
        """See `MessageStore.load`."""
        check_text(host, user)
        where = {"p_host": host, "p_user": user, "p_now": self._now(), "p_limit": limit}

        def work(connection: Connection) -> list[OfflineMessage]:
            rows = _LOAD.rows(connection, where)
            return [OfflineMessage(number, stamp, bytes(stanza)) for number, stamp, stanza in rows]

        return await self._read(work)

    async def count(self, host: str, user: str) -> int:
        """See `MessageStore.count`."""
        check_text(host, user)
        where = {"p_host": host, "p_user": user, "p_now": self._now()}
        return await self._read(lambda connection: int(connection.execute(_COUNT_WAITING, where).scalar_one()))

    async def arrivals(self, after: int | None, limit: int) -> tuple[int, set[tuple[str, str]]]:
        """See `MessageStore.arrivals`."""
        if after is None:
            return await self._read(lambda connection: int(connection.execute(_NEWEST).scalar_one())), set()
        rows = await self._read(lambda connection: _ARRIVALS.rows(connection, {"p_after": after, "p_limit": limit}))
        return (int(rows[-1][0]) if rows else after), {(host, user) for _, host, user in rows}

    async def remove(self, host: str, user: str, up_to_id: int) -> int:
        """See `MessageStore.remove`."""
        check_text(host, user)
        return await self._submit(Remove(and_(_mailbox(host, user), _COLUMNS.id <= up_to_id), (host, user)))

    async def delete_user(self, host: str, user: str) -> int:
        """See `MessageStore.delete_user`."""
        check_text(host, user)
        return await self._submit(Remove(_mailbox(host, user), (host, user), given=True))

    async def delete_expired(self, host: str, now: float) -> int:
        """See `MessageStore.delete_expired`."""
        check_text(host)
        return await self._submit(Remove(and_(_COLUMNS.host == host, _COLUMNS.expires <= now), None))

    async def delete_older(self, host: str, before: float) -> int:
        """See `MessageStore.delete_older`."""
        check_text(host)
        return await self._submit(Remove(and_(_COLUMNS.host == host, _COLUMNS.stamp < before), None))

    async def forget_delivered(self, before: float) -> int:
        """See `MessageStore.forget_delivered`."""
        forgotten = 0
        while True:
            batch = await self._submit(Forget(before, FORGET_BATCH))
            forgotten += batch
            if batch < FORGET_BATCH:
                return forgotten

    async def _submit(self, request: Remove | Forget) -> int:
        removed: int = await self._write(self._applier, request)
        return removed


def _mailbox(host: str, user: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.host == host, _COLUMNS.username == user)

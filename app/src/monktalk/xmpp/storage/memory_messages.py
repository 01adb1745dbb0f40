"""Messages and sessions in memory, see `memory`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monktalk.xmpp.storage.interfaces import Adopted, Delivered, OfflineMessage, SessionMessage
from monktalk.xmpp.storage.text import check_key, check_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol, TypeVar

    from monktalk.xmpp.storage.interfaces import Move

    R = TypeVar("R")

    class Submit(Protocol):
        """Does work in the next iteration of the loop."""

        def __call__(self, work: Callable[[], R], /) -> asyncio.Future[R]:
            """The future has what `work` returns or raises."""
            ...


@dataclass(slots=True, eq=False)
class _Row:
    """A message, as a row of the table in SQL has it."""

    id: int
    host: str
    user: str
    stanza: bytes
    stamp: float
    expires: float | None
    source: tuple[str, int] | None
    session: int | None = None
    out_seq: int = 0


class _Session:
    """A session, as a row of the table in SQL has it."""

    def __init__(  # noqa: PLR0917 - the columns of a row
        self, token: str, host: str, user: str, resource: str, owner: str, resumable: bool, state: bytes, stamp: float
    ) -> None:
        self.token = token
        self.host = host
        self.user = user
        self.resource = resource
        self.owner = owner
        self.resumable = resumable
        self.state = state
        self.stamp = stamp
        self.handled = 0
        self.acknowledged = 0


class Tables:
    """What the two stores share. Rows are in the order of their ids."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now: Final = now
        self.sessions: Final[dict[int, _Session]] = {}
        self._boxes: dict[tuple[str, str], dict[int, _Row]] = {}
        self._given: dict[int, dict[int, _Row]] = {}
        self._known: dict[tuple[str, int], list[_Row]] = {}
        self._last_id = 0
        self._last_session = 0

    def add(self, row: _Row) -> None:
        """Add a row under a new id, to the mailbox or to its session."""
        self._last_id += 1
        row.id = self._last_id
        self._put(row)
        if row.source is not None:
            self._known.setdefault(row.source, []).append(row)

    def drop(self, row: _Row) -> None:
        """Delete a row."""
        self._take(row)
        if row.source is not None:
            rows = self._known[row.source]
            rows.remove(row)
            if not rows:
                del self._known[row.source]

    def give(self, row: _Row, session: int | None, out_seq: int = 0) -> None:
        """Move a row to a session, or (None) to the end of the mailbox."""
        self._take(row)
        row.session, row.out_seq = session, out_seq
        if session is None:
            self._last_id += 1
            row.id = self._last_id
        self._put(row)

    def known(self, source: tuple[str, int] | None) -> list[_Row]:
        """All rows of this origin and number."""
        return self._known.get(source, []) if source is not None else []

    def waiting(self, host: str, user: str) -> list[_Row]:
        """The mailbox, expired messages left out."""
        now = self.now()
        return [row for row in self.box(host, user) if row.expires is None or row.expires > now]

    def all_waiting(self) -> Iterator[_Row]:
        """All mailboxes."""
        for rows in self._boxes.values():
            yield from rows.values()

    def box(self, host: str, user: str) -> list[_Row]:
        """The mailbox."""
        return list(self._boxes.get((host, user), {}).values())

    def boxes(self, host: str) -> list[_Row]:
        """All mailboxes of a host."""
        return [row for (domain, _), box in self._boxes.items() if domain == host for row in box.values()]

    def given(self, session: int) -> list[_Row]:
        """The messages of a session in the order of its stream."""
        return sorted(self._given.get(session, {}).values(), key=lambda row: row.out_seq)

    def all_given(self) -> list[_Row]:
        """The messages of all sessions, also of those that are gone."""
        return [row for rows in self._given.values() for row in rows.values()]

    def add_session(self, session: _Session) -> int:
        """Add a session under a new id."""
        self._last_session += 1
        self.sessions[self._last_session] = session
        return self._last_session

    def _put(self, row: _Row) -> None:
        if row.session is None:
            self._boxes.setdefault((row.host, row.user), {})[row.id] = row
        else:
            self._given.setdefault(row.session, {})[row.id] = row

    def _take(self, row: _Row) -> None:
        if row.session is None:
            box = self._boxes[row.host, row.user]
            del box[row.id]
            if not box:
                del self._boxes[row.host, row.user]
            return
        rows = self._given[row.session]
        del rows[row.id]
        if not rows:
            del self._given[row.session]


class MemoryMessages:
    """A `MessageStore` in dictionaries."""

    def __init__(self, submit: Submit, tables: Tables) -> None:
        self._submit = submit
        self._tables = tables

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
        check_key(host, user, origin or "")
        source = (origin, number) if origin is not None and number is not None else None

        def work() -> bool:
            tables = self._tables
            if tables.known(source):
                return True
            if len(tables.box(host, user)) >= limit:
                self._drop(row for row in tables.box(host, user) if _expired(row, tables.now()))
            if len(tables.box(host, user)) >= limit:
                return False
            tables.add(_Row(0, host, user, bytes(stanza), stamp, expires, source))
            return True

        return self._submit(work)

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
        check_key(host, user, origin)
        if not sessions:
            raise ValueError("a message is delivered to one session at least")

        def work() -> Delivered:
            tables = self._tables
            if any(session not in tables.sessions for session, _ in sessions):
                return Delivered.SUPERSEDED
            known = [(row.session, row.out_seq) for row in tables.known((origin, number))]
            if known:
                return Delivered.STORED if known == list(sessions) else Delivered.DUPLICATE
            for session, out_seq in sessions:
                source = (origin, number)
                tables.add(_Row(0, host, user, bytes(stanza), stamp, expires, source, session, out_seq))
            return Delivered.STORED

        return self._submit(work)

    def assign(
        self, host: str, user: str, ids: Sequence[int], session: int, first_out_seq: int
    ) -> asyncio.Future[list[int] | None]:
        """See `MessageStore.assign`."""
        check_text(host, user)

        def work() -> list[int] | None:
            if session not in self._tables.sessions:
                return None
            wanted = set(ids)
            given = [row for row in self._tables.given(session) if row.out_seq >= first_out_seq]
            rows = [row for row in (*given, *self._tables.waiting(host, user)) if row.id in wanted]
            rows.sort(key=lambda row: row.id)
            for place, row in enumerate(rows):
                self._tables.give(row, session, first_out_seq + place)
            return [row.id for row in rows]

        return self._submit(work)

    def reassign(
        self, host: str, user: str, session: int, moves: Sequence[Move], *, close: bool = False
    ) -> asyncio.Future[bool]:
        """See `MessageStore.reassign`."""
        check_text(host, user)

        def work() -> bool:
            tables = self._tables
            if not {session, *(to for _, to, _ in moves if to is not None)} <= tables.sessions.keys():
                return False
            targets = {out_seq: (to, new) for out_seq, to, new in moves}
            for row in tables.given(session):
                if row.out_seq in targets:
                    tables.give(row, *targets[row.out_seq])
            if close:
                del tables.sessions[session]
            return True

        return self._submit(work)

    def renumber(self, session: int, delivered_up_to: int) -> asyncio.Future[bool]:
        """See `MessageStore.renumber`."""

        def work() -> bool:
            found = self._tables.sessions.get(session)
            if found is None:
                return False
            found.acknowledged = delivered_up_to
            found.stamp = self._tables.now()
            left = [row for row in self._tables.given(session) if row.out_seq > delivered_up_to]
            for place, row in enumerate(left, 1):
                row.out_seq = delivered_up_to + place
            return True

        return self._submit(work)

    async def load(self, host: str, user: str, limit: int) -> list[OfflineMessage]:
        """See `MessageStore.load`."""
        check_text(host, user)

        def work() -> list[OfflineMessage]:
            rows = self._tables.waiting(host, user)[:limit]
            return [OfflineMessage(row.id, row.stamp, row.stanza) for row in rows]

        return await self._submit(work)

    async def remove(self, host: str, user: str, up_to_id: int) -> int:
        """See `MessageStore.remove`."""
        check_text(host, user)
        return await self._submit(lambda: self._drop(row for row in self._tables.box(host, user) if row.id <= up_to_id))

    async def count(self, host: str, user: str) -> int:
        """See `MessageStore.count`."""
        check_text(host, user)
        return await self._submit(lambda: len(self._tables.waiting(host, user)))

    async def arrivals(self, after: int | None, limit: int) -> tuple[int, set[tuple[str, str]]]:
        """See `MessageStore.arrivals`."""

        def work() -> tuple[int, set[tuple[str, str]]]:
            rows = sorted(self._tables.all_waiting(), key=lambda row: row.id)
            if after is None:
                return (rows[-1].id if rows else 0), set()
            rows = [row for row in rows if row.id > after][:limit]
            return (rows[-1].id if rows else after), {(row.host, row.user) for row in rows}

        return await self._submit(work)

    async def delete_user(self, host: str, user: str) -> int:
        """See `MessageStore.delete_user`."""
        check_text(host, user)

        def work() -> int:
            self._drop(row for row in self._tables.all_given() if (row.host, row.user) == (host, user))
            return self._drop(self._tables.box(host, user))

        return await self._submit(work)

    async def delete_expired(self, host: str, now: float) -> int:
        """See `MessageStore.delete_expired`."""
        check_text(host)
        return await self._submit(lambda: self._drop(row for row in self._tables.boxes(host) if _expired(row, now)))

    async def delete_older(self, host: str, before: float) -> int:
        """See `MessageStore.delete_older`."""
        check_text(host)
        return await self._submit(lambda: self._drop(row for row in self._tables.boxes(host) if row.stamp < before))

    async def forget_delivered(self, before: float) -> int:
        """See `MessageStore.forget_delivered`."""

        def delivered(row: _Row) -> bool:
            session = self._tables.sessions.get(row.session or 0)
            return session is None or row.out_seq <= session.acknowledged

        return await self._submit(
            lambda: self._drop(row for row in self._tables.all_given() if row.stamp < before and delivered(row))
        )

    def _drop(self, rows: Iterable[_Row]) -> int:
        gone = list(rows)
        for row in gone:
            self._tables.drop(row)
        return len(gone)


class MemorySessions:
    """A `SessionStore` in a dictionary."""

    def __init__(self, submit: Submit, tables: Tables) -> None:
        self._submit = submit
        self._tables = tables

    def open(  # noqa: PLR0917 - the signature of the interface
        self, token: str, host: str, user: str, resource: str, owner: str, resumable: bool, state: bytes
    ) -> asyncio.Future[int]:
        """See `SessionStore.open`."""
        check_key(host, user)
        check_key(token, owner)
        check_text(resource)

        def work() -> int:
            tables = self._tables
            for id_, session in tables.sessions.items():
                if session.token == token:
                    if session.owner != owner:
                        raise ValueError("another owner has a session with this token")
                    return id_
            return tables.add_session(_Session(token, host, user, resource, owner, resumable, state, tables.now()))

        return self._submit(work)

    def update(self, id: int, state: bytes, *, resumable: bool | None = None) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.update`."""

        def change(session: _Session) -> None:
            session.state = bytes(state)
            if resumable is not None:
                session.resumable = resumable

        return self._change(id, change)

    def handled(self, id: int, count: int) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.handled`."""

        def change(session: _Session) -> None:
            session.handled = max(session.handled, count)

        return self._change(id, change)

    def acknowledged(self, id: int, count: int) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.acknowledged`."""

        def change(session: _Session) -> None:
            session.acknowledged = max(session.acknowledged, count)

        return self._change(id, change)

    def close(self, id: int) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.close`."""
        return self._submit(lambda: self._tables.sessions.pop(id, None) is not None)

    async def adopt(self, host: str, user: str, owner: str) -> list[Adopted]:
        """See `SessionStore.adopt`."""
        check_text(host, user)
        check_key(owner)

        def concerned(session: _Session) -> bool:
            return (session.host, session.user) == (host, user) and session.owner != owner

        return await self._submit(lambda: self._adopt(concerned, owner))

    async def adopt_from(self, dead_owner: str, owner: str, limit: int) -> list[Adopted]:
        """See `SessionStore.adopt_from`."""
        check_text(dead_owner)
        check_key(owner)
        return await self._submit(lambda: self._adopt(lambda session: session.owner == dead_owner, owner, limit))

    async def owners(self) -> dict[str, int]:
        """See `SessionStore.owners`."""

        def work() -> dict[str, int]:
            counts: dict[str, int] = {}
            for session in self._tables.sessions.values():
                counts[session.owner] = counts.get(session.owner, 0) + 1
            return counts

        return await self._submit(work)

    def _change(self, number: int, change: Callable[[_Session], None]) -> asyncio.Future[bool]:
        def work() -> bool:
            session = self._tables.sessions.get(number)
            if session is None:
                return False
            change(session)
            session.stamp = self._tables.now()
            return True

        return self._submit(work)

    def _adopt(self, concerned: Callable[[_Session], bool], owner: str, limit: int | None = None) -> list[Adopted]:
        tables = self._tables
        old = [number for number, session in tables.sessions.items() if concerned(session)][:limit]
        return [self._adopt_one(number, owner) for number in old]

    def _adopt_one(self, old: int, owner: str) -> Adopted:
        tables = self._tables
        session = tables.sessions.pop(old)
        session.owner = owner
        new = tables.add_session(session)
        left = [row for row in tables.given(old) if row.out_seq > session.acknowledged]
        for row in left:
            tables.give(row, new, row.out_seq)
        return Adopted(
            id=new,
            token=session.token,
            host=session.host,
            user=session.user,
            resource=session.resource,
            handled=session.handled,
            acknowledged=session.acknowledged,
            resumable=session.resumable,
            state=session.state,
            stamp=session.stamp,
            messages=[SessionMessage(row.out_seq, row.stamp, row.stanza) for row in left],
        )


def _expired(row: _Row, now: float) -> bool:
    return row.expires is not None and row.expires <= now

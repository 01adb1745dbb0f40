"""Sessions that outlive their worker: written down while they last, so that another one can adopt them (see :mod:`adoption`).

A session is in the storage from the moment at which its client enables stream management (XEP-0198), or becomes available.
Its counter of handled stanzas is stored before it is told to the client, so that whoever resumes the session elsewhere
goes on at the right place. See ADR 8.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.delivery import filler
from monktalk.xmpp.core.record import Record, encode
from monktalk.xmpp.core.redelivery import addressed_stanza, redeliver_one
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monktalk.common.jid import JID
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Held, Session
    from monktalk.xmpp.protocol.sm import StreamManagement
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.storage.interfaces import Move, SessionStore

log = get_logger(__name__)

FLUSH_SECONDS: Final = 0.2
"""How long changes of sessions are gathered before they are written."""

VERIFIED_AT_ONCE: Final = 200
"""Sessions that the storage is asked about at once, whether they are still ours."""

RETRY_SECONDS: Final = 1.0
"""When what could not be written is tried again."""


class Continuity:
    """Writes down the sessions of a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._opening: set[Session] = set()
        self._dirty: dict[Session, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[Session] = set()
        self._kept_homes: Counter[tuple[str, str]] = Counter()
        self._parting: set[asyncio.Future[bool]] = set()
        self._stopped = False

    @property
    def _owner(self) -> str:
        return self._server.bus.worker

    # -- life ----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Write what has changed; nothing is written down from now on."""
        if not self._stopped:
            self._stopped = True
            if self._timer is not None:
                self._timer.cancel()
            await self.flush()
            await self.parted()

    def part(self, session: Session) -> None:
        """The session is about to go on elsewhere: write down how far it has come."""
        record, sm = session.record, session.sm
        if record is None:
            return
        writes = [self._store.update(record.id, encode(session))]
        if sm is not None and record.adopted is None:
            writes.append(self._store.acknowledged(record.id, sm.acknowledged))
        for write in writes:
            self._parting.add(write)
            write.add_done_callback(self._has_parted)

    def _has_parted(self, write: asyncio.Future[bool]) -> None:
        self._parting.discard(write)
        if not write.cancelled() and write.exception() is not None:
            log.warning("session_not_written", reason=str(write.exception()))

    async def parted(self) -> None:
        """Wait until it is written down of all sessions how far they have come."""
        if self._parting:
            await asyncio.wait(self._parting)

    def verify(self) -> None:
        """Others may have adopted sessions of this worker: find out which."""
        if not self._stopped and not self._server.bus.alone:
            _ = self._server.spawn(self._verify())

    async def _verify(self) -> None:
        sessions = [session for host in self._server.hosts.values() for session in host.all_sessions()]
        for begin in range(0, len(sessions), VERIFIED_AT_ONCE):
            await asyncio.gather(*map(self.check, sessions[begin : begin + VERIFIED_AT_ONCE]))

    # -- written down --------------------------------------------------------------------------------------------

    async def enable(self, session: Session, *, resumable: bool) -> str:
        """Stream management is being enabled: returns the token. Raises :class:`StorageUnavailable`."""
        if session.record is None:
            await self._open(session, resumable=resumable)
        else:
            await self._store.update(session.record.id, encode(session), resumable=resumable)
        assert session.record is not None
        return session.record.token

    @property
    def _store(self) -> SessionStore:
        return self._server.storage.sessions

    async def _open(self, session: Session, *, resumable: bool) -> None:
        token = secrets.token_urlsafe(16)
        jid = session.jid
        number = await self._store.open(
            token, jid.domain, jid.local, jid.resource, self._owner, resumable, encode(session)
        )
        if session.record is None:
            session.record = Record(number, token)
        if session.closed:
            await self._store.close(number)

    def changed(self, session: Session) -> None:
        """Something has changed that an adopter has to know."""
        if not session.host.durable or session.closed or self._stopped:
            return
        self._dirty[session] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._dirty:
            _ = self._server.spawn(self.flush())

    async def flush(self) -> None:
        """Write what has changed now."""
        dirty, self._dirty = self._dirty, {}
        await asyncio.gather(*(self._write(session) for session in dirty if not session.closed))

    async def _write(self, session: Session) -> None:
        record = session.record
        try:
            if record is None:
                if session not in self._opening and session.presence is not None:
                    self._opening.add(session)
                    try:
                        await self._open(session, resumable=False)
                    finally:
                        self._opening.discard(session)
                return
            writes = [self._store.update(record.id, encode(session))]
            if session.sm is not None and record.adopted is None:
                writes.append(self._store.acknowledged(record.id, session.sm.acknowledged))
            if not all(await asyncio.gather(*writes)):
                self.superseded(session)
        except StorageUnavailable as error:
            log.warning("session_not_written", jid=session.jid.full, reason=str(error))
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.changed, session)

    def _updated(self, session: Session, future: asyncio.Future[bool]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self.changed(session)

    def acknowledged(self, session: Session) -> None:
        """The client has acknowledged stanzas: those of them that are stored count as delivered, soon."""
        record, sm = session.record, session.sm
        if record is None or sm is None or record.adopted is not None:
            return
        rows, had = record.rows, False
        while rows and rows[0] <= sm.acknowledged:
            rows.popleft()
            had = True
        if had:
            self.changed(session)

    # -- answers -------------------------------------------------------------------------------------------------

    def answer(self, session: Session) -> None:
        """Acknowledge what is handled, when that is stored."""
        record, sm = session.record, session.sm
        assert record is not None
        assert sm is not None
        if sm.handled <= record.handled:
            session.acknowledge(record.handled)
            return
        record.asked = True
        if not record.writing:
            self._write_handled(session, record, sm)

    def _write_handled(self, session: Session, record: Record, sm: StreamManagement) -> None:
        record.writing, record.asked = True, False
        if session in self._dirty:
            # What the stanzas have changed is written before it is told that they are handled.
            del self._dirty[session]
            self._store.update(record.id, encode(session)).add_done_callback(partial(self._updated, session))
        count = sm.handled
        future = self._store.handled(record.id, count)
        future.add_done_callback(partial(self._handled_written, session, record, count))

    def _handled_written(self, session: Session, record: Record, count: int, future: asyncio.Future[bool]) -> None:
        record.writing = False
        if future.cancelled() or session.record is not record:
            return
        error = future.exception()
        if error is not None:
            log.warning("count_not_written", jid=session.jid.full, reason=str(error))
            return
        if not future.result():
            self.superseded(session)
            return
        record.handled = max(record.handled, count)
        session.acknowledge(count)
        if record.asked and session.sm is not None:
            self.answer(session)

    async def counted(self, session: Session) -> bool:
        """Store what is handled so far; False when the session is another worker's by now. Raises StorageUnavailable."""
        record, sm = session.record, session.sm
        if record is None or sm is None or sm.handled <= record.handled:
            return True
        count = sm.handled
        if not await self._store.handled(record.id, count):
            self.superseded(session)
            return False
        record.handled = max(record.handled, count)
        return True

    # -- resumption ----------------------------------------------------------------------------------------------

    async def resume(self, session: Session, h: str | None) -> bool:
        """A client resumes: make counters and storage agree. False when there is nothing to resume any more.

        Raises :class:`StreamError` for a counter that can't be, :class:`StorageUnavailable`.
        """
        record, sm = session.record, session.sm
        if record is None or sm is None:
            return False
        if record.adopted is not None and not await self._renumber(session, record, sm, h):
            return False
        if session.closed or session.sm is not sm:
            return False
        sm.acknowledge(h)
        self.acknowledged(session)
        return await self.counted(session) and not session.closed

    async def _renumber(self, session: Session, record: Record, sm: StreamManagement, h: str | None) -> bool:
        """The client says how many stanzas it has had: from then on they are numbered as in its stream."""
        if record.renumbering is not None:
            await asyncio.shield(record.renumbering)  # for a connection before this one
            return not session.closed
        had = sm.acknowledged + sm.newly(h)
        record.renumbering = asyncio.get_running_loop().create_future()
        try:
            await session.held_sent()
            if not await self._server.storage.offline.renumber(record.id, had):
                self.superseded(session)
                return False
        finally:
            renumbered, record.renumbering = record.renumbering, None
            renumbered.set_result(None)
        if session.closed:
            return False
        numbered = list(zip(record.adopted or (), sm.queue, strict=True))
        stored = [raw for number, raw in numbered if number is not None and number > had]
        # What is not stored has no number there, so it comes last.
        others = [raw for number, raw in numbered if number is None]
        sm.queue = deque((*stored, *others))
        sm.size = sum(map(len, sm.queue))
        sm.acknowledged = had
        record.rows = deque(range(had + 1, had + 1 + len(stored)))
        record.adopted = None
        return True

    async def check(self, session: Session) -> None:
        """See whether the session is still ours."""
        if session.closed or session.record is None:
            return
        try:
            ours = await self._store.update(session.record.id, encode(session))
        except StorageUnavailable as error:
            log.warning("session_not_verified", jid=session.jid.full, reason=str(error))
            return
        if not ours:
            self.superseded(session)

    # -- the end -------------------------------------------------------------------------------------------------

    def ending(self, session: Session) -> None:
        """The session is about to end. Until that is stored, this worker stays its user's home: another would adopt it."""
        if session.record is not None and session not in self._ending:
            self._ending.add(session)
            self._kept_homes[session.host.domain, session.jid.local] += 1

    def keeps_home(self, host: VirtualHost, user: str) -> bool:
        """Whether sessions of the user are still to be ended in the storage."""
        return (host.domain, user) in self._kept_homes

    def ended(self, session: Session, sm: StreamManagement | None) -> None:
        """The session is over: find a place for what its client has not had, and forget it."""
        record = session.record
        assert record is not None
        _ = self._server.spawn(self._end_and_leave(session, record, sm))

    async def _end_and_leave(self, session: Session, record: Record, sm: StreamManagement | None) -> None:
        try:
            await self._end(session, record, sm)
        finally:
            if session in self._ending:
                self._ending.discard(session)
                key = session.host.domain, session.jid.local
                self._kept_homes[key] -= 1
                if not self._kept_homes[key]:
                    del self._kept_homes[key]
                    session.host.left(session.jid.local)

    async def _end(self, session: Session, record: Record, sm: StreamManagement | None) -> None:
        host, user = session.host, session.jid.local
        await session.held_sent()
        if sm is None or not sm.queue:
            await self._close(record.id, session.jid)
            return
        moves: list[Move] = []
        promised: list[tuple[Session, Held]] = []
        for number, stanza, row in _queued(session, record, sm):
            if row is None:
                redeliver_one(session, sm, stanza, number)
                continue
            other = self._heir(session, sm, stanza, number)
            if other is None:
                moves.append((row, None, 0))
            elif other.record is not None and other.sm is not None:
                held = other.hold(stanza.raw)
                promised.append((other, held))
                moves.append((row, other.record.id, held.number))
            else:
                other.send(stanza.raw)
        try:
            moved = await self._server.storage.offline.reassign(host.domain, user, record.id, moves, close=True)
        except StorageUnavailable as error:
            log.warning("session_not_closed", jid=session.jid.full, reason=str(error))
            moved = False
        for other, held in promised:
            if not moved:
                held.raw = filler(other)
            held.stored = moved
            held.ready = True
            other.flush_held()
        if moved and any(target is None for _, target, _ in moves):
            host.hooks.mailbox_filled(user)

    def _heir(self, session: Session, sm: StreamManagement, stanza: Stanza, number: int) -> Session | None:
        """The session of the user that gets what this one has not had; None when it goes back to the mailbox."""
        assert stanza.recipient is not None
        for other in session.host.available_sessions(session.jid.local):
            if other.record is not None and other.record.renumbering is not None:
                continue
            if (other.priority or 0) >= 0 and (stanza.recipient.resource or number <= sm.missed_by(other.jid.resource)):
                return other
        return None

    async def _close(self, number: int, jid: JID) -> None:
        try:
            await self._store.close(number)
        except StorageUnavailable as error:
            # It stays until this worker ends, and is adopted and ended by another one then.
            log.warning("session_not_closed", jid=jid.full, reason=str(error))

    def superseded(self, session: Session) -> None:
        """Another worker has adopted the session: it goes on there, and this one is nothing any more."""
        if not session.closed:
            log.warning("session_superseded", jid=session.jid.full)
            session.abandon("the session was adopted by another worker")


def _queued(session: Session, record: Record, sm: StreamManagement) -> Iterator[tuple[int, Stanza, int | None]]:
    """What is in the queue of a session: the number of each stanza in its stream, and that of its row if it is stored."""
    rows = set(record.rows)
    for place, raw in enumerate(sm.queue):
        number = sm.acknowledged + place + 1
        stanza = addressed_stanza(session, raw)
        if stanza is None:
            continue
        if record.adopted is not None:
            yield number, stanza, record.adopted[place]
        else:
            yield number, stanza, number if number in rows else None

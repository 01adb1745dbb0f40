"""Sessions that outlive their worker: written down while they last, adopted by another worker when theirs is gone.

A session is in the storage from the moment at which its client enables stream management (XEP-0198), or becomes available.
Its counter of handled stanzas is stored before it is told to the client, so that whoever resumes the session elsewhere
goes on at the right place. See ADR 8.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgpack

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster.bus import BusDown
from monktalk.xmpp.core.delivery import filler
from monktalk.xmpp.core.redelivery import addressed_stanza, redeliver_one
from monktalk.xmpp.core.session import Session
from monktalk.xmpp.protocol.sm import StreamManagement
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Held
    from monktalk.xmpp.storage.interfaces import Adopted, Move

log = get_logger(__name__)

FLUSH_SECONDS: Final = 0.2
"""How long changes of sessions are gathered before they are written."""

ADOPTED_AT_ONCE: Final = 50
"""Sessions of a dead worker that one survivor takes over before others have their turn."""

SWEEP_SECONDS: Final = 20.0
"""How often sessions are looked for whose owner nobody knows."""

VERIFIED_AT_ONCE: Final = 200
RETRY_SECONDS: Final = 1.0
FORGET_SECONDS: Final = 1800.0
"""Delivered messages are remembered for so long, and for as long as a session may be resumed, to recognise repetitions."""

PROVISIONAL: Final = 1 << 40
"""Numbers of stanzas for an adopted session begin here until its client says how many it has had."""


class Record:
    """What is stored of a session.

    ``rows`` are the numbers of the stanzas in the session's queue that are stored, in order. ``adopted`` is set between
    adoption and resumption: the number of each stanza in the queue as it is stored, None for those that are not. ``owed``
    is set when the client has asked for an acknowledgement of more than could be acknowledged then.
    """

    __slots__ = ("adopted", "asked", "handled", "id", "owed", "provisional", "rows", "token", "writing")

    def __init__(self, id_: int, token: str, handled: int = 0) -> None:
        self.id = id_
        self.token = token
        self.handled = handled
        self.rows: deque[int] = deque()
        self.adopted: list[int | None] | None = None
        self.provisional = PROVISIONAL
        self.writing = False
        self.asked = False
        self.owed = False

    def next_provisional(self) -> int:
        """A number behind all that have been given."""
        self.provisional += 1
        return self.provisional


class Continuity:
    """Writes down the sessions of a server, and adopts those of others."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._opening: set[Session] = set()
        self._dirty: dict[Session, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._at_home: dict[tuple[str, str], asyncio.Task[None] | None] = {}
        self._suspects: set[str] = set()
        self._adopting: set[str] = set()
        self._ending: set[Session] = set()
        self._kept_homes: Counter[tuple[str, str]] = Counter()
        self._parting: set[asyncio.Future[bool]] = set()
        self._stopped = False

    @property
    def _owner(self) -> str:
        return self._server.bus.worker

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look for sessions that nobody has: at once when this server is alone, else when the others are known."""
        if any(host.durable for host in self._server.hosts.values()):
            self._sweep_later(0.0 if self._server.bus.alone else SWEEP_SECONDS / 4)

    async def stop(self) -> None:
        """Write what has changed; nothing is written down or adopted from now on."""
        if not self._stopped:
            self._stopped = True
            for timer in (self._timer, self._sweep_timer):
                if timer is not None:
                    timer.cancel()
            await self._flushed()
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
    def _store(self) -> Any:
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
            _ = self._server.spawn(self._flushed())

    async def flush(self) -> None:
        """Write what has changed now."""
        await self._flushed()

    async def _flushed(self) -> None:
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
        had = sm.acknowledged + sm.newly(h)
        store = self._server.storage.offline
        known: list[int | None] | None = None
        while record.adopted is not None and known != record.adopted:
            # What comes meanwhile has a provisional number, and is renumbered in another turn.
            await session.held_sent()
            known = list(record.adopted)
            if not await store.renumber(record.id, had):
                self.superseded(session)
                return False
        if session.closed or known is None or record.adopted is None:
            return False
        stored = [raw for number, raw in zip(known, sm.queue, strict=True) if number is not None and number > had]
        # What is not stored has no number there, so it comes last.
        others = [raw for number, raw in zip(known, sm.queue, strict=True) if number is None]
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

    # -- adoption ------------------------------------------------------------------------------------------------

    async def come_home(self, host: VirtualHost, user: str) -> None:
        """This worker has become the user's home: adopt what sessions he has left elsewhere."""
        if not host.durable:
            return
        key = (host.domain, user)
        task = self._at_home.get(key, ...)
        if task is None:
            return
        if task is ...:
            task = self._at_home[key] = self._server.spawn(self.adopt(host, user))
        await asyncio.wait([task])
        if key in self._at_home:
            self._at_home[key] = None

    def left_home(self, host: VirtualHost, user: str) -> None:
        """This worker is the user's home no longer."""
        self._at_home.pop((host.domain, user), None)

    def adopt_user(self, host: VirtualHost, user: str) -> None:
        """Another worker has sessions of a user for us, whose home is here."""
        _ = self._server.spawn(self.adopt(host, user))

    async def adopt(self, host: VirtualHost, user: str) -> None:
        """Take over what sessions the user, whose home is here, has at other workers."""
        try:
            found = await self._store.adopt(host.domain, user, self._owner)
        except StorageUnavailable as error:
            log.warning("sessions_not_adopted", host=host.domain, user=user, reason=str(error))
            self._at_home.pop((host.domain, user), None)
            return
        for adopted in found:
            self._restore(host, adopted)

    def worker_gone(self, worker: str) -> None:
        """A worker is gone: the survivors take over its sessions."""
        if not self._stopped:
            self._start_adopting(worker)

    def _start_adopting(self, worker: str) -> None:
        if worker not in self._adopting:
            self._adopting.add(worker)
            _ = self._server.spawn(self._adopt_all(worker))

    async def _adopt_all(self, worker: str) -> None:
        count = 0
        try:
            while not self._stopped and not self._is_there(worker):
                found = await self._store.adopt_from(worker, self._owner, ADOPTED_AT_ONCE)
                if not found:
                    break
                count += len(found)
                for adopted in found:
                    await self._take_in(adopted)
        except StorageUnavailable as error:
            log.warning("sessions_not_adopted", worker=worker, reason=str(error))
        finally:
            self._adopting.discard(worker)
        if count:
            log.info("sessions_adopted", worker=worker, sessions=count)

    async def _take_in(self, adopted: Adopted) -> None:
        """Restore a session here when this worker is or becomes its user's home; else leave it to the one that is."""
        host = self._server.hosts.get(adopted.host)
        if host is None:
            return
        bus = self._server.bus
        try:
            home = await bus.arrive(adopted.host, adopted.user)
        except BusDown:
            home = None
        if home is None:
            self._restore(host, adopted)
        else:
            self._server.hub.offer(home, adopted.host, adopted.user)

    def _is_there(self, worker: str) -> bool:
        return any(peer.name == worker for peer in self._server.bus.peers())

    def _restore(self, host: VirtualHost, adopted: Adopted) -> None:
        """Make a session of what is stored. It is away, until its client resumes it."""
        jid = JID.of(adopted.user, adopted.host, adopted.resource)
        other = host.sessions.get(jid.local, {}).get(jid.resource)
        if other is not None and other.record is not None and other.record.token == adopted.token:
            other.abandon("it was adopted, and comes back")
        elif other is not None:
            other.end("replaced by one that was adopted")
        session = restored(host, jid, adopted)
        host.add_session(session)
        log.info("session_adopted", jid=jid.full, stanzas=len(adopted.messages), resumable=adopted.resumable)
        if adopted.resumable and session.sm is not None:
            self._server.resumable[adopted.token] = session
            self._server.hibernate(session)
        else:
            session.end("its worker is gone")
        host.hooks.mailbox_filled(jid.local)

    # -- sessions of nobody --------------------------------------------------------------------------------------

    def _sweep_later(self, seconds: float) -> None:
        self._sweep_timer = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._sweep_later(SWEEP_SECONDS)
        _ = self._server.spawn(self._look_for_orphans())

    async def _look_for_orphans(self) -> None:
        try:
            owners = set(await self._store.owners())
            options = max((host.stream_management.resume_time for host in self._server.hosts.values()), default=0)
            await self._server.storage.offline.forget_delivered(
                self._server.clock.now() - max(FORGET_SECONDS, 2 * options)
            )
        except StorageUnavailable as error:
            log.warning("sessions_not_swept", reason=str(error))
            return
        owners -= {peer.name for peer in self._server.bus.peers()}
        # One that has just started may not have been heard of.
        orphans = owners if self._server.bus.alone else owners & self._suspects
        self._suspects = owners
        for owner in orphans:
            self._start_adopting(owner)


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


def encode(session: Session) -> bytes:
    """What an adopter has to know of a session."""
    presence = session.presence
    facts: dict[str, Any] = {
        "presence": presence.raw if presence is not None else None,
        "priority": session.priority,
        "interested": session.interested,
        "directed": sorted(session.directed) if session.directed else [],
        "lang": session.lang,
        "peer": session.peer,
        "secure": session.secure,
        "bound_at": session.bound_at,
        "sm": session.sm is not None,
        "extra": {name: value for name, value in (session.extra or {}).items() if isinstance(value, str)},
    }
    packed: bytes = msgpack.packb(facts)
    return packed


def restored(host: VirtualHost, jid: JID, adopted: Adopted) -> Session:
    """The session that was written down. It has no connection."""
    facts = msgpack.unpackb(adopted.state)
    session = Session(host, jid, None, facts["lang"])
    session.peer, session.secure, session.bound_at = facts["peer"], facts["secure"], facts["bound_at"]
    session.interested = facts["interested"]
    session.directed = set(facts["directed"]) or None
    session.extra = facts["extra"] or None
    session.priority = facts["priority"]
    if facts["presence"] is not None:
        session.presence = Stanza.from_bytes(facts["presence"])
        session.presence.sender = jid
        session.presence.recipient = None
    record = session.record = Record(adopted.id, adopted.token, adopted.handled)
    if facts["sm"] or adopted.resumable:
        sm = session.sm = StreamManagement(adopted.token if adopted.resumable else None)
        sm.received = sm.answered = adopted.handled
        sm.acknowledged = adopted.acknowledged
        for message in adopted.messages:
            sm.sent(message.stanza)
        record.adopted = [message.out_seq for message in adopted.messages]
        if record.adopted:
            record.provisional = max(PROVISIONAL, *(number for number in record.adopted if number is not None))
    return session

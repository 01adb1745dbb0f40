"""Taking over sessions of workers that are gone: of one user when he comes, of a dead worker, of owners that nobody knows.

A session that is adopted is away, as if its client had lost the connection, until the client resumes it. See ADR 8.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster.bus import BusDown
from monktalk.xmpp.core.record import restored
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.storage.interfaces import Adopted, SessionStore

log = get_logger(__name__)

ADOPTED_AT_ONCE: Final = 50
"""Sessions of a dead worker that one survivor takes over before others have their turn."""

SWEEP_SECONDS: Final = 20.0
"""How often sessions are looked for whose owner nobody knows."""

FORGET_SECONDS: Final = 1800.0
"""Delivered messages are remembered for so long, and for as long as a session may be resumed, to recognise repetitions."""


class Adoption:
    """What a server does about the sessions of others."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._timer: asyncio.TimerHandle | None = None
        self._at_home: dict[tuple[str, str], asyncio.Task[None] | None] = {}
        self._suspects: set[str] = set()
        self._adopting: set[str] = set()
        self._nothing_left = False
        """This server is alone, and has adopted all that former ones have left."""
        self._stopped = False

    @property
    def _owner(self) -> str:
        return self._server.bus.worker

    @property
    def _store(self) -> SessionStore:
        return self._server.storage.sessions

    def start(self) -> None:
        """Look for sessions that nobody has: at once when this server is alone, else when the others are known."""
        if any(host.durable for host in self._server.hosts.values()):
            self._sweep_later(0.0 if self._server.bus.alone else SWEEP_SECONDS / 4)

    def stop(self) -> None:
        """Adopt nothing any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    # -- of one user ---------------------------------------------------------------------------------------------

    async def come_home(self, host: VirtualHost, user: str) -> None:
        """This worker has become the user's home: adopt what sessions he has left elsewhere."""
        if not host.durable or self._nothing_left:
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

    # -- of a dead worker ----------------------------------------------------------------------------------------

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
            log.warning("session_of_unknown_host", host=adopted.host, user=adopted.user)
            return
        while not self._stopped:
            try:
                home = await self._server.bus.arrive(adopted.host, adopted.user)
            except BusDown:
                continue  # it has waited; nobody is restored where his home may not be
            if home is None:
                self._restore(host, adopted)
            else:
                self._server.hub.offer(home, adopted.host, adopted.user)
            return

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
        self._timer = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._sweep_later(SWEEP_SECONDS)
        _ = self._server.spawn(self._look_for_orphans())

    async def _look_for_orphans(self) -> None:
        try:
            owners = set(await self._store.owners())
            if self._server.bus.peers()[0].name == self._owner:
                await self._forget_delivered()
        except StorageUnavailable as error:
            log.warning("sessions_not_swept", reason=str(error))
            return
        owners -= {peer.name for peer in self._server.bus.peers()}
        # One that has just started may not have been heard of.
        orphans = owners if self._server.bus.alone else owners & self._suspects
        self._suspects = owners
        for owner in orphans:
            self._start_adopting(owner)
        if self._server.bus.alone and not orphans:
            self._nothing_left = True
            self._at_home.clear()

    async def _forget_delivered(self) -> None:
        """One worker does it for all. Raises :class:`StorageUnavailable`."""
        longest = max((host.stream_management.resume_time for host in self._server.hosts.values()), default=0)
        before = self._server.clock.now() - max(FORGET_SECONDS, 2 * longest)
        await self._server.storage.offline.forget_delivered(before)

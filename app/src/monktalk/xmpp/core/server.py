"""The server: its hosts, what they share, and the routing between them (RFC 6120 section 10)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Protocol

from monktalk.common.clock import Clock, SystemClock
from monktalk.common.jid import JID, InvalidJID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core import administration
from monktalk.xmpp.core.adoption import Adoption
from monktalk.xmpp.core.auth.client import AuthClients
from monktalk.xmpp.core.auth.provider import AuthProvider
from monktalk.xmpp.core.auth.throttle import LoginThrottle
from monktalk.xmpp.core.calls import Calls
from monktalk.xmpp.core.continuity import Continuity
from monktalk.xmpp.core.draining import Draining
from monktalk.xmpp.core.exchange import Exchange
from monktalk.xmpp.core.host import VirtualHost
from monktalk.xmpp.core.iq import IqDispatcher
from monktalk.xmpp.core.loader import load_modules, unload_modules
from monktalk.xmpp.core.mailboxes import MailboxWatch
from monktalk.xmpp.core.telemetry import Telemetry
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.parser import ParserPool, XmlLimits
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, Stanza, error_reply

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from monktalk.common.config import Config
    from monktalk.xmpp.cluster.bus import Bus
    from monktalk.xmpp.core.module import Module
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.storage.interfaces import Storage

log = get_logger(__name__)


class TlsState(Protocol):
    """What the core asks of TLS."""

    @property
    def available(self) -> bool:
        """There is a certificate."""


class Server:
    """All hosts of one process.

    ``resumable`` finds a session by its resumption token, ``away`` holds those that wait for their client, with the timer
    that ends the wait.
    """

    def __init__(
        self,
        config: Config,
        modules: Mapping[str, type[Module]],
        storage: Storage,
        bus: Bus,
        tls: TlsState,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.module_types = modules
        self.storage = storage
        self.bus = bus
        self.node: str = config.section("cluster").node or socket.gethostname()
        self.tls = tls
        self.clock = clock or SystemClock()
        self.started = self.clock.now()
        limits = config.section("limits")
        self.parsers = ParserPool(XmlLimits(limits.depth, limits.attributes))
        self.throttle = LoginThrottle(limits, self.clock)
        self.iq = IqDispatcher(self)
        self.auth_clients = AuthClients()
        self.hosts: dict[str, VirtualHost] = {}
        self.calls = Calls(self)
        administration.offer(self)
        self.draining = Draining(self)
        self.hub = Exchange(self)
        self.exchange: Exchange | None = None if bus.alone else self.hub
        self.metrics = Telemetry(self)
        self.resumable: dict[str, Session] = {}
        self.away: dict[Session, asyncio.TimerHandle] = {}
        self.continuity = Continuity(self)
        self.adoption = Adoption(self)
        self.mailboxes = MailboxWatch(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: list[Session] = []
        self._request_timer: asyncio.TimerHandle | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the storage and load all hosts."""
        await self.storage.start()
        await self.bus.start(self.hub)
        self.storage.on_invalidate = lambda *what: self.bus.notify("invalidate", *what)
        self.bus.on_notice("invalidate", lambda _topic, what: self.storage.invalidate(*what))
        for domain in self.config.section("general").hosts:
            await self.add_host(domain)
        self.adoption.start()
        if self.exchange is not None:
            self.mailboxes.start()

    def _auth(self, domain: str) -> AuthProvider:
        settings = self.config.section("auth", host=domain)
        return AuthProvider(domain, settings, self.auth_clients, clock=self.clock, metrics=self.metrics.registry)

    async def add_host(self, domain: str) -> VirtualHost:
        """Serve one more domain, as the configuration has it."""
        host = VirtualHost(self, domain, self.config, self._auth(domain))
        try:
            await load_modules(host, self.module_types)
        except BaseException:
            await unload_modules(host)
            await host.auth.close()
            raise
        self.hosts[domain] = host
        return host

    async def reload_host(self, host: VirtualHost) -> None:
        """Apply the present configuration to a host; a changed authentication section makes a new client of the service."""
        settings = self.config.section("auth", host=host.domain)
        if settings != host.settings("auth"):
            old, host.auth = host.auth, self._auth(host.domain)
            await old.close()
        host.apply(self.config)

    async def remove_host(self, domain: str) -> None:
        """Serve a domain no more: its sessions end with ``host-gone``."""
        host = self.hosts.pop(domain)
        self._end_sessions(host.all_sessions(), StreamError("host-gone", "the domain is not served any more"))
        await self._settle(cancel=False)
        await unload_modules(host)
        await host.auth.close()

    async def stop(self) -> None:
        """End all sessions with ``system-shutdown``, finish what is under way, close everything."""
        for host in list(self.hosts.values()):
            self.leave_sessions(host.all_sessions(), StreamError("system-shutdown", "the server is being stopped"))
        await self._settle()
        self.mailboxes.stop()
        self.adoption.stop()
        await self.continuity.stop()
        for host in self.hosts.values():
            await unload_modules(host)
            await host.auth.close()
        if self._request_timer is not None:
            self._request_timer.cancel()
        self.hub.close()
        await self.bus.close()
        await self.storage.close()

    async def drain(self, seconds: float) -> int:
        """Take no new users, and lead the clients elsewhere in that time; returns how many sessions were ended."""
        return await self.draining.run(seconds)

    def undrain(self) -> None:
        """Take users again."""
        self.draining.stop()

    def leave_sessions(self, sessions: Iterable[Session], error: StreamError) -> None:
        """End sessions, but for those that go on at another worker, or at the next start."""
        ended = []
        for session in sessions:
            if session.resumable_elsewhere:
                session.abandon(error.text)
            else:
                ended.append(session)
        self._end_sessions(ended, error)

    @staticmethod
    def _end_sessions(sessions: Iterable[Session], error: StreamError) -> None:
        for session in sessions:
            if session.stream is not None:
                session.stream.fail(error)
            session.end(error.condition)

    async def _settle(self, seconds: float = 5.0, *, cancel: bool = True) -> None:
        """Wait for the tasks under way, but not for ever, and not for the one that waits."""
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            if not cancel:
                return
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task that the server keeps, and waits for when it stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- hosts ---------------------------------------------------------------------------------------------------

    @property
    def language(self) -> str:
        """The default language of streams."""
        language: str = self.config.section("general").language
        return language

    @property
    def default_domain(self) -> str:
        """The domain that errors come from when the peer has named none that is served."""
        return next(iter(self.hosts), "localhost")

    def host_for(self, to: str | None) -> VirtualHost | None:
        """The host that a stream header is addressed to."""
        if to is None:
            return None
        try:
            jid = JID.parse(to)
        except InvalidJID:
            return None
        return self.hosts.get(jid.domain) if not jid.local and not jid.resource else None

    # -- routing -------------------------------------------------------------------------------------------------

    def route(self, stanza: Stanza, source: VirtualHost) -> None:
        """Deliver a stanza of a local sender.

        Its ``sender`` and ``recipient`` are set; without a recipient it is for the sender's own account (RFC 6120
        section 10.3). Raises :class:`StanzaError` when it can't be delivered.
        """
        if stanza.name == MESSAGE:
            self.metrics.messages.value += 1
        elif stanza.name == IQ:
            self.metrics.iqs.value += 1
        else:
            self.metrics.presences.value += 1
        recipient = stanza.recipient
        if recipient is None:
            recipient = stanza.recipient = stanza.sender.to_bare()
        host = self.hosts.get(recipient.domain)
        if host is not source and (host is None or host.isolated or source.isolated):
            raise StanzaError("remote-server-not-found", "that domain can't be reached from here")
        host.deliver(stanza)

    def send_to(self, jid: JID, raw: bytes) -> bool:
        """Send a stanza that the server has made to the session with that full JID; False when there is none."""
        host = self.hosts.get(jid.domain)
        if host is None:
            return False
        resources = host.sessions.get(jid.local)
        if resources is None:
            return self.exchange is not None and self.exchange.carry_raw(host, jid, raw)
        session = resources.get(jid.resource)
        if session is None:
            return False
        session.send(raw)
        return True

    def bounce(self, stanza: Stanza, error: StanzaError) -> None:
        """Tell the sender of a stanza that it could not be delivered after all."""
        reply = error_reply(stanza, error)
        if reply is not None:
            self.send_to(stanza.sender, reply)

    # -- sessions that are away, acknowledgements ----------------------------------------------------------------

    def hibernate(self, session: Session) -> None:
        """A resumable session has lost its connection: keep it for a while."""
        delay = session.host.stream_management.resume_time
        loop = asyncio.get_running_loop()
        self.away[session] = loop.call_later(delay, session.end, "not resumed in time")
        log.info("session_away", jid=session.jid.full, seconds=delay)

    def awake(self, session: Session) -> None:
        """The session has been resumed."""
        timer = self.away.pop(session, None)
        if timer is not None:
            timer.cancel()

    def session_ended(self, session: Session) -> None:
        """Forget what is kept for a session beside the session table."""
        self.awake(session)
        if session.sm is not None and session.sm.token is not None:
            self.resumable.pop(session.sm.token, None)

    def request_later(self, session: Session) -> None:
        """Have the session ask for an acknowledgement soon. One timer serves all sessions."""
        self._requests.append(session)
        if self._request_timer is None:
            delay = session.host.stream_management.request_delay
            self._request_timer = asyncio.get_running_loop().call_later(delay, self._request_all)

    def _request_all(self) -> None:
        waiting, self._requests = self._requests, []
        self._request_timer = None
        for session in waiting:
            session.request_acknowledgement()

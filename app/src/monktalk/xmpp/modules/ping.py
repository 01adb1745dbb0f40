"""Pings in both directions: the server answers them, and asks clients that have been silent whether they are there."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from monktalk.common.config import Kind, Option
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.stanza import IQ, open_tag

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.link import Link
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)

_REQUEST: Final = f"><ping xmlns='{ns.PING}'/></iq>".encode()
_MOST_PARTS: Final = 15


class _Asked(NamedTuple):
    """A ping that may be answered until ``deadline``; ``active`` tells when something came on ``link`` before it."""

    deadline: float
    link: Link
    active: int


class Ping(Module):
    """XMPP Ping (XEP-0199), both ways.

    The sessions are looked at in turn, a part of them every second, each at least four times in an interval. Any input
    counts as an answer. A client that gives none loses its connection; with stream management it may resume the session.
    """

    name = "ping"
    features = (ns.PING,)
    account_features = (ns.PING,)
    options = (
        Option(
            "interval",
            Kind.DURATION,
            "60 s",
            minimum=0,
            doc="A client from which nothing has come for so long is sent a ping; 0 for never.",
        ),
        Option(
            "timeout",
            Kind.DURATION,
            "30 s",
            minimum=1,
            doc="A connection on which nothing comes for so long after it ends.",
        ),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._ids = count(1)
        self._part = 0
        self._parts: list[set[Session]] = []
        self._asked: dict[Session, _Asked] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._spread()

    async def start(self) -> None:
        """Begin to look at sessions."""
        self._timer = asyncio.get_running_loop().call_later(1.0, self._tick)

    async def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def reload(self, settings: Settings) -> None:
        """Another interval may need another number of parts."""
        super().reload(settings)
        self._spread()

    @iq("get", ns.PING, "ping", to=(Target.HOST, Target.SELF))
    def answer(self, _request: Stanza, _session: Session | None) -> Reply:
        """Answer a ping."""
        return None

    @HostHooks.session_bound.handler()
    def opened(self, session: Session) -> None:
        """Look at the session from now on."""
        self._part_of(session).add(session)

    @HostHooks.session_closed.handler()
    def closed(self, session: Session, _reason: str) -> None:
        """Forget the session."""
        self._part_of(session).discard(session)
        self._asked.pop(session, None)

    def _spread(self) -> None:
        """Divide the sessions, so that each is looked at four times in an interval."""
        parts = max(1, min(_MOST_PARTS, int(self.settings.interval / 4)))
        self._parts = [set() for _ in range(parts)]
        for session in self.host.all_sessions():
            self._part_of(session).add(session)

    def _part_of(self, session: Session) -> set[Session]:
        return self._parts[id(session) // 64 % len(self._parts)]

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(1.0, self._tick)
        try:
            self.look()
        except Exception:
            log.exception("pinging_failed", host=self.host.domain)

    def look(self) -> None:
        """Look at the next part of the sessions: ping silent clients, and end connections on which nothing comes any more."""
        if not self.settings.interval:
            return
        now = self.host.server.clock.monotonic()
        self._part = (self._part + 1) % len(self._parts)
        for session in list(self._parts[self._part]):
            link = session.link
            if link is None or link.idle < self.settings.interval:
                self._asked.pop(session, None)
                continue
            asked = self._asked.get(session)
            if asked is None or asked.link is not link or asked.active != link.active:
                self._ask(session, link, now)
            elif asked.deadline <= now:
                self._give_up(session, link)

    def _ask(self, session: Session, link: Link, now: float) -> None:
        patience = self.settings.timeout
        idle_time = self.host.limits.idle_time
        if idle_time:
            patience = min(patience, max(1.0, idle_time - link.idle))
        self._asked[session] = _Asked(now + patience, link, link.active)
        number = f"ping-{next(self._ids)}"
        addresses = {"from": self.host.domain, "to": session.jid.full}
        session.send(open_tag(IQ, {**addresses, "type": "get", "id": number}) + _REQUEST)

    def _give_up(self, session: Session, link: Link) -> None:
        del self._asked[session]
        if session.stream is not None:
            log.info("ping_not_answered", jid=session.jid.full, idle=link.idle)
            session.stream.fail(StreamError("connection-timeout", "the ping was not answered"), resumable=True)

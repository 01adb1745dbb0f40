"""A module for tests of the core: it keeps requests waiting until the test lets them through, and fails on demand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Reply, Target, iq
from monktalk.xmpp.protocol.xmltree import element
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza

NS = "urn:example:gate"
HERE = (Target.HOST, Target.SELF)
WAIT = f"<wait xmlns='{NS}'/>"
NOW = f"<now xmlns='{NS}'/>"


class Gate(Module):
    """Requests that wait, requests that fail, and a list of what was seen."""

    name = "gate"
    features = (NS,)

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self.gate = asyncio.Event()
        self.seen: list[str] = []
        """What happened: ``message:ID``, ``wait:ID`` (let through), ``closed:RESOURCE:REASON`` …"""
        self.fault: Exception | None = None
        """Raised by the hooks for messages and by ``<fail/>``."""

    @iq("get", NS, "wait", to=HERE)
    async def wait(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer when the gate is open."""
        await self.gate.wait()
        self.seen.append(f"wait:{request.id}")
        if self.fault is not None:
            raise self.fault
        return element(NS, "done")

    @iq("get", NS, "now", to=(*HERE, Target.USER))
    def now(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer at once."""
        self.seen.append(f"now:{request.id}")
        return f"<done xmlns='{NS}'/>".encode()

    @iq("set", NS, "nothing", to=HERE)
    def nothing(self, _request: Stanza, _session: Session | None) -> Reply:
        """Answer with an empty result."""
        return None

    @iq("get", NS, "fail", to=HERE)
    def fail(self, _request: Stanza, _session: Session | None) -> Reply:
        """Raise what the test has set."""
        assert self.fault is not None
        raise self.fault

    @HostHooks.user_message.handler()
    def user_message(self, session: Session, stanza: Stanza) -> bool:
        """Note the message. One with the id ``again`` has the session wait, and comes a second time then."""
        self.seen.append(f"message:{stanza.id}")
        if self.fault is not None and stanza.id == "faulty":
            raise self.fault
        if stanza.id == "again" and not self.gate.is_set():
            session.run_before(stanza, self._open())
            return True
        return False

    async def _open(self) -> None:
        await self.gate.wait()
        if isinstance(self.fault, StorageUnavailable):
            raise self.fault

    @HostHooks.user_presence.handler()
    def user_presence(self, session: Session, stanza: Stanza) -> bool:
        """Set the priority, as far as the core cares for presence."""
        self.seen.append(f"presence:{session.jid.resource}:{stanza.type}")
        session.priority = 0 if stanza.type is None else None
        return True

    @HostHooks.undelivered_message.handler()
    def undelivered(self, stanza: Stanza, user: str) -> bool:
        """Take messages that nobody takes, for accounts called ``keeper``."""
        self.seen.append(f"undelivered:{user}:{stanza.id}")
        return user == "keeper"

    @HostHooks.session_closed.handler()
    def session_closed(self, session: Session, reason: str) -> None:
        """Note the end of a session."""
        self.seen.append(f"closed:{session.jid.resource}:{reason}")

    def let_through(self) -> None:
        """Answer all requests that wait."""
        self.gate.set()

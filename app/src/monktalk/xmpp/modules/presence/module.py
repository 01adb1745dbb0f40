"""The exchange of presence: broadcast, probes, directed presence, and the end of sessions (RFC 6121 section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from monktalk.common.config import Kind, Option
from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.iq import STORAGE_DOWN
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.presence import states
from monktalk.xmpp.modules.presence.courier import Courier
from monktalk.xmpp.modules.presence.inbox import Inboxes
from monktalk.xmpp.modules.presence.stanzas import (
    AVAILABLE,
    ERROR,
    PROBE,
    UNAVAILABLE,
    addressed,
    addressed_bytes,
    kept,
    make,
    priority_of,
    unavailable,
)
from monktalk.xmpp.modules.presence.subscriptions import Subscriptions
from monktalk.xmpp.modules.roster import Roster, RosterModule
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)

FAREWELL_RETRIES: Final = (1.0, 5.0, 15.0, 60.0)
"""Seconds after which a roster is asked for again, to tell contacts that a session has ended."""

_PRE_APPROVAL: Final = f"<sub xmlns='{ns.PRE_APPROVAL}'/>".encode()


class Presence(Module):
    """Presence: subscriptions, broadcast, probes and directed presence (RFC 6121 sections 3 and 4)."""

    name = "presence"
    requires = ("roster",)
    options = (
        Option(
            "max_pending",
            Kind.INTEGER,
            100,
            minimum=1,
            doc="Subscription requests kept for an account until they are answered. One more reaches only those clients "
            "that are available when it comes.",
        ),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._courier = Courier(host)
        self._subscriptions = Subscriptions(host, self._courier)
        self._inboxes = Inboxes(host.server, self._receive)

    @property
    def _rosters(self) -> RosterModule:
        return RosterModule.of(self.host)

    # -- for other modules -------------------------------------------------------------------------------------------

    async def refresh(self, user: str) -> None:
        """Broadcast the presence of the user's available sessions again, because ``outgoing_presence`` would change it.

        The stanza that is handed through that hook is the one that was broadcast last, with what was added to it then.
        Raises :class:`StorageUnavailable`.
        """
        roster = await self._rosters.get_roster(user)
        for session in self._courier.visible(user):
            assert session.presence is not None
            changed = self.host.hooks.outgoing_presence(session.presence, session)
            if changed is not None:
                session.presence = kept(changed)
                self._broadcast(session, session.presence, roster)

    # -- from a client -----------------------------------------------------------------------------------------------

    @HostHooks.user_presence.handler()
    def from_client(self, session: Session, stanza: Stanza) -> bool:
        """A user of the host sends presence."""
        kind = stanza.attributes.get("type")
        if kind in (AVAILABLE, UNAVAILABLE):
            if stanza.recipient is not None:
                self._direct(session, stanza, stanza.recipient)
            elif kind is AVAILABLE:
                self._available(session, stanza)
            else:
                self._with_roster(session, stanza, self._unavailable)
        elif kind == ERROR:
            if stanza.recipient is not None:
                self.host.server.route(stanza, self.host)
        elif kind not in states.KINDS and kind != PROBE:
            raise StanzaError("bad-request", "this is no type of presence")
        elif stanza.recipient is None:
            raise StanzaError("bad-request", f"presence of type {kind} needs an address")
        elif kind == PROBE:
            self.host.server.route(stanza, self.host)
        else:
            session.run(self._answering(stanza, self._manage(session, stanza)))
        return True

    async def _answering(self, stanza: Stanza, work: Awaitable[None]) -> None:
        """Do work that a client's stanza has caused, and tell the client when it fails."""
        try:
            await work
        except StanzaError as error:
            self.host.server.bounce(stanza, error)
        except StorageUnavailable:
            self.host.server.bounce(stanza, STORAGE_DOWN)

    async def _manage(self, session: Session, stanza: Stanza) -> None:
        contact = await self._subscriptions.send(session, stanza)
        # A contact's answer may come at once. What the client sends next is to find both rosters as they are then.
        await self._settled(contact)
        await self._settled(session.jid)

    async def _settled(self, account: JID) -> None:
        peer = self._courier.peer(account.domain)
        module = peer.modules.get(self.name) if peer is not None else None
        if isinstance(module, Presence):
            await module._inboxes.settled(account.local)

    def _with_roster(self, session: Session, stanza: Stanza, act: Act) -> None:
        """Call ``act`` with the roster of the session's user: at once, or after the storage has given it."""
        roster = self._rosters.peek(session.jid.local)
        if roster is not None:
            following = act(session, stanza, roster)
            if following is not None:
                session.run(following)
        else:
            session.run(self._answering(stanza, self._read_and_act(session, stanza, act)))

    async def _read_and_act(self, session: Session, stanza: Stanza, act: Act) -> None:
        following = act(session, stanza, await self._rosters.get_roster(session.jid.local))
        if following is not None:
            await following

    # -- broadcast -----------------------------------------------------------------------------------------------------

    def _available(self, session: Session, stanza: Stanza) -> None:
        priority = priority_of(stanza)
        changed = self.host.hooks.outgoing_presence(stanza, session)
        if changed is None:
            return

        def announce(session: Session, stanza: Stanza, roster: Roster) -> Coroutine[Any, Any, None] | None:
            return self._announce(session, changed, priority, roster)

        self._with_roster(session, stanza, announce)

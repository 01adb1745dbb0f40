"""The exchange of presence: broadcast, probes, directed presence, and the end of sessions (RFC 6121 section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.config import Kind, Option
from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.iq import STORAGE_DOWN
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.presence import states
from monktalk.xmpp.modules.presence.courier import Courier
from monktalk.xmpp.modules.presence.inbox import Inboxes
from monktalk.xmpp.modules.presence.probes import Probes
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
from monktalk.xmpp.modules.presence.subscriptions import RECEIVED, Subscriptions
from monktalk.xmpp.modules.roster import EMPTY, Roster, RosterModule
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza

Work = Coroutine[Any, Any, None]
"""What is left to be waited for."""

log = get_logger(__name__)

STRANGER_TIME: Final = 0.05
"""Seconds that a subscription stanza to a stranger takes, before what the client sends next is handled.

The contact's server deals with it meanwhile, in a time that would tell whether there is such an account."""

FAREWELL_RETRIES: Final = (1.0, 5.0, 15.0, 60.0)
"""Seconds after which a roster is asked for again, to tell contacts that a session has ended."""

_ANNOUNCED: Final = "presence.announced"
"""The topic of a note that a subscriber of a user has come online."""

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
        self._rosters = RosterModule.of(host)
        self._courier = Courier(host)
        self._subscriptions = Subscriptions(host, self._rosters, self._courier)
        self._probes = Probes(host, self._rosters, self._courier)
        self._inboxes = Inboxes(host.server, self._receive)

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
                self._with_roster(session, stanza, lambda roster: self._depart(session, stanza, roster))
        elif kind == ERROR:
            if stanza.recipient is not None:
                self.host.server.route(stanza, self.host)
        elif kind not in states.KINDS and kind != PROBE:
            raise StanzaError("bad-request", "this is no type of presence")
        elif stanza.recipient is None:
            raise StanzaError("bad-request", f"presence of type {kind} needs an address")
        elif kind == PROBE:
            self._with_roster(session, stanza, lambda roster: self._probe(stanza, roster))
        else:
            session.run(self._answering(stanza, self._manage(session, stanza)))
        return True

    async def _answering(self, stanza: Stanza, work: Awaitable[None]) -> None:
        """Do what a client's stanza has asked for, and tell the client when it fails."""
        try:
            await work
        except StanzaError as error:
            self.host.server.bounce(stanza, error)
        except StorageUnavailable:
            self.host.server.bounce(stanza, STORAGE_DOWN)

    async def _manage(self, session: Session, stanza: Stanza) -> None:
        """A stanza that manages a subscription (section 3), with all its consequences on this server."""
        # What the contact has sent before is what the user answers to.
        await self._settled(session.jid)
        contact, acquainted = await self._subscriptions.send(session, stanza)
        if acquainted:
            await self._settled(contact)
        else:
            await asyncio.sleep(STRANGER_TIME)
        await self._settled(session.jid)

    def _probe(self, stanza: Stanza, roster: Roster) -> Work | None:
        """A client asks by itself for the presence of somebody.

        One who is a stranger by his own roster is answered without a look at the other one, which would take another time
        for accounts that are absent, offline and online.
        """
        contact = stanza.recipient
        assert contact is not None
        self._courier.demand(contact.domain)
        item = roster.items.get(contact.bare)
        module = self._at(contact)
        elsewhere = self.host.server.exchange is not None and contact.local not in self.host.sessions
        if module is None or elsewhere or contact.bare == stanza.sender.bare or (item is not None and item.to):
            self.host.server.route(stanza, self.host)
            return self._settled(contact)
        module._probes.answer_stranger(stanza)  # noqa: SLF001 - the same class
        return None

    def _at(self, account: JID) -> Presence | None:
        """The module at the host of an account, if stanzas can get there."""
        peer = self._courier.peer(account.domain)
        module = peer.modules.get(self.name) if peer is not None else None
        return module if isinstance(module, Presence) else None

    async def _settled(self, account: JID) -> None:
        """Wait until the presence that has been routed to an account is dealt with."""
        module = self._at(account)
        if module is not None:
            await module._inboxes.settled(account.local)  # noqa: SLF001 - the same class

    def _with_roster(self, session: Session, stanza: Stanza, act: Callable[[Roster], Work | None]) -> None:
        """Call ``act`` with the roster of the session's user: at once, or when the storage has given it.

        What ``act`` returns is waited for before anything else that the client sends.
        """
        roster = self._rosters.peek(session.jid.local)
        if roster is None:
            session.run(self._answering(stanza, self._read_and_act(session.jid.local, act)))
            return
        work = act(roster)
        if work is not None:
            session.run(work)

    async def _read_and_act(self, user: str, act: Callable[[Roster], Work | None]) -> None:
        work = act(await self._rosters.get_roster(user))
        if work is not None:
            await work

    # -- broadcast ---------------------------------------------------------------------------------------------------

    def _available(self, session: Session, stanza: Stanza) -> None:
        """Initial presence or a change of it (sections 4.2.2 and 4.4.2)."""
        priority = priority_of(stanza)
        changed = self.host.hooks.outgoing_presence(stanza, session)
        if changed is not None:
            presence = kept(changed)
            self._with_roster(session, stanza, lambda roster: self._announce(session, presence, priority, roster))

    def _announce(self, session: Session, presence: Stanza, priority: int, roster: Roster) -> Work | None:
        if session.closed:
            return None
        initial = session.presence is None
        ready = priority >= 0 and (session.priority is None or session.priority < 0)
        session.priority = priority
        session.presence = presence
        if ready:
            self.host.takes_messages(session)
        self._broadcast(session, presence, roster)
        if initial:
            self._inform(session, roster)
        available = self.host.hooks.session_available
        return available(session) if ready and available.handlers else None

    def _broadcast(self, session: Session, presence: Stanza, roster: Roster) -> None:
        """Send it to the user's own available resources, this one included, and to his subscribers."""
        own = addressed_bytes(presence, session.jid.to_bare())
        for other in self.host.available_sessions(session.jid.local):
            other.send(own)
        self._courier.broadcast(presence, roster.subscribers)

    def _inform(self, session: Session, roster: Roster) -> None:
        """Tell a session that has become available who is there, and who waits for an answer."""
        for other in self._courier.visible(session.jid.local):
            if other is not session and other.presence is not None:
                session.send(addressed_bytes(other.presence, session.jid))
        for contact in roster.subscriptions:
            if self._courier.online(contact) is not None:
                jid = JID.parse(contact)
                module = self._at(jid)
                if module is not None:
                    module.announced(jid.local, session.jid)
        self._subscriptions.remind(session, roster)

    def announced(self, user: str, watcher: JID) -> None:
        """A resource that is subscribed to ``user``, as its own roster says, has come online."""
        exchange = self.host.server.exchange
        if exchange is None or user in self.host.sessions:
            self._probes.announced(user, watcher)
        else:
            exchange.tell(self.host, user, _ANNOUNCED, watcher.full)

    @HostHooks.note.handler()
    def told(self, user: str, topic: str, arguments: tuple[Any, ...]) -> bool:
        """Another worker tells of a subscriber who has come online there, or of a subscription that it has dealt with."""
        if topic == _ANNOUNCED:
            self._probes.announced(user, JID.parse(arguments[0]))
        elif topic == RECEIVED:
            self._subscriptions.told(user, arguments)
        else:
            return False
        return True

    def _depart(self, session: Session, farewell: Stanza, roster: Roster) -> None:
        """Unavailable presence (section 4.5.2), which goes to those who were sent directed presence as well."""
        if session.presence is not None:
            self._broadcast(session, farewell, roster)
        session.priority = None
        session.presence = None
        directed, session.directed = session.directed, None
        for address in directed or ():
            self._courier.route(addressed(farewell, JID.parse(address)))

    @HostHooks.session_closed.handler()
    def closed(self, session: Session, reason: str) -> None:
        """A session has ended: it may not have said that it is unavailable."""
        if session.presence is None and not session.directed:
            return
        farewell = unavailable(session.jid)
        roster = self._rosters.peek(session.jid.local)
        if roster is None and session.presence is not None:
            _ = self.host.server.spawn(self._tell_subscribers(session.jid, farewell))
        self._depart(session, farewell, roster or EMPTY)

    async def _tell_subscribers(self, jid: JID, farewell: Stanza) -> None:
        """Tell them when the storage has said who they are, unless the resource is there again."""
        for delay in (*FAREWELL_RETRIES, None):
            try:
                roster = await self._rosters.get_roster(jid.local)
            except StorageUnavailable as error:
                if delay is None:
                    log.warning("subscribers_not_told", jid=jid.full, reason=str(error))
                    return
                await asyncio.sleep(delay)
            else:
                break
        successor = self.host.sessions.get(jid.local, {}).get(jid.resource)
        if successor is None or successor.presence is None:
            self._courier.broadcast(farewell, roster.subscribers)

    # -- directed presence -------------------------------------------------------------------------------------------

    def _direct(self, session: Session, stanza: Stanza, to: JID) -> None:
        """Presence for one entity (section 4.6)."""
        if stanza.attributes.get("type") == UNAVAILABLE:
            if session.directed is not None:
                session.directed.discard(to.full)
            self.host.server.route(stanza, self.host)
            return
        changed = self.host.hooks.outgoing_presence(stanza, session)
        if changed is None:
            return
        remember = not self._hears_of_end(session, to)
        if remember and session.directed is not None and to.full not in session.directed:
            limit: int = self.host.limits.directed_presence
            if len(session.directed) >= limit:
                raise StanzaError("resource-constraint", f"directed presence goes to {limit} addresses at most")
        self.host.server.route(changed, self.host)
        if remember:
            if session.directed is None:
                session.directed = set()
            session.directed.add(to.full)

    def _hears_of_end(self, session: Session, to: JID) -> bool:
        """Whether the entity is told anyway when the session ends (section 4.6.3)."""
        if session.presence is None:
            return False
        if to.bare == session.jid.bare:
            return True
        roster = self._rosters.peek(session.jid.local)
        return roster is not None and roster.shows_presence_to(to.bare)

    # -- from others -------------------------------------------------------------------------------------------------

    @HostHooks.incoming_presence.handler(priority=100)
    def for_user(self, stanza: Stanza) -> bool:
        """Presence has come for the host or for one of its users, in order behind what waits for him already.

        It comes last of all handlers: what waits is not shown to the others once more.
        """
        assert stanza.recipient is not None
        user, kind = stanza.recipient.local, stanza.attributes.get("type")
        if not user:
            self._for_host(stanza)
        elif self._inboxes.busy(user) or kind in states.KINDS:
            self._inboxes.put(user, stanza)
        elif kind == PROBE:
            roster = self._rosters.peek(user)
            if roster is not None:
                self._probes.answer(stanza, roster)
            else:
                self._inboxes.put(user, stanza)
        else:
            # An error about what a resource has sent is for that resource alone (RFC 6121 section 8.5.2).
            return kind == ERROR and not stanza.recipient.resource
        return True

    def _for_host(self, stanza: Stanza) -> None:
        """A host has no presence: whoever asks for it is refused, so that he does not wait for ever."""
        kind = stanza.attributes.get("type")
        if kind == PROBE:
            self._probes.refuse(stanza)
        elif kind == states.SUBSCRIBE:
            self._courier.route(make(self.host.jid, stanza.sender.to_bare(), states.UNSUBSCRIBED))

    async def _receive(self, stanza: Stanza) -> None:
        """Handle what had to wait."""
        kind = stanza.attributes.get("type")
        assert stanza.recipient is not None
        if kind in states.KINDS:
            await self._answering(stanza, self._subscriptions.receive(stanza, self.settings.max_pending))
        elif kind == PROBE:
            await self._answering(stanza, self._read_and_answer(stanza, stanza.recipient.local))
        elif kind != ERROR or stanza.recipient.resource:
            self.host.deliver_presence(stanza)

    async def _read_and_answer(self, probe: Stanza, user: str) -> None:
        self._probes.answer(probe, await self._rosters.get_roster(user))

    # -- contacts and features ---------------------------------------------------------------------------------------

    @HostHooks.contact_removed.handler()
    async def contact_removed(self, user: str, contact: str, relation: frozenset[str]) -> None:
        """A user has removed a contact, or his account is gone."""
        jid = JID.parse(contact)
        self._subscriptions.end(user, jid, relation)
        if relation - {"ask"}:
            await self._settled(jid)

    @HostHooks.stream_features.handler()
    def announce_pre_approval(self, stream: ClientStream, features: list[bytes]) -> None:
        """Tell authenticated clients that requests may be approved in advance (section 3.4.1)."""
        if stream.user is not None:
            features.append(_PRE_APPROVAL)

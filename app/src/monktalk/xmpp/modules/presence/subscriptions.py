"""Presence subscriptions: what the server does with the four types of stanzas that manage them (RFC 6121 section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.auth.errors import AuthUnavailable
from monktalk.xmpp.modules.presence import states
from monktalk.xmpp.modules.presence.stanzas import make, request_payload, stamped
from monktalk.xmpp.modules.presence.states import SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBE, UNSUBSCRIBED, Outcome
from monktalk.xmpp.protocol.errors import StanzaError

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.modules.presence.courier import Courier
    from monktalk.xmpp.modules.roster import Change, Roster, RosterModule
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)

RECEIVED: Final = "presence.received"
"""The topic of a note that another worker has taken a stanza for a user who had no home then."""


class Subscriptions:
    """Applies the state machine (see :mod:`states`) to the rosters of one host, and tells those concerned."""

    def __init__(self, host: VirtualHost, rosters: RosterModule, courier: Courier) -> None:
        self._host = host
        self._rosters = rosters
        self._courier = courier

    async def send(self, session: Session, stanza: Stanza) -> tuple[JID, bool]:
        """A user sends such a stanza. Returns the contact's bare JID, and whether the user knows that he exists.

        Raises :class:`StanzaError` for what is refused, :class:`StorageUnavailable`.
        """
        kind, user = stanza.attributes["type"], session.jid.local
        assert stanza.recipient is not None
        contact = stanza.recipient.to_bare()
        if contact.bare == session.jid.bare:
            raise StanzaError("not-allowed", "everybody is subscribed to his own presence, and stays so")
        if kind == SUBSCRIBE:
            # A request that nobody will ever answer leaves no trace in the roster.
            self._courier.demand(contact.domain)
        change, outcome = await self._apply(user, lambda roster: states.outbound(roster, kind, contact.bare))
        if kind == UNSUBSCRIBED and change.before.shows_presence_to(contact.bare):
            # While the contact is still subscribed (section 3.2.2).
            self._courier.conceal(user, contact)
        if outcome.passed_on:
            self._courier.route(stamped(stanza, session.jid, contact))
        self._push(user, contact.bare, change)
        if kind == SUBSCRIBED and outcome.passed_on:
            self._courier.reveal(user, contact)
        return contact, not outcome.passed_on or bool(change.before.relation(contact.bare) - {"ask"})

    async def receive(self, stanza: Stanza, max_pending: int) -> None:
        """Such a stanza has come for a user of the host.

        Raises :class:`StanzaError`, :class:`StorageUnavailable`.
        """
        kind, contact = stanza.attributes["type"], stanza.sender.to_bare()
        assert stanza.recipient is not None
        user, own = stanza.recipient.local, stanza.recipient.to_bare()
        if kind == SUBSCRIBE and not await self._exists(user):
            # Silence, as from somebody who does not answer: nobody learns which accounts there are (section 3.1.3).
            return
        payload = request_payload(stanza) if kind == SUBSCRIBE else ""
        change, outcome = await self._apply(
            user, lambda roster: states.inbound(roster, kind, contact.bare, payload, max_pending)
        )
        if outcome.full:
            log.info("subscription_request_not_kept", user=own, contact=contact, waiting=max_pending)
        revoked = kind == UNSUBSCRIBE and change.before.shows_presence_to(contact.bare)
        raw = stanza.raw if outcome.passed_on else b""
        self._deliver(user, kind, raw)
        if outcome.granted:
            self._courier.route(make(own, contact, SUBSCRIBED))
        self._push(user, contact.bare, change)
        self._show(user, contact, granted=outcome.granted, revoked=revoked)
        exchange = self._host.server.exchange
        if exchange is not None and user not in self._host.sessions and (raw or outcome.granted or revoked):
            # He may have come meanwhile, at another worker.
            exchange.tell(self._host, user, RECEIVED, kind, contact.bare, raw, outcome.granted, revoked)

    def told(self, user: str, arguments: tuple[Any, ...]) -> None:
        """Another worker has taken a stanza for a user who is here (see :data:`RECEIVED`)."""
        kind, contact, raw, granted, revoked = arguments[:5]
        self._deliver(user, kind, raw)
        self._show(user, JID.parse(contact), granted=granted, revoked=revoked)

    def _show(self, user: str, contact: JID, *, granted: bool, revoked: bool) -> None:
        if granted:
            self._courier.reveal(user, contact)
        if revoked:
            self._courier.conceal(user, contact)

    def remind(self, session: Session, roster: Roster) -> None:
        """Deliver the requests that wait for an answer to a session that has become available (section 3.1.3)."""
        own = session.jid.to_bare()
        for contact, payload in roster.requests.items():
            session.send(make(JID.parse(contact), own, SUBSCRIBE, payload).raw)

    def end(self, user: str, contact: JID, relation: frozenset[str]) -> None:
        """A user has removed a contact: end what there was (section 2.5.2; see the hook ``contact_removed``)."""
        own = JID.of(user, self._host.domain)
        if "from" in relation:
            self._courier.conceal(user, contact)
        if relation & {"to", "ask"}:
            self._courier.route(make(own, contact, UNSUBSCRIBE))
        if relation & {"from", "asked"}:
            self._courier.route(make(own, contact, UNSUBSCRIBED))

    async def _apply(self, user: str, step: states.Transition) -> tuple[Change, Outcome]:
        """Change the roster as ``step`` says."""
        outcome: Outcome | None = None

        def edit(roster: Roster) -> Roster:
            nonlocal outcome
            outcome = step(roster)
            return outcome.roster

        change = await self._rosters.change(user, edit)
        assert outcome is not None
        return change, outcome

    def _push(self, user: str, contact: str, change: Change) -> None:
        if change.before.items.get(contact) != change.after.items.get(contact):
            self._rosters.push(user, contact, change)

    def _deliver(self, user: str, kind: str, raw: bytes) -> None:
        """Requests go to the available resources, what becomes of subscriptions to the interested ones."""
        for session in self._host.user_sessions(user) if raw else ():
            if session.priority is not None if kind == SUBSCRIBE else session.interested:
                session.send(raw)

    async def _exists(self, user: str) -> bool:
        """Whether there is such an account; when nobody knows, there is."""
        if user in self._host.sessions or await self._rosters.has_roster(user):
            return True
        try:
            return await self._host.auth.exists(user)
        except AuthUnavailable:
            return True

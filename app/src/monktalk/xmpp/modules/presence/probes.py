"""Presence probes: who may know whether a user is there (RFC 6121 section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.modules.presence.stanzas import UNAVAILABLE, addressed, make
from monktalk.xmpp.modules.presence.states import UNSUBSCRIBED
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.modules.presence.courier import Courier
    from monktalk.xmpp.modules.roster import Roster, RosterModule
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)


class Probes:
    """Answers for the users of one host."""

    def __init__(self, host: VirtualHost, rosters: RosterModule, courier: Courier) -> None:
        self._host = host
        self._rosters = rosters
        self._courier = courier

    def announced(self, user: str, watcher: JID) -> None:
        """A resource that is subscribed to ``user``, as its own roster says, has come online on this server.

        It gets his presence, if his roster says the same; otherwise its roster is set right. Where nobody is available
        nothing is read and nothing is said.
        """
        if not self._courier.visible(user):
            return
        roster = self._rosters.peek(user)
        if roster is not None:
            self._show(user, watcher, roster)
        else:
            _ = self._host.server.spawn(self._read_and_show(user, watcher))

    async def _read_and_show(self, user: str, watcher: JID) -> None:
        try:
            roster = await self._rosters.get_roster(user)
        except StorageUnavailable as error:
            log.warning("probe_not_answered", user=user, host=self._host.domain, reason=str(error))
        else:
            self._show(user, watcher, roster)

    def _show(self, user: str, watcher: JID, roster: Roster) -> None:
        if roster.shows_presence_to(watcher.bare):
            self._courier.reveal(user, watcher)
        else:
            own = JID.of(user, self._host.domain)
            self._courier.route(make(own, watcher.to_bare(), UNSUBSCRIBED))

    def answer(self, probe: Stanza, roster: Roster) -> None:
        """Answer a probe for a user, given his roster (section 4.3.2)."""
        asked, prober = probe.recipient, probe.sender
        assert asked is not None
        if prober.bare != asked.bare and not roster.shows_presence_to(prober.bare):
            self.answer_stranger(probe)
            return
        sessions = self._asked_for(asked)
        for session in sessions:
            self._tell(session, prober)
        if not sessions:
            self._courier.route(make(asked, prober, UNAVAILABLE))

    def answer_stranger(self, probe: Stanza) -> None:
        """Answer ``unsubscribed``, by the same bytes whether there is such an account or not.

        But one who has been sent directed presence by a resource hears of that resource.
        """
        assert probe.recipient is not None
        told = [session for session in self._asked_for(probe.recipient) if _is_directed_to(session, probe.sender)]
        for session in told:
            self._tell(session, probe.sender)
        if not told:
            self.refuse(probe)

    def _asked_for(self, asked: JID) -> list[Session]:
        return [
            session
            for session in self._courier.visible(asked.local)
            if not asked.resource or session.jid.resource == asked.resource
        ]

    def _tell(self, session: Session, watcher: JID) -> None:
        assert session.presence is not None
        self._courier.route(addressed(session.presence, watcher))

    def refuse(self, probe: Stanza) -> None:
        """Answer ``unsubscribed`` to the resource that has asked; it is no news for the roster of its user."""
        assert probe.recipient is not None
        refusal = make(probe.recipient.to_bare(), probe.sender, UNSUBSCRIBED)
        if probe.sender.resource:
            self._host.server.send_to(probe.sender, refusal.raw)
        else:
            self._courier.route(refusal)


def _is_directed_to(session: Session, jid: JID) -> bool:
    return session.directed is not None and (jid.full in session.directed or jid.bare in session.directed)

"""Bringing presence to those who are to have it, on this host and on the others of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.modules.presence.stanzas import addressed, unavailable
from monktalk.xmpp.protocol.errors import StanzaError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)


class Courier:
    """Routes presence of the users of one host."""

    def __init__(self, host: VirtualHost) -> None:
        self._host = host

    def peer(self, domain: str) -> VirtualHost | None:
        """The host that serves the domain, if users of this one may exchange stanzas with it."""
        host = self._host.server.hosts.get(domain)
        if host is None or host is self._host:
            return host
        return None if host.isolated or self._host.isolated else host

    def demand(self, domain: str) -> None:
        """Raise :class:`StanzaError` as routing does when stanzas can't get to the domain."""
        if self.peer(domain) is None:
            raise StanzaError("remote-server-not-found", f"{domain} can't be reached from here")

    def online(self, jid: str) -> VirtualHost | None:
        """The host of an account (a bare JID) if it may have a session; None when there is nobody to send anything to."""
        local, at, domain = jid.partition("@")
        if not at:
            return None
        host = self.peer(domain)
        if host is None or (local not in host.sessions and host.server.exchange is None):
            return None
        return host

    def route(self, stanza: Stanza) -> None:
        """Route what the server sends in a user's name: there is nobody who could be told that it does not arrive."""
        try:
            self._host.server.route(stanza, self._host)
        except StanzaError as error:
            log.debug("presence_not_delivered", to=stanza.recipient, type=stanza.type, condition=error.condition)

    def broadcast(self, stanza: Stanza, audience: Iterable[str]) -> None:
        """Send presence to those of the audience (bare JIDs) who are online."""
        for jid in audience:
            if self.online(jid) is not None:
                self.route(addressed(stanza, JID.parse(jid)))

    def visible(self, user: str) -> list[Session]:
        """The user's sessions whose presence others may be told of."""
        return [session for session in self._host.user_sessions(user) if session.presence is not None]

    def reveal(self, user: str, to: JID) -> None:
        """Send the presence of each of the user's available resources."""
        for session in self.visible(user):
            assert session.presence is not None
            self.route(addressed(session.presence, to))

    def conceal(self, user: str, to: JID) -> None:
        """Send unavailable presence of each of the user's available resources."""
        for session in self.visible(user):
            self.route(addressed(unavailable(session.jid), to))

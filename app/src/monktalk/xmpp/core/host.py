"""A virtual host: the accounts, sessions and modules of one domain, and the delivery rules of RFC 6121 section 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core import hooks as hook_points
from monktalk.xmpp.core.delivery import DurableDelivery
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import IqHandler, IqKey, Module, Target, iq_marks
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, Stanza

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monktalk.common.config import Config, Settings
    from monktalk.xmpp.core.auth.provider import AuthProvider
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Session

log = get_logger(__name__)

_NOBODY: dict[str, Session] = {}


class VirtualHost:
    """One domain of the server.

    ``sessions`` maps a localpart to the user's sessions by resource. ``arriving`` are the streams that have said who they
    are and have no session yet, with their localparts. ``modules`` holds the loaded modules by name.
    """

    def __init__(self, server: Server, domain: str, config: Config, auth: AuthProvider) -> None:
        self.server = server
        self.domain = domain
        self.jid = JID.of("", domain)
        self.config = config
        self.auth = auth
        self.hooks = HostHooks()
        self.sessions: dict[str, dict[str, Session]] = {}
        self.arriving: dict[ClientStream, str] = {}
        self.modules: dict[str, Module] = {}
        self.iq_handlers: dict[IqKey, IqHandler] = {}
        self.identities: list[tuple[str, str, str]] = [("server", "im", "MonkTalk")]
        self.delivery = DurableDelivery(self)
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Take the host's own options from ``config``; modules are told apart (see :mod:`loader`)."""
        self.config = config
        self.limits = config.section("limits")
        self.stream_management = config.section("stream_management", host=self.domain)
        session_options = config.section("sessions", host=self.domain)
        guarantee: str = config.section("messages", host=self.domain).guarantee
        self.durable = guarantee == "durable" or (guarantee == "auto" and not self.server.bus.alone)
        """Messages are stored before they are delivered, and sessions are written down."""
        self.resource_conflict: str = session_options.resource_conflict
        self.isolated: bool = session_options.isolated
        administrators: tuple[str, ...] = config.section("general").administrators
        self.administrators = frozenset(jid.bare for jid in map(JID.parse, administrators) if jid.domain == self.domain)

    def settings(self, *path: str) -> Settings:
        """A section of the configuration as it is for this host."""
        return self.config.section(*path, host=self.domain)

    def is_administrator(self, jid: JID) -> bool:
        """Whether the entity may administrate this host."""
        return jid.bare in self.administrators

    # -- modules -------------------------------------------------------------------------------------------------

    def register(self, module: Module) -> None:
        """Register the handlers that a module declares. Raises ValueError when another module has one of its requests."""
        methods = list(_methods(module))
        for method in methods:
            for key in iq_marks(method):
                if key in self.iq_handlers:
                    raise ValueError(f"module {module.name}: another module handles {key[2]} already")
        for method in methods:
            for key in iq_marks(method):
                self.iq_handlers[key] = method
            for name, priority in hook_points.marks(method):
                getattr(self.hooks, name).add(method, priority)
        self.modules[module.name] = module

    def unregister(self, module: Module) -> None:
        """Undo :meth:`register`."""
        for method in _methods(module):
            for key in iq_marks(method):
                self.iq_handlers.pop(key, None)
            for name, _ in hook_points.marks(method):
                getattr(self.hooks, name).remove(method)
        self.modules.pop(module.name, None)

    # -- sessions ------------------------------------------------------------------------------------------------

    def add_session(self, session: Session) -> None:
        """Enter a bound session into the session table."""
        user = session.jid.local
        resources = self.sessions.get(user)
        if resources is None:
            resources = self.sessions[user] = {}
        resources[session.jid.resource] = session

    def remove_session(self, session: Session) -> bool:
        """Take a session out of the table; False when it is not there, or another one has its place by now."""
        user, resource = session.jid.local, session.jid.resource
        resources = self.sessions.get(user)
        if resources is None or resources.get(resource) is not session:
            return False
        del resources[resource]
        if not resources:
            del self.sessions[user]
            self.left(user)
        return True

    def left(self, user: str) -> None:
        """A session of the user, or a stream that was about to become one, has gone: perhaps nobody of his is here now."""
        if self.server.bus.alone or user in self.sessions or self.server.continuity.keeps_home(self, user):
            return
        if user not in self.arriving.values():
            self.server.bus.leave(self.domain, user)
            self.server.adoption.left_home(self, user)

    def takes_messages(self, session: Session) -> None:
        """The session has become available with a priority of zero or more: the user's others note since when."""
        for other in self.sessions.get(session.jid.local, _NOBODY).values():
            if other is not session and other.sm is not None:
                other.sm.note_newcomer(session.jid.resource)

    def user_sessions(self, user: str) -> list[Session]:
        """The user's sessions, in the order of their binding."""
        return list(self.sessions.get(user, _NOBODY).values())

    def arrivals(self, user: str) -> list[ClientStream]:
        """The streams that log in as the user, or have done so and not bound a resource yet."""
        return [stream for stream, name in self.arriving.items() if name == user]

    def available_sessions(self, user: str) -> list[Session]:
        """The user's sessions that have sent available presence."""
        return [session for session in self.sessions.get(user, _NOBODY).values() if session.priority is not None]

    def all_sessions(self) -> Iterator[Session]:
        """Every session of the host, as of now."""
        for resources in list(self.sessions.values()):
            yield from list(resources.values())

    # -- delivery ------------------------------------------------------------------------------------------------

    def deliver(self, stanza: Stanza) -> None:
        """Deliver a stanza whose recipient is of this host.

        Raises :class:`StanzaError` where the sender is to be told that nobody takes it.
        """
        if not self.carried(stanza):
            self.deliver_here(stanza)

    def carried(self, stanza: Stanza) -> bool:
        """Whether the recipient's home is another worker; then the stanza is on its way there."""
        exchange, recipient = self.server.exchange, stanza.recipient
        if exchange is None or recipient is None or not recipient.local or recipient.local in self.sessions:
            return False
        return exchange.carry(self, stanza)

    def deliver_here(self, stanza: Stanza) -> None:
        """Deliver a stanza for the host, or for a user whose home is this server, or who has none.

        Raises as :meth:`deliver`.
        """
        if stanza.name == MESSAGE:
            self.deliver_message(stanza)
        elif stanza.name == IQ:
            self._deliver_iq(stanza)
        elif not self.hooks.incoming_presence(stanza):
            self.deliver_presence(stanza)

    def deliver_message(self, stanza: Stanza) -> None:
        """RFC 6121 sections 8.5.1 to 8.5.4, for messages. The table of section 8.5.4 is met row by row."""
        recipient = stanza.recipient
        assert recipient is not None
        user = recipient.local
        if not user:
            if not self.hooks.host_message(stanza):
                raise StanzaError("service-unavailable")
            return
        for handler in self.hooks.incoming_message.handlers:  # the hook's own call, without what it costs
            changed = handler(stanza, user)
            if changed is None:
                return
            stanza = changed
        resources = self.sessions.get(user)
        if recipient.resource:
            session = resources.get(recipient.resource) if resources is not None else None
            if session is not None:
                self._hand_to([session], stanza, user)
            elif self._falls_back_to_bare(stanza):
                self._deliver_to_bare(stanza, user, resources)
        elif stanza.attributes.get("type") == "groupchat":
            raise StanzaError("service-unavailable")
        elif stanza.attributes.get("type") != "error":
            self._deliver_to_bare(stanza, user, resources)

    @staticmethod
    def _falls_back_to_bare(stanza: Stanza) -> bool:
        """Whether a message to a resource that is not there is for the account then (section 8.5.3.2.1)."""
        kind = stanza.attributes.get("type")
        if kind in ("chat", "headline", "error"):
            return kind == "chat"
        raise StanzaError("service-unavailable")

    def _deliver_to_bare(self, stanza: Stanza, user: str, resources: dict[str, Session] | None) -> None:
        """To every session with a priority of zero or more; else to whoever keeps messages (section 8.5.2.1)."""
        takers = None
        if resources is not None:
            takers = [each for each in resources.values() if each.priority is not None and each.priority >= 0]
        if takers:
            self._hand_to(takers, stanza, user)
        elif stanza.attributes.get("type") != "headline":
            self.undelivered(stanza, user)

    def _hand_to(self, sessions: list[Session], stanza: Stanza, user: str) -> None:
        if not self.durable:
            for session in sessions:
                session.send(stanza.raw)
        elif (self.hooks.detour(user) or any(map(_renumbers, sessions))) and self.hooks.storable(stanza):
            self.undelivered(stanza, user)
        else:
            self.delivery.deliver(sessions, stanza)

    def undelivered(self, stanza: Stanza, user: str) -> None:
        """No session takes the message. Raises :class:`StanzaError` when no module takes it either."""
        if not self.hooks.undelivered_message(stanza, user):
            raise StanzaError("service-unavailable")

    def deliver_presence(self, stanza: Stanza) -> None:
        """Available and unavailable presence: to the full JID, or to every available resource (section 8.5.2.1.2)."""
        recipient = stanza.recipient
        assert recipient is not None
        resources = self.sessions.get(recipient.local, _NOBODY)
        if recipient.resource:
            session = resources.get(recipient.resource)
            if session is not None:
                session.send(stanza.raw)
            return
        for session in resources.values():
            if session.priority is not None:
                session.send(stanza.raw)

    def _deliver_iq(self, stanza: Stanza) -> None:
        recipient = stanza.recipient
        assert recipient is not None
        if recipient.resource and recipient.local:
            session = self.sessions.get(recipient.local, _NOBODY).get(recipient.resource)
            if session is None:
                raise StanzaError("service-unavailable")
            if not self.hooks.incoming_iq(stanza, session):
                session.send(stanza.raw)
            return
        self.server.iq.handle(self, stanza, None)

    def target_of(self, stanza: Stanza) -> Target:
        """Whom a request that the server answers is for."""
        recipient = stanza.recipient
        if recipient is None:
            return Target.SELF
        if not recipient.local:
            return Target.HOST
        return Target.SELF if recipient.bare == stanza.sender.bare else Target.USER


def _renumbers(session: Session) -> bool:
    return session.record is not None and session.record.renumbering is not None


def _methods(module: Module) -> Iterator[IqHandler]:
    for name in dir(type(module)):
        if not name.startswith("__") and callable(getattr(type(module), name)):
            yield getattr(module, name)

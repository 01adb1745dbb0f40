"""Storing messages for users who are not here, and giving them to the first of their sessions that is available."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from monktalk.common.config import Kind, Option
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.auth.errors import AuthUnavailable
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.iq import STORAGE_DOWN
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.access import sees_presence, surely_unseen
from monktalk.xmpp.modules.offline.delay import DELAY, unstamped
from monktalk.xmpp.modules.offline.delivery import Delivery, takes_messages
from monktalk.xmpp.modules.presence.stanzas import priority_of
from monktalk.xmpp.modules.storable import is_storable
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)

PURGE_INTERVAL: Final = 3600.0
"""Seconds between two deletions of expired messages."""

MAX_UNDECIDED: Final = 10_000
"""Messages that may wait to be told whether their recipient exists."""

_STORED: Final = "offline.stored"
"""The topic of a note that a message was put into a user's mailbox."""

_NOT_KEPT: Final = ("groupchat", "headline", "error")
_KNOWN_ACCOUNTS: Final = 20_000
_FULL: Final = StanzaError("service-unavailable", "too many messages wait for the recipient already")
_TOO_MANY: Final = StanzaError("resource-constraint", "too many messages are being stored, try again later")


class _Entry(NamedTuple):
    """A message to be stored, ``raw`` being what is stored of it.

    ``number`` holds back its acknowledgement to ``sender``, a session of this server.
    """

    stanza: Stanza
    raw: bytes
    stamp: float
    sender: Session | None
    number: int | None

    @property
    def origin(self) -> tuple[str | None, int | None]:
        """What names the message as long as its sender may repeat it."""
        receipt = self.stanza.receipt
        return (receipt.origin, receipt.number) if receipt is not None and receipt.origin else (None, None)

    def settled(self) -> None:
        """The message's fate is known: it may be acknowledged."""
        if self.stanza.receipt is not None:
            self.stanza.receipt.release()
        elif self.sender is not None:
            self.sender.settled(self.number)


class Offline(Module):
    """Offline messages (XEP-0160), with the time of their arrival (XEP-0203)."""

    name = "offline"
    requires = ("presence",)
    features = (ns.OFFLINE_FEATURE,)
    options = (
        Option("max_messages", Kind.INTEGER, 100, minimum=1, doc="Messages that may wait for an account."),
        Option(
            "max_age",
            Kind.DURATION,
            None,
            minimum=60,
            doc="How long a message waits before it is deleted unread; for ever when this is not set.",
        ),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._store = host.server.storage.offline
        self._delivery = Delivery(host)
        self._known: set[str] = set()
        self._undecided: dict[str, list[_Entry]] = {}
        self._undecided_count = 0
        self._served: dict[Session, Stanza] = {}
        self._purge_timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Delete expired messages from time to time."""
        self._purge_later()

    async def stop(self) -> None:
        """Delete them no more."""
        if self._purge_timer is not None:
            self._purge_timer.cancel()

    # -- storing -------------------------------------------------------------------------------------------------

    @HostHooks.incoming_message.handler(priority=-20)
    def distrust(self, stanza: Stanza, _user: str) -> Stanza:
        """Take away what pretends that this server has delayed the message."""
        return stanza if DELAY not in stanza.payloads else unstamped(stanza, self.host.domain)[0]

    @HostHooks.undelivered_message.handler()
    def store(self, stanza: Stanza, user: str) -> bool:
        """Store a message that nobody takes. Its sender never learns whether that has happened (RFC 6121 section 8.5.1).

        Raises :class:`StorageUnavailable` while the storage is away, whoever the message is for, and
        :class:`StanzaError` (``resource-constraint``) when too many messages wait for a decision.
        """
        kind = stanza.attributes.get("type", "normal")
        if kind in _NOT_KEPT:
            return False
        if not is_storable(stanza.payloads, kind):
            return True
        if not self.host.durable and not self.host.server.storage.healthy():
            raise StorageUnavailable("the storage does not answer")
        exists = self.host.auth.known(user)
        if exists is None and (user in self._known or user in self.host.sessions):
            exists = True
        if exists is False:
            self._known.discard(user)
        elif exists and user not in self._undecided:
            self._remember(user)
            self._append(user, self._entry(stanza))
        else:
            self._decide_later(user, stanza)
        return True

    def _entry(self, stanza: Stanza) -> _Entry:
        # One that comes back from a session that could not take it may have been stored before.
        original, stamp = unstamped(stanza, self.host.domain)
        if stanza.receipt is not None:
            stanza.receipt.hold()
            return _Entry(stanza, original.raw, stamp or self.host.server.clock.now(), None, None)
        host = self.host.server.hosts.get(stanza.sender.domain)
        sessions = host.sessions.get(stanza.sender.local) if host is not None else None
        sender = sessions.get(stanza.sender.resource) if sessions is not None else None
        number = sender.settle_later() if sender is not None else None
        return _Entry(stanza, original.raw, stamp or self.host.server.clock.now(), sender, number)

    def _remember(self, user: str) -> None:
        if len(self._known) >= _KNOWN_ACCOUNTS:
            self._known.clear()
        self._known.add(user)

    def _decide_later(self, user: str, stanza: Stanza) -> None:
        """Find out whether there is such an account; one task asks for all messages that come meanwhile."""
        if self._undecided_count >= MAX_UNDECIDED:
            raise _TOO_MANY
        self._undecided_count += 1
        waiting = self._undecided.get(user)
        if waiting is not None:
            waiting.append(self._entry(stanza))
        else:
            self._undecided[user] = [self._entry(stanza)]
            _ = self.host.server.spawn(self._decide(user))

    async def _decide(self, user: str) -> None:
        exists: bool | None = None
        try:
            exists = await self._exists(user)
        except (StorageUnavailable, AuthUnavailable) as error:
            log.warning("recipient_unknown", host=self.host.domain, reason=str(error))
        finally:
            entries = self._undecided.pop(user)
            self._undecided_count -= len(entries)
            for entry in entries:
                if exists:
                    self._keep_or_send(user, entry)
                else:
                    if exists is None:
                        self.host.server.bounce(entry.stanza, STORAGE_DOWN)
                    entry.settled()

    async def _exists(self, user: str) -> bool:
        seen = await self.host.server.storage.accounts.find(self.host.domain, user)
        if seen is None and not await self.host.auth.exists(user):
            return False
        self._remember(user)
        return True

    def _keep_or_send(self, user: str, entry: _Entry) -> None:
        """Append the message, unless the user has come meanwhile."""
        takers = [session for session in self.host.available_sessions(user) if takes_messages(session)]
        if not takers or self._delivery.busy(user) or self.host.durable:
            self._append(user, entry)
            return
        for session in takers:
            session.send(entry.stanza.raw)
        entry.settled()

    def _append(self, user: str, entry: _Entry) -> None:
        age = self.settings.max_age
        expires = entry.stamp + age if age else None
        future = self._store.append(
            self.host.domain, user, entry.raw, entry.stamp, expires, self.settings.max_messages, *entry.origin
        )
        self._delivery.writing.setdefault(user, set()).add(future)
        future.add_done_callback(partial(self._appended, user, entry))

    def _appended(self, user: str, entry: _Entry, future: asyncio.Future[bool]) -> None:
        writing = self._delivery.writing[user]
        writing.discard(future)
        if not writing:
            del self._delivery.writing[user]
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            if not isinstance(error, StorageUnavailable):
                log.error("message_not_stored", host=self.host.domain, reason=repr(error))
            self.host.server.bounce(entry.stanza, STORAGE_DOWN)
        elif future.result():
            self._fetch(user)
        elif not surely_unseen(self.host, user, entry.stanza.sender):
            _ = self.host.server.spawn(self._refuse(user, entry.stanza))
        entry.settled()

    def _fetch(self, user: str) -> None:
        """A message has been stored: the user may have come while it was."""
        if self._delivery.busy(user):
            self._delivery.stored(user)
        elif user in self.host.sessions:
            self._delivery.left_over(user)
        elif self.host.server.exchange is not None:
            self.host.server.exchange.nudge(self.host, user, _STORED)

    @HostHooks.note.handler()
    def told(self, user: str, topic: str, _arguments: tuple[Any, ...]) -> bool:
        """Another worker has stored a message for a user whose home is here."""
        if topic != _STORED:
            return False
        self.filled(user)
        return True

    @HostHooks.mailbox_filled.handler()
    def filled(self, user: str) -> None:
        """There may be messages in the mailbox of a user who is here."""
        if user in self.host.sessions or self._delivery.busy(user):
            self._fetch(user)

    @HostHooks.storable.handler()
    def storable(self, stanza: Stanza) -> bool:
        """Whether a message would be stored."""
        return is_storable(stanza.payloads, stanza.attributes.get("type", "normal"))

    @HostHooks.detour.handler()
    def detour(self, user: str) -> bool:
        """While older messages come from the mailbox, newer ones queue up there."""
        return self._delivery.busy(user) or self._delivery.interrupted(user)

    @HostHooks.session_left.handler()
    def left(self, session: Session) -> None:
        """The session goes on elsewhere."""
        self._served.pop(session, None)

    async def _refuse(self, user: str, stanza: Stanza) -> None:
        """The mailbox is full: tell those who may know that the user is away, nobody else (section 8.5.2.2)."""
        try:
            told = await sees_presence(self.host, user, stanza.sender)
        except StorageUnavailable:
            told = False
        if told:
            self.host.server.bounce(stanza, _FULL)

    # -- delivering ----------------------------------------------------------------------------------------------

    @HostHooks.user_presence.handler(priority=-40)
    def before_available(self, session: Session, stanza: Stanza) -> bool:
        """Deliver before the session becomes available, so that no newer message comes in front of the stored ones."""
        if self._served.pop(session, None) is stanza:
            return False
        if stanza.type is not None or stanza.recipient is not None or takes_messages(session):
            return False
        try:
            if priority_of(stanza) < 0:
                return False
        except StanzaError:
            return False  # for the presence module to refuse
        self._served[session] = stanza
        session.run_before(stanza, self._delivery.deliver(session))
        return True

    @HostHooks.session_available.handler()
    async def after_available(self, session: Session) -> None:
        """Deliver what was stored between the two."""
        user = session.jid.local
        if user in self._delivery.writing or self._delivery.interrupted(user):
            await self._delivery.deliver(session)

    @HostHooks.session_resumed.handler()
    def resumed(self, session: Session) -> None:
        """Go on where the connection was lost."""
        if self._delivery.interrupted(session.jid.local) and takes_messages(session):
            _ = self.host.server.spawn(self._delivery.deliver(session))

    @HostHooks.session_closed.handler()
    def closed(self, session: Session, _reason: str) -> None:
        """Forget the session."""
        self._served.pop(session, None)

    # -- deleting ------------------------------------------------------------------------------------------------

    @HostHooks.account_removed.handler()
    async def removed(self, user: str) -> None:
        """Delete the messages of an account."""
        self._known.discard(user)
        self._delivery.forget(user)
        await self._store.delete_user(self.host.domain, user)

    def _purge_later(self) -> None:
        self._purge_timer = asyncio.get_running_loop().call_later(PURGE_INTERVAL, self._purge_now)

    def _purge_now(self) -> None:
        self._purge_later()
        _ = self.host.server.spawn(self.purge())

    async def purge(self) -> None:
        """Delete the messages of the host that have waited too long."""
        try:
            deleted = await self._store.delete_expired(self.host.domain, self.host.server.clock.now())
        except StorageUnavailable as error:
            log.warning("purge_failed", host=self.host.domain, reason=str(error))
            return
        if deleted:
            log.info("messages_expired", host=self.host.domain, messages=deleted)

"""Stanzas to and from the other workers of a cluster. A server that is alone has none of this."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.calls import CALL
from monktalk.xmpp.core.calls import KINDS as CALL_KINDS
from monktalk.xmpp.core.iq import STORAGE_DOWN
from monktalk.xmpp.core.receipt import Receipt
from monktalk.xmpp.core.relay import KINDS as RELAY_KINDS
from monktalk.xmpp.core.relay import Relays
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.stanza import PRESENCE, Stanza
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server

log = get_logger(__name__)

STANZA, NOTE = 1, 2
"""Kinds of frames for a user's home: a stanza for him, and what modules tell each other about him."""

DIRECT: Final = 5
"""The kind of frame for a user's home that holds what the server has made for one of his sessions: no module looks at it."""

SETTLED, ADOPT = 3, 4
"""Kinds of frames for a worker: a stanza whose effect is durable, and a user whose sessions it is to adopt."""

SETTLE_SECONDS: Final = 1.0
"""A message whose effect is not durable by then is put into the recipient's mailbox: its worker may be dead."""

AGAIN_SECONDS: Final = 3.0
"""When notes that could not be told are told a second time: other workers may come back to the bus later than this one."""

MOST_UNTOLD: Final = 10_000
"""Notes that are kept until the bus is back."""

_BROADCAST: Final = (None, "unavailable")
"""Types of presence that nobody is told of when they find nobody."""


_Name = tuple[str, int]
"""Origin and number of a message."""


class _Sent(NamedTuple):
    """A message of a user here that went to another worker and is not durable yet."""

    host: VirtualHost
    stanza: Stanza
    receipt: Receipt
    deadline: float

    @property
    def key(self) -> tuple[str, str]:
        """The host and the localpart of its recipient."""
        assert self.stanza.recipient is not None
        return self.host.domain, self.stanza.recipient.local


class Exchange:
    """The traffic between this server and the other workers. Implements :class:`monktalk.xmpp.cluster.bus.Hub`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._bus = server.bus
        self.relays = Relays(server)
        self._sent: dict[_Name, _Sent] = {}
        """By origin and number, oldest first."""
        self._sent_to: dict[tuple[str, str], dict[_Name, None]] = {}
        """The same by host and recipient."""
        self._detours: dict[tuple[str, str], int] = {}
        self._unnudged: dict[tuple[str, str], str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._connected = True
        self._untold: deque[tuple[str, str, tuple[Any, ...]]] = deque(maxlen=MOST_UNTOLD)
        self._telling: asyncio.TimerHandle | None = None

    # -- stanzas that leave --------------------------------------------------------------------------------------

    def carry(self, host: VirtualHost, stanza: Stanza) -> bool:
        """Send a stanza to the home of its recipient, a user of ``host``; False when that is here."""
        recipient = stanza.recipient
        assert recipient is not None
        domain, user = host.domain, recipient.local
        if self._bus.is_home(domain, user):
            return False
        receipt = stanza.receipt
        origin, number = ("", 0) if receipt is None else (receipt.origin, receipt.number)
        fields = (
            stanza.name,
            stanza.attributes,
            stanza.raw,
            stanza.payloads,
            stanza.sender.full,
            recipient.full,
            origin,
            number,
        )
        if stanza.name == PRESENCE and stanza.attributes.get("type") in _BROADCAST:
            self._bus.cast(domain, user, STANZA, fields)
            return True
        if receipt is not None and receipt.origin:
            if (domain, user) in self._detours or (domain, user) in self._unnudged:
                receipt.hold()
                self._keep(_Sent(host, stanza, receipt, 0.0))
                return True
            self._remember(host, stanza, receipt)
        self._bus.to_user(domain, user, STANZA, fields)
        return True

    def carry_raw(self, host: VirtualHost, recipient: JID, raw: bytes) -> bool:
        """Send a stanza that the server has made to a session at another worker; False when the user's home is here."""
        user = recipient.local
        if not user or self._bus.is_home(host.domain, user):
            return False
        self._bus.cast(host.domain, user, DIRECT, (recipient.resource, raw))
        return True

    def _remember(self, host: VirtualHost, stanza: Stanza, receipt: Receipt) -> None:
        receipt.hold()
        deadline = self._server.clock.monotonic() + SETTLE_SECONDS
        sent = _Sent(host, stanza, receipt, deadline)
        name = receipt.origin, receipt.number
        self._sent[name] = sent
        self._sent_to.setdefault(sent.key, {})[name] = None
        self._tick_later()

    def _forget(self, name: _Name) -> _Sent | None:
        """The fate of a message is known, or somebody else sees to it; None when that was so before."""
        sent = self._sent.pop(name, None)
        if sent is not None:
            others = self._sent_to[sent.key]
            del others[name]
            if not others:
                del self._sent_to[sent.key]
        return sent

    def tell(self, host: VirtualHost, user: str, topic: str, *arguments: Any) -> None:
        """Tell a module at the home of a user that is not here; nobody is told when he has none.

        While the bus does not work it is put off. Then it may be told twice.
        """
        if not self._bus.is_home(host.domain, user):
            if not self._connected:
                self._untold.append((host.domain, user, (topic, *arguments)))
            self._bus.cast(host.domain, user, NOTE, (topic, *arguments))

    def _tell_untold(self, *, last: bool) -> None:
        for domain, user, fields in self._untold:
            if not self._bus.is_home(domain, user):
                self._bus.cast(domain, user, NOTE, fields)
        if last and self._connected:
            self._untold.clear()

    def nudge(self, host: VirtualHost, user: str, topic: str) -> None:
        """As :meth:`tell`, but it is made sure that the home, if there is one, hears of it before anything that follows."""
        if self._bus.is_home(host.domain, user):
            return
        if self._connected:
            self._bus.to_user(host.domain, user, NOTE, (topic,))
        else:
            self._unnudged[host.domain, user] = topic

    # -- what comes ----------------------------------------------------------------------------------------------

    def user_frame(self, worker: str, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame for a user whose home is here."""
        if kind == CALL:
            self._server.calls.home_frame(fields)
            return
        found = self._server.hosts.get(host)
        if found is None:
            return
        if kind == STANZA:
            stanza = _stanza(fields)
            origin, number = fields[6], fields[7]
            if origin:
                stanza.receipt = Receipt(origin, number, lambda: self._bus.send(worker, SETTLED, origin, number))
            self._deliver(found, stanza)
        elif kind == NOTE:
            found.hooks.note(user, fields[0], fields[1:])
        elif kind == DIRECT:
            session = found.sessions.get(user, {}).get(fields[0])
            if session is not None:
                session.send(fields[1])

    def homeless(self, host: str, user: str, kind: int, fields: tuple[Any, ...], *, certain: bool) -> None:
        """A frame for a user without a home: what is for users who are away is done here."""
        if kind == CALL:
            self._server.calls.homeless(fields, certain=certain)
            return
        found = self._server.hosts.get(host)
        if found is None or kind != STANZA:
            return
        stanza = _stanza(fields)
        if fields[6]:
            sent = self._forget((fields[6], fields[7]))
            if sent is None:
                return  # it was put into the mailbox meanwhile
            stanza.receipt = sent.receipt
        self._deliver(found, stanza)

    def _deliver(self, host: VirtualHost, stanza: Stanza) -> None:
        """Deliver as if the stanza came from here."""
        receipt: Receipt | None = stanza.receipt
        try:
            host.deliver_here(stanza)
        except StanzaError as error:
            self._server.bounce(stanza, error)
        except StorageUnavailable:
            self._server.bounce(stanza, STORAGE_DOWN)
        finally:
            if receipt is not None:
                receipt.release()

    def worker_frame(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame for this worker."""
        if kind == SETTLED:
            sent = self._forget((fields[0], fields[1]))
            if sent is not None:
                sent.receipt.release()
        elif kind == ADOPT:
            found = self._server.hosts.get(fields[0])
            if found is not None:
                self._server.adoption.adopt_user(found, fields[1])
        elif kind in RELAY_KINDS:
            self.relays.frame(worker, kind, fields)
        elif kind in CALL_KINDS:
            self._server.calls.frame(worker, kind, fields)
        else:
            log.debug("frame_unknown", worker=worker, kind=kind)

    def unsent(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame for another worker could not be sent."""
        if kind in RELAY_KINDS:
            self.relays.unsent(worker, kind, fields)

    def _tick(self) -> None:
        """Put messages whose fate is unknown for too long into the mailbox; if they were delivered, that is known there."""
        self._timer = None
        now = self._server.clock.monotonic()
        while self._sent:
            sent = next(iter(self._sent.values()))
            if sent.deadline > now:
                self._tick_later()
                return
            log.info("messages_diverted", to=sent.stanza.recipient, reason="not settled in time")
            self._divert(sent.key)

    def astray(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> bool:
        """A frame did not find its user where he was last. True: it is dealt with; else it is sent again."""
        if kind != STANZA or (fields[6], fields[7]) not in self._sent:
            return False
        self._divert((host, user))
        return True

    def _divert(self, key: tuple[str, str]) -> None:
        """Put all messages for a user whose fate is not known into his mailbox, in order, and newer ones behind them.

        Those that have been delivered after all are known there by their origin and number.
        """
        for name in list(self._sent_to.get(key, ())):
            sent = self._forget(name)
            if sent is not None:
                self._keep(sent)

    def _keep(self, sent: _Sent) -> None:
        key = sent.key
        self._detours[key] = self._detours.get(key, 0) + 1
        stanza = sent.stanza
        receipt = Receipt(sent.receipt.origin, sent.receipt.number, lambda: self._kept(key, sent.receipt))
        stanza.receipt = receipt
        try:
            if not sent.host.hooks.undelivered_message(stanza, key[1]):
                raise StanzaError("service-unavailable")
        except StanzaError as error:
            self._server.bounce(stanza, error)
        except StorageUnavailable:
            self._server.bounce(stanza, STORAGE_DOWN)
        finally:
            receipt.release()

    def _kept(self, key: tuple[str, str], receipt: Receipt) -> None:
        left = self._detours[key] - 1
        if left:
            self._detours[key] = left
        else:
            del self._detours[key]
        receipt.release()

    def _tick_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS / 4, self._tick)

    def close(self) -> None:
        """Wait for nothing any more."""
        for timer in (self._timer, self._telling):
            if timer is not None:
                timer.cancel()
        self._timer = self._telling = None

    # -- the cluster ---------------------------------------------------------------------------------------------

    def sessions(self) -> int:
        """How many sessions there are here."""
        return sum(len(resources) for host in self._server.hosts.values() for resources in host.sessions.values())

    def connected(self, connected: bool) -> None:
        """The bus works, or does not: without it nobody hears of what others write."""
        self._server.storage.trust_cache(connected)
        self._connected = connected
        if connected:
            self.relays.connected()
            unnudged, self._unnudged = self._unnudged, {}
            for (domain, user), topic in unnudged.items():
                self._bus.to_user(domain, user, NOTE, (topic,))
            self.news_lost()
            if self._untold:
                self._tell_untold(last=False)
                loop = asyncio.get_running_loop()
                self._telling = loop.call_later(AGAIN_SECONDS, lambda: self._tell_untold(last=True))

    def news_lost(self) -> None:
        """Notices may have been missed, and sessions adopted by others."""
        self._server.storage.invalidate_all()
        self._forget_accounts()
        self._server.continuity.verify()
        self._server.mailboxes.look()

    def _forget_accounts(self) -> None:
        for host in self._server.hosts.values():
            host.auth.forget_all()

    def worker_gone(self, worker: str) -> None:
        """A worker is gone."""
        self.relays.worker_gone(worker)
        self._server.adoption.worker_gone(worker)
        self._server.calls.worker_gone(worker)

    def offer(self, worker: str, host: str, user: str) -> None:
        """Sessions of a user are ours in the storage, and his home is elsewhere: let it adopt them."""
        self._bus.send(worker, ADOPT, host, user)

    def stalled(self) -> None:
        """This worker did nothing for a while: others may have its sessions by now."""
        self.news_lost()

    def conflict(self, host: str, user: str, worker: str, *, older: bool) -> None:
        """The user has two homes. Of two workers with sessions of his, the one that has been his home for longer stays it."""
        found = self._server.hosts.get(host)
        if found is not None:
            _ = self._server.spawn(self._resolve(found, user, worker, older=older))

    async def _resolve(self, host: VirtualHost, user: str, worker: str, *, older: bool) -> None:
        continuity = self._server.continuity
        for session in host.user_sessions(user):
            # Sessions that the other one has adopted are nothing any more, and nothing to be kept.
            await continuity.check(session)
        if user not in host.sessions and not host.arrivals(user):
            self._bus.leave(host.domain, user)
        elif older:
            self._bus.insist(host.domain, user)
        else:
            await self._hand_over(host, user, worker)

    async def _hand_over(self, host: VirtualHost, user: str, worker: str) -> None:
        """The user's clients here connect anew, and find his home; their sessions go on there."""
        error = StreamError("system-shutdown", "the account is served elsewhere")
        for stream in host.arrivals(user):
            stream.fail(error)
        for session in host.user_sessions(user):
            if session.resumable_elsewhere:
                session.abandon("the user has another home")
                continue
            if session.stream is not None:
                session.stream.fail(error)
            session.end("the user has another home")
        await self._server.continuity.parted()
        self._bus.leave(host.domain, user)
        if host.durable:
            self.offer(worker, host.domain, user)


def _stanza(fields: tuple[Any, ...]) -> Stanza:
    name, attributes, raw, payloads, sender, recipient = fields[:6]
    stanza = Stanza(name, dict(attributes), raw, payloads)
    stanza.sender = JID.parse(sender)
    stanza.recipient = JID.parse(recipient)
    return stanza

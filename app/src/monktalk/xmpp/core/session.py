"""A bound resource: what a client may send, what is sent to it, and its life across connections (XEP-0198)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from monktalk.common.jid import JID, InvalidJID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.iq import STORAGE_DOWN, check_request
from monktalk.xmpp.core.receipt import Receipt
from monktalk.xmpp.core.redelivery import redeliver
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.sm import REQUEST, StreamManagement
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, PRESENCE, XML_LANG, Stanza, error_reply
from monktalk.xmpp.protocol.xmltree import escape
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.link import Link
    from monktalk.xmpp.core.record import Record

log = get_logger(__name__)

_BEGINNINGS = {kind: f"<{kind}".encode() for kind in (MESSAGE, PRESENCE, IQ)}
_PLAIN_NAMES = {
    kind: tuple(begin + end for end in (b" ", b">", b"/", b"\n", b"\t", b"\r")) for kind, begin in _BEGINNINGS.items()
}
"""How the bytes of a stanza begin whose name has no prefix: ``<message:message`` begins with ``<message``, too."""
_SM_REQUEST = ns.qname(ns.STREAM_MANAGEMENT, "r")
_SM_ANSWER = ns.qname(ns.STREAM_MANAGEMENT, "a")


class Held:
    """A stanza that waits for being stored, or behind one that does. ``number`` is its place in the stream, as stored."""

    __slots__ = ("number", "raw", "ready", "stored")

    def __init__(self, raw: bytes, number: int, *, ready: bool) -> None:
        self.raw = raw
        self.number = number
        self.ready = ready
        self.stored = False


class Session:
    """One resource of a user.

    ``priority`` is None until available presence has been sent; ``presence`` is that presence as it was broadcast.
    ``directed`` holds those (as full strings) who were sent presence directly. ``link`` is None while the client is away and
    may resume. ``extra`` is for modules, by name of the module.
    """

    __slots__ = (
        "_again",
        "_backlog",
        "_caught_up",
        "_ending",
        "_held",
        "_held_sent",
        "_injecting",
        "_lang",
        "_sender",
        "_sender_and_lang",
        "_task",
        "bound_at",
        "closed",
        "directed",
        "extra",
        "host",
        "interested",
        "jid",
        "lang",
        "link",
        "peer",
        "presence",
        "priority",
        "record",
        "secure",
        "sm",
        "sm_waiting",
        "stream",
    )

    def __init__(self, host: VirtualHost, jid: JID, stream: ClientStream | None, lang: str | None) -> None:
        self.host = host
        self.jid = jid
        self.stream = stream
        self.link: Link | None = stream.link if stream is not None else None
        self.peer = stream.peer if stream is not None else ""
        self.secure = stream is not None and stream.link.secure
        self.record: Record | None = None
        self._held: deque[Held] | None = None
        self._held_sent: asyncio.Future[None] | None = None
        self.bound_at = host.server.clock.now()
        self.sm: StreamManagement | None = None
        self.sm_waiting = False
        self.priority: int | None = None
        self.presence: Stanza | None = None
        self.directed: set[str] | None = None
        self.interested = False
        """The client has asked for its roster and gets pushes (RFC 6121 section 2.1.6)."""
        self.extra: dict[str, Any] | None = None
        self.closed = False
        self._ending: str | None = None
        self._injecting = False
        self._task: asyncio.Task[None] | None = None
        self._backlog: deque[Stanza] | None = None
        self._again: Stanza | None = None
        self._caught_up: asyncio.Future[None] | None = None
        sender = f" from='{escape(jid.full)}'"
        self._sender = sender.encode()
        self.lang = lang
        self._lang = lang if lang and lang.lower() != host.server.language.lower() else None
        self._sender_and_lang = f"{sender} xml:lang='{escape(self._lang)}'".encode() if self._lang else self._sender

    def __repr__(self) -> str:
        return f"<Session {self.jid.full}>"

    # -- from the client -----------------------------------------------------------------------------------------

    def receive(self, stanza: Stanza) -> None:
        """Handle what the client sent, or keep it until what it sent before has been handled.

        Raises :class:`StreamError` for what ends the stream.
        """
        if self._task is not None:
            self._defer(stanza)
        else:
            self._handle(stanza)

    def inject(self, stanza: Stanza) -> None:
        """Handle a stanza as if the client had sent it; it is not counted among those that are acknowledged (XEP-0198).

        Raises :class:`StanzaError` (``resource-constraint``) while something that the client has sent is being handled,
        and :class:`StreamError` for what a client's stream would end for.
        """
        if self._task is not None:
            raise StanzaError("resource-constraint", "the session is busy, try again")
        if stanza.name not in _BEGINNINGS:
            raise StreamError("unsupported-stanza-type", "message, presence and iq are the stanzas of this stream")
        if self.sm is not None:
            self.sm.received -= 1
        self._injecting = True
        try:
            self._handle(stanza)
        finally:
            self._injecting = False

    def _defer(self, stanza: Stanza) -> None:
        if stanza.name == _SM_ANSWER:
            # It is about what the server has sent, not about what the client has; and the work may be waiting for it.
            self._handle_other(stanza)
            return
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(stanza)
        if len(self._backlog) >= self.host.limits.pending_stanzas and self.link is not None:
            self.link.pause()

    def _handle(self, stanza: Stanza) -> None:
        name = stanza.name
        if name not in _BEGINNINGS:
            self._handle_other(stanza)
            return
        if self.sm is not None:
            self.sm.received += 1
        try:
            self._stamp(stanza)
        except StanzaError as error:
            self._refuse(stanza, error)
        else:
            self._dispatch(stanza)

    def _dispatch(self, stanza: Stanza) -> None:
        name = stanza.name
        receipt = None
        if name == MESSAGE and self.record is not None and self.sm is not None and not self._injecting:
            receipt = stanza.receipt = self._receipt(self.record)
        try:
            if name == MESSAGE:
                if not self.host.hooks.user_message(self, stanza):
                    self.host.server.route(stanza, self.host)
            elif name == IQ:
                self._handle_iq(stanza)
            elif not self.host.hooks.user_presence(self, stanza):
                raise StanzaError("service-unavailable")
            else:
                self.host.server.continuity.changed(self)
        except StanzaError as error:
            self._refuse(stanza, error)
        except StorageUnavailable:
            self._refuse(stanza, STORAGE_DOWN)
        except StreamError:
            raise
        except Exception:
            # What one module does wrong with one stanza, perhaps on behalf of the recipient, is no reason to end the stream.
            log.exception("stanza_failed", jid=self.jid.full, stanza=name)
            self._refuse(stanza, StanzaError("internal-server-error"))
        finally:
            if receipt is not None:
                receipt.release()

    def _receipt(self, record: Record) -> Receipt:
        """What holds back the acknowledgement of the message that is being handled."""
        number = self.settle_later()
        assert number is not None
        return Receipt(record.token, number, lambda: self.settled(number))

    def _handle_iq(self, stanza: Stanza) -> None:
        if not stanza.attributes.get("id"):
            raise StanzaError("bad-request", "an IQ needs an id")
        recipient = stanza.recipient
        if recipient is None or (recipient.domain == self.host.domain and not (recipient.resource and recipient.local)):
            if not self.host.carried(stanza):
                self.host.server.iq.handle(self.host, stanza, self)
        else:
            kind = stanza.attributes.get("type")
            if kind in ("get", "set"):
                check_request(stanza)
            elif kind not in ("result", "error"):
                raise StanzaError("bad-request", "the type of an IQ is get, set, result or error")
            self.host.server.route(stanza, self.host)

    def _handle_other(self, stanza: Stanza) -> None:
        sm = self.sm
        if stanza.name == _SM_REQUEST and sm is not None:
            if self.record is not None:
                self.record.owed = sm.handled < sm.received
            self._answer()
        elif stanza.name == _SM_ANSWER and sm is not None:
            sm.acknowledge(stanza.attributes.get("h"))
            if self.record is not None:
                self.host.server.continuity.acknowledged(self)
            if sm.queue:
                self._wait_for_request()
            self._wake()
        elif self.stream is not None and self.stream.session_element(stanza):
            return
        else:
            raise StreamError("unsupported-stanza-type", "message, presence and iq are the stanzas of this stream")

    def _stamp(self, stanza: Stanza) -> None:
        """Set the sender, in the attributes and in the bytes, and the recipient (RFC 6120 section 8.1)."""
        attributes = stanza.attributes
        claimed = attributes.get("from")
        if claimed is not None:
            self._check_sender(claimed)
        attributes["from"] = self.jid.full
        stanza.sender = self.jid
        raw = stanza.raw
        begin = _BEGINNINGS[stanza.name]
        stamp = self._sender
        if self._lang is not None and XML_LANG not in attributes:
            attributes[XML_LANG] = self._lang
            stamp = self._sender_and_lang
        if claimed is None and raw.startswith(_PLAIN_NAMES[stanza.name]):
            stanza.raw = begin + stamp + raw[len(begin) :]
        else:
            stanza.raw = stanza.with_attributes(from_=self.jid.full).raw
        to = attributes.get("to")
        if to is None:
            stanza.recipient = None
        else:
            try:
                stanza.recipient = JID.parse(to)
            except InvalidJID as error:
                stanza.recipient = None
                raise StanzaError("jid-malformed", str(error)) from None

    def _check_sender(self, claimed: str) -> None:
        try:
            jid = JID.parse(claimed)
        except InvalidJID:
            jid = None
        if jid is None or (jid.full not in (self.jid.full, self.jid.bare)):
            raise StreamError("invalid-from", "the attribute from is not the address of this session")

    def _refuse(self, stanza: Stanza, error: StanzaError) -> None:
        reply = error_reply(stanza, error)
        if reply is not None:
            self.send(reply)

    # -- work that waits -----------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` before anything that the client sends from now on is handled."""
        assert self._task is None, "a session waits for one thing at a time"
        self._task = self.host.server.spawn(self._work(work))

    def run_before(self, stanza: Stanza, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` and then hand ``stanza``, which is the one being handled, to the hooks once more."""
        self.run(work)
        self._again = stanza

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StorageUnavailable as error:
            log.warning("session_work_failed", jid=self.jid.full, reason=str(error))
        except Exception:
            log.exception("session_work_failed", jid=self.jid.full)
        finally:
            self._task = None
            again, self._again = self._again, None
            if again is not None and not self.closed:
                self._handle_late(self._dispatch, again)
            self.host.server.continuity.changed(self)
            self._catch_up()

    def _catch_up(self) -> None:
        backlog = self._backlog
        while backlog and self._task is None and not self.closed:
            self._handle_late(self._handle, backlog.popleft())
        if not backlog or self.closed:
            self._backlog = None
            if self.link is not None:
                self.link.resume()
            if self._ending is not None and self._task is None:
                self.end(self._ending)

    def _handle_late(self, handle: Callable[[Stanza], None], stanza: Stanza) -> None:
        """Handle what had to wait. Where that ends the stream, what waits behind it is dropped."""
        try:
            handle(stanza)
        except StreamError as error:
            self._give_up(error)
        except Exception:
            log.exception("stream_failed", jid=self.jid.full)
            self._give_up(StreamError("internal-server-error"))

    def _give_up(self, error: StreamError) -> None:
        if self._backlog is not None:
            self._backlog.clear()
        if self.stream is not None:
            self.stream.fail(error)

    # -- to the client -------------------------------------------------------------------------------------------

    def send(self, raw: bytes) -> None:
        """Send one stanza."""
        if self._held:
            self._held.append(Held(raw, 0, ready=True))
        else:
            self._transmit(raw)

    def hold(self, raw: bytes) -> Held:
        """Give a stanza its place in the stream. It is sent when it has become ready, and :meth:`flush_held` is called."""
        sm, record = self.sm, self.record
        assert sm is not None
        assert record is not None
        if self._held is None:
            self._held = deque()
        if record.adopted is not None:
            number = record.next_provisional()
        else:
            number = sm.acknowledged + len(sm.queue) + len(self._held) + 1
        held = Held(raw, number, ready=False)
        self._held.append(held)
        return held

    def flush_held(self) -> None:
        """Send what is ready and does not wait behind something that is not."""
        held = self._held
        while held and held[0].ready:
            entry = held.popleft()
            self._transmit(entry.raw, entry.number if entry.stored else None)
        if not held:
            self._held = None
            waiting, self._held_sent = self._held_sent, None
            if waiting is not None:
                waiting.set_result(None)

    async def held_sent(self) -> None:
        """Wait until nothing is held any more."""
        while self._held:
            if self._held_sent is None:
                self._held_sent = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._held_sent)

    def _transmit(self, raw: bytes, stored: int | None = None) -> None:
        """Put a stanza on the stream; ``stored`` is its number in the storage."""
        record = self.record
        if record is not None:
            if record.adopted is not None:
                record.adopted.append(stored)
            elif stored is not None:
                record.rows.append(stored)
        link = self.link
        sm = self.sm
        if sm is None:
            if link is not None:
                link.write(raw)
            return
        sm.sent(raw)
        if link is not None:
            link.write(raw)
        options = self.host.stream_management
        waiting = len(sm.queue)
        if waiting >= options.request_after:
            if not sm.requested and link is not None:
                sm.requested = True
                link.write(REQUEST)
            if waiting > options.queue or sm.size > options.queue_size:
                # Later: whoever sends may be going through the user's sessions, and the end takes this one away.
                asyncio.get_running_loop().call_soon(self._overflow)
        elif not self.sm_waiting:
            self._wait_for_request()

    def _wait_for_request(self) -> None:
        if not self.sm_waiting:
            self.sm_waiting = True
            self.host.server.request_later(self)

    def request_acknowledgement(self) -> None:
        """Ask for an acknowledgement if there is something to acknowledge; called some time after it was sent."""
        self.sm_waiting = False
        sm = self.sm
        if sm is not None and sm.queue and not sm.requested and self.link is not None:
            sm.requested = True
            self.link.write(REQUEST)

    def _overflow(self) -> None:
        if self.closed or self._ending is not None:
            return
        log.info("session_queue_full", jid=self.jid.full, stanzas=len(self.sm.queue) if self.sm else 0)
        if self.stream is not None:
            self.stream.fail(StreamError("policy-violation", "too many stanzas are not acknowledged"), resumable=False)
        else:
            self.end("queue full")

    def _write(self, data: bytes) -> None:
        if self.link is not None:
            self.link.write(data)

    def has_room(self) -> bool:
        """Whether the client keeps up with what it is sent, so that much more may be sent at once."""
        if self.link is None or self.closed:
            return False
        sm, options = self.sm, self.host.stream_management
        return sm is None or (len(sm.queue) * 2 < options.queue and sm.size * 2 < options.queue_size)

    def can_queue(self) -> bool:
        """Whether more may be put into the queue of a session that is written down, though its client is away."""
        sm, options = self.sm, self.host.stream_management
        return (
            self.record is not None
            and self.record.renumbering is None
            and sm is not None
            and not self.closed
            and len(sm.queue) * 2 < options.queue
            and sm.size * 2 < options.queue_size
        )

    async def drained(self) -> bool:
        """Wait until the client has taken, and with stream management acknowledged, most of what it was sent.

        False when the session is away or over by then, or the client takes nothing for too long.
        """
        try:
            async with asyncio.timeout(self.host.limits.write_time):
                if self.link is not None:
                    await self.link.drained()
                while self.link is not None and not self.has_room():
                    self.request_acknowledgement()
                    if self._caught_up is None:
                        self._caught_up = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._caught_up)
        except TimeoutError:
            return False
        return self.has_room()

    def _wake(self) -> None:
        """Let :meth:`drained` look again."""
        waiting, self._caught_up = self._caught_up, None
        if waiting is not None:
            waiting.set_result(None)

    def settle_later(self) -> int | None:
        """The stanza handled now has an effect that is not durable yet: don't acknowledge it. See :meth:`settled`."""
        return None if self.sm is None or self._injecting else self.sm.unsettle()

    def settled(self, number: int | None) -> None:
        """Acknowledge what :meth:`settle_later` held back."""
        sm = self.sm
        if sm is not None and number is not None and sm.settle(number) and sm.answered < sm.received:
            if self.record is None:
                self._answer()
            elif self.record.owed:
                # Only who has asked is told, since every count that is told has to be stored before.
                self.record.owed = False
                self._answer()

    def _answer(self) -> None:
        if self.record is not None:
            self.host.server.continuity.answer(self)
        elif self.sm is not None:
            self._write(self.sm.answer())

    def acknowledge(self, count: int) -> None:
        """Tell the client that so many of its stanzas are handled."""
        if self.sm is not None:
            self._write(self.sm.answer(count))

    # -- connections come and go ---------------------------------------------------------------------------------

    def detach(self) -> None:
        """The connection is lost; the client may resume."""
        self.link = None
        self.stream = None
        self._wake()

    def attach(self, stream: ClientStream) -> None:
        """A new connection has resumed the session: what was not acknowledged is sent again."""
        sm = self.sm
        assert sm is not None
        self.stream = stream
        self.link = stream.link
        self.peer = stream.peer
        self.secure = stream.link.secure
        sm.requested = False
        for raw in sm.queue:
            stream.link.write(raw)
        if sm.queue:
            sm.requested = True
            stream.link.write(REQUEST)

    def finish(self, reason: str) -> None:
        """End the session as soon as everything that the client has sent is handled."""
        if self._task is None:
            self.end(reason)
        else:
            self._ending = reason
            self.detach()
            # Nobody delivers to it or resumes it meanwhile: what it would take now is lost.
            self.host.server.continuity.ending(self)
            self.host.remove_session(self)
            self.host.server.session_ended(self)

    def end(self, reason: str) -> None:
        """End the session: tell contacts, hand undelivered stanzas on. Does nothing when it has ended."""
        if self.closed:
            return
        self.closed = True
        self.detach()
        self.host.server.continuity.ending(self)
        self.host.remove_session(self)
        try:
            self.host.hooks.session_closed(self, reason)
        except Exception:
            log.exception("hook_failed", hook="session_closed", jid=self.jid.full)
        self.host.server.session_ended(self)
        log.info("session_closed", jid=self.jid.full, reason=reason)
        if self.record is not None:
            self.host.server.continuity.ended(self, self.sm)
        elif self.sm is not None:
            sm, self.sm = self.sm, None
            redeliver(self, sm)

    @property
    def resumable_elsewhere(self) -> bool:
        """Another worker can go on with the session."""
        return self.record is not None and self.sm is not None and self.sm.token is not None

    def abandon(self, reason: str) -> None:
        """The session goes on at another worker: forget it here, and tell nobody but its client, who may resume it there."""
        if self.closed:
            return
        self.host.server.continuity.part(self)
        self.closed = True
        stream = self.stream
        self.detach()
        self.host.remove_session(self)
        self.host.hooks.session_left(self)
        self.host.server.session_ended(self)
        log.info("session_left", jid=self.jid.full, reason=reason)
        if stream is not None:
            stream.fail(StreamError("system-shutdown", "the session goes on elsewhere, resume it"))

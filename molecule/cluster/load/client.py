"""One client: logs in, comes back when the connection breaks, resumes, and repeats what was not acknowledged."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from typing import TYPE_CHECKING

from bench.sasl import AuthenticationError
from bench.stream import attribute
from load.contacts import Contacts
from load.interruptions import Interruptions
from load.login import LoginError, Service, authenticated, condition, expect
from load.management import Management, TooManyAcknowledgedError
from load.stream import Stream, StreamClosedError

if TYPE_CHECKING:
    from load.accounts import Account
    from load.ledger import Ledger, Message

FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0
"""The back-off between two attempts, in seconds."""
_LOGIN_TIME = 10.0
_IDLE_TIME = 5.0
"""A client asks whether the server is there after so many seconds without a word …"""
PATIENCE = 10.0
"""… and takes the connection for dead after so many more without an answer."""

_SM = b"urn:xmpp:sm:3"
_REQUEST = b"<r xmlns='%b'/>" % _SM
_BODY = re.compile(rb"<body(?: [^<>]*)?>([^<]*)</body>")
_STREAM_END = "the server ended the stream"
_JID = re.compile(rb"<jid>([^<]*)</jid>")


class Client:
    """A client application over the whole of its life, however many connections and sessions that takes.

    Attributes:
        number: its number in the ledger.
        account: who logs in.
        jid: the full address of the present session.
        session: how many sessions were begun; a resumed one is the same one.
        contacts: who is online, as far as it was told.
        interruptions: of this round.
        counts: of this round: `resumptions`, `new sessions`.
        ends: why streams ended and attempts failed, in this round.
    """

    def __init__(self, number: int, account: Account, service: Service, ledger: Ledger, *, resource: str) -> None:
        """Make it; `start` lets it log in.

        Args:
            number: its number in the ledger.
            account: who logs in.
            service: where.
            ledger: what becomes of messages.
            resource: the resource to ask for; `{}` in it stands for the number of the session.
        """
        self.number = number
        self.account = account
        self.jid = b""
        self.session = 0
        self.contacts = Contacts(self._send_stanza)
        self.interruptions = Interruptions()
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.management = Management()
        self._service = service
        self._ledger = ledger
        self._resource = resource
        self._loop = asyncio.get_running_loop()
        # The proxies share the clients; each client goes on to the next one when one does not answer.
        self._next_address = number
        self._stream: Stream | None = None
        self._broken = asyncio.Event()
        self._leaving = False
        self._confirmed = False
        self._life: asyncio.Task[None] | None = None
        self._random = random.Random(number)  # noqa: S311 - so that not everybody comes back at once

    @property
    def usable(self) -> bool:
        """Whether there is an established stream, as far as the client knows."""
        return self._stream is not None

    # ---------------------------------------------------------------------------------------------- its life

    def start(self) -> None:
        """Log in and stay."""
        self._leaving = False
        self._life = asyncio.create_task(self._live(), name=f"client {self.account.user}")

    async def leave(self, patience: float) -> bool:
        """Log out in good order; returns whether the server has confirmed it within the time."""
        self._leaving = True
        self._confirmed = False
        if self._stream is not None:
            self._stream.write(self._answer() + b"<presence type='unavailable'/></stream:stream>")
            try:
                async with asyncio.timeout(patience):
                    await self._broken.wait()
            except TimeoutError:
                self.ends["no answer to the end of the stream"] += 1
        self.stop()
        self.management.begin(b"")
        return self._confirmed

    def stop(self) -> None:
        """End at once, as a machine does that is switched off."""
        if self._life is not None:
            self._life.cancel()
            self._life = None
        if self._stream is not None:
            self._leaving = True
            self._stream.abort("stopped")

    async def _live(self) -> None:
        delay = FIRST_DELAY
        while not self._leaving:
            try:
                async with asyncio.timeout(_LOGIN_TIME):
                    await self._come()
            except (OSError, StreamClosedError, LoginError, AuthenticationError) as error:
                self.ends[_describe(error)] += 1
                self._next_address += 1
                await asyncio.sleep(delay * self._random.uniform(0.5, 1))
                delay = min(2 * delay, LONGEST_DELAY)
                continue
            await self._broken.wait()
            delay = FIRST_DELAY
            await asyncio.sleep(delay * self._random.uniform(0.5, 1))

    async def _come(self) -> None:
        addresses = self._service.addresses
        stream = await authenticated(self._service, addresses[self._next_address % len(addresses)], self.account)
        try:
            if not await self._resume(stream):
                await self._bind(stream)
        except BaseException:
            stream.abort("given up")
            raise

    async def _resume(self, stream: Stream) -> bool:
        """Take the former session up again; returns whether the server has it still."""
        management = self.management
        if not management.token:
            return False
        stream.write(b"<resume xmlns='%b' previd='%b' h='%d'/>" % (_SM, management.token, management.inbound))
        answer = await stream.next()
        handled = attribute(answer, b"h")
        if answer.startswith(b"<failed"):
            self.ends[f"not resumed: {condition(answer)}"] += 1
            management.token = b""
            if handled is not None:
                self._acknowledge(int(handled))
            return False
        expect(answer, b"<resumed")
        self._acknowledge(int(handled or b"0"))
        self.counts["resumptions"] += 1
        rest = b"".join(stanza for stanza, _ in management.queue)
        self._established(stream)
        stream.request(rest + _REQUEST)
        stream.listen(self)
        return True

    async def _bind(self, stream: Stream) -> None:
        """Begin a session of one's own."""
        resource = self._resource.format(self.session + 1)
        stream.write(
            b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            b"<resource>%b</resource></bind></iq>" % resource.encode()
        )
        result = expect(await stream.next(), b"<iq")
        jid = _JID.search(result)
        if jid is None:
            raise LoginError(f"binding is refused: {condition(result)}")
        stream.write(b"<enable xmlns='%b' resume='true'/>" % _SM)
        self.jid = jid[1]
        self.session += 1
        # Who knows the resource may have written to it already. Stanzas count from the answer on.
        while (answer := await stream.next()).startswith((b"<message", b"<presence", b"<iq")):
            if answer.startswith(b"<message"):
                self._message(answer)
        rest = self.management.begin(attribute(expect(answer, b"<enabled"), b"id") or b"")
        if self.session > 1:
            self.counts["new sessions"] += 1
        self._established(stream)
        self.contacts.begin()
        self._send_stanza(b"<presence/>")
        for stanza, message in rest:
            self._ledger.resent(message)
            self._send(stanza, message)
        stream.listen(self)

    def _established(self, stream: Stream) -> None:
        self._stream = stream
        self._broken.clear()
        self.interruptions.up(self._loop.time())

    def closed(self, reason: str) -> None:
        """The connection has ended."""
        if self._leaving:
            self._confirmed = reason == _STREAM_END
        else:
            self.ends[reason] += 1
            self.interruptions.down(self._loop.time())
        self._stream = None
        self._broken.set()

    def watch(self, now: float) -> None:
        """Look after the connection; to be called about once a second."""
        stream = self._stream
        if stream is None:
            return
        if stream.awaiting and now - stream.awaiting > PATIENCE:
            self.interruptions.down(stream.awaiting)
            stream.abort("the server is silent")
        elif not stream.awaiting and now - stream.last_received > _IDLE_TIME:
            ping = b"<iq type='get' id='ping' to='%b'><ping xmlns='urn:xmpp:ping'/></iq>"
            self._send_stanza(ping % self.account.domain.encode())

    # ---------------------------------------------------------------------------------------------- sending

    def say(self, message: Message, to: bytes) -> None:
        """Send a message; the stream has to be usable."""
        stanza = b"<message to='%b' type='chat' id='%b'><body>%b</body></message>" % (to, message.id, message.body)
        self._send(stanza, message)

    def _send_stanza(self, stanza: bytes) -> None:
        self._send(stanza, None)

    def _send(self, stanza: bytes, message: Message | None) -> None:
        self.management.sent(stanza, message)
        if self._stream is not None:
            self._stream.request(stanza + _REQUEST)

    def request_acknowledgement(self) -> None:
        """Ask the server how far it is."""
        if self._stream is not None:
            self._stream.request(_REQUEST)

    def _answer(self) -> bytes:
        return b"<a xmlns='%b' h='%d'/>" % (_SM, self.management.inbound)

    # ---------------------------------------------------------------------------------------------- receiving

    def element(self, element: bytes) -> None:
        """An element of the server's, on an established stream."""
        if element.startswith(b"<message"):
            self.management.received()
            self._message(element)
        elif element.startswith((b"<r ", b"<r/")):
            if self._stream is not None:
                self._stream.write(self._answer())
        elif element.startswith(b"<a "):
            self._acknowledge(int(attribute(element, b"h") or b"0"))
        elif element.startswith(b"<presence"):
            self.management.received()
            self.contacts.presence(element)
        elif element.startswith(b"<iq"):
            self.management.received()
            self.contacts.iq(element)
        elif element.startswith(b"<stream:error"):
            self._end(f"stream error {condition(element)}")
        elif element.startswith(b"</stream:stream"):
            self._end(_STREAM_END)

    def _end(self, reason: str) -> None:
        if self._stream is not None:
            self._stream.abort(reason)

    def _message(self, element: bytes) -> None:
        identifier = attribute(element, b"id") or b""
        if attribute(element, b"type") == b"error":
            error = element[element.find(b"<error") :]
            self._ledger.bounced(identifier, condition(error) or "no condition")
            return
        body = _BODY.search(element)
        if body is not None:
            self._ledger.arrived(identifier, body[1], self.number, self.session, self._loop.time())

    def _acknowledge(self, h: int) -> None:
        try:
            messages = self.management.acknowledge(h)
        except TooManyAcknowledgedError as error:
            self.ends[str(error)] += 1
            self.management.token = b""
            self._end("wrong acknowledgement")
            return
        now = self._loop.time()
        for message in messages:
            self.interruptions.waited(self._ledger.acknowledged(message, now))


def _describe(error: Exception) -> str:
    """The kind of failure, without what differs from one client to the next."""
    if isinstance(error, TimeoutError):
        return "time-out"
    if isinstance(error, OSError):
        return f"cannot connect: {type(error).__name__}"
    return str(error)

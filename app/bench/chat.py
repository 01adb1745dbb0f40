"""The chat workload: pairs of clients, each sender keeping a window of messages on the way to its partner."""

from __future__ import annotations

import contextlib
import gc
import re
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bench.messages import Findings, Ledger
from bench.session import ACK_REQUEST, Session
from bench.stream import INCOMPLETE, element_end, skip_white_space
from bench.transport import LoadTimeoutError, Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The messages that servers pass on as they are; what does not look like this takes the slow way.
_MESSAGE = re.compile(rb"<message\b[^<>]*><body>([^<]*)</body></message>")
_BODY = re.compile(rb"<body(?: [^<>]*)?>([^<]*)</body>")

# A client asks for an acknowledgement every so many stanzas (slixmpp's default; others ask more often).
ACK_INTERVAL = 5
_DRAIN_SECONDS = 10.0
_LINGER_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ChatResult:
    """One measurement of routing.

    Attributes:
        messages: how many arrived while it was measured.
        seconds: for how long.
        server_cpu: seconds of CPU of the server meanwhile.
        own_cpu: the load generator's own.
        latencies: seconds, sorted.
        findings: what went wrong, in warm-up and measurement.
        unacknowledged: sessions whose stanzas the server did not acknowledge completely (XEP-0198).
    """

    messages: int
    seconds: float
    server_cpu: float
    own_cpu: float
    latencies: array[float]
    findings: Findings
    unacknowledged: int


class Sessions(Protocol):
    """Who knows whether sessions have broken: a crowd."""

    def check(self) -> None:
        """See crowd.Crowd."""

    def broken(self) -> int:
        """See crowd.Crowd."""


class Pair:
    """A sender and its partner; reads the partner's stream itself, because this is where the time goes."""

    __slots__ = (
        "_buffer",
        "_chat",
        "_management",
        "_prefix",
        "_receiver",
        "_sender",
        "_since_request",
        "bounced",
        "due",
        "ledger",
    )

    def __init__(self, chat: Chat, number: int, sender: Session, receiver: Session, *, management: bool) -> None:
        self._chat = chat
        self._sender = sender
        self._receiver = receiver
        self._management = management
        self._buffer = b""
        self._since_request = 0
        self._prefix = b"<message to='%b' type='chat' id='m" % receiver.jid
        self.ledger = Ledger(number)
        self.due = 0
        self.bounced = b""
        receiver.on_data = self._received
        receiver.on_message = self._unusual_message
        sender.on_message = self._bounce

    def _received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        size = len(buffer)
        position = 0
        while position < size:
            message = _MESSAGE.match(buffer, position)
            if message is not None:
                position = message.end()
                self._receiver.inbound += 1
                self._arrived(message[1])
                continue
            position = skip_white_space(buffer, position)
            end = element_end(buffer, position) if position < size else INCOMPLETE
            if end == INCOMPLETE:
                break
            self._receiver.handle(buffer[position:end])
            position = end
        self._buffer = buffer[position:]

    def _arrived(self, body: bytes) -> None:
        sent = self.ledger.arrived(body)
        if sent is None:
            return
        chat = self._chat
        chat.arrived += 1
        if chat.latencies is not None:
            chat.latencies.append(time.perf_counter() - sent)
        if chat.active:
            if not self.due:
                chat.to_send.append(self)
            self.due += 1

    def _unusual_message(self, element: bytes) -> None:
        """A message that the server has added something to, or one of its own."""
        body = _BODY.search(element)
        if body is not None:
            self._arrived(body[1])

    def _bounce(self, element: bytes) -> None:
        self.bounced = element

    def send_due(self, now: float) -> None:
        """Send as many messages as arrived since the last time, in one piece."""
        parts = []
        prefix = self._prefix
        for _ in range(self.due):
            number = self.ledger.next_sequence
            parts.append(b"%b%d'><body>%b</body></message>" % (prefix, number, self.ledger.new_body(now)))
            if self._management:
                self._since_request += 1
                if self._since_request == ACK_INTERVAL:
                    self._since_request = 0
                    parts.append(ACK_REQUEST)
        self._sender.outbound += self.due
        self.due = 0
        self._sender.send(b"".join(parts))


class Chat:
    """The pairs of one crowd; can measure several windows one after the other.

    Attributes:
        arrived: messages that have arrived since the beginning.
        latencies: where to note seconds, None when it is not measured.
        active: whether an arrival makes the sender send the next message.
        to_send: the pairs that have something due.
    """

    def __init__(self, loop: Loop, crowd: Sessions, sessions: Sequence[Session], *, management: bool) -> None:
        self._loop = loop
        self._crowd = crowd
        self._sessions = sessions
        self._management = management
        self.arrived = 0
        self.latencies: array[float] | None = None
        self.active = False
        self.to_send: list[Pair] = []
        self._pairs = [
            Pair(self, number, sender, receiver, management=management)
            for number, (sender, receiver) in enumerate(zip(sessions[::2], sessions[1::2], strict=True))
        ]

    def measure(self, window: int, warm_up: float, duration: float, server_cpu: Callable[[], float]) -> ChatResult:
        """Keep `window` messages of each pair on the way for warm_up + duration seconds, then let them arrive.

        Raises:
            SessionError: a session broke.
        """
        loop = self._loop
        gc.collect()
        gc.disable()
        try:
            self.active = True
            for pair in self._pairs:
                pair.due = window
            self.to_send = list(self._pairs)
            loop.after_round = self._send_due
            self._send_due()
            loop.run_for(warm_up)
            self.latencies = array("d")
            arrived, cpu, own, begin = self.arrived, server_cpu(), time.process_time(), time.perf_counter()
            loop.run_for(duration)
            seconds = time.perf_counter() - begin
            own, cpu, arrived = time.process_time() - own, server_cpu() - cpu, self.arrived - arrived
            latencies, self.latencies = self.latencies, None
            findings = self._drain()
            unacknowledged = self._missing_acknowledgements() if self._management else 0
        finally:
            gc.enable()
            loop.after_round = None
        self._crowd.check()
        return ChatResult(arrived, seconds, cpu, own, array("d", sorted(latencies)), findings, unacknowledged)

    def _send_due(self) -> None:
        if self.to_send:
            pairs, self.to_send = self.to_send, []
            now = time.perf_counter()
            for pair in pairs:
                pair.send_due(now)

    def _drain(self) -> Findings:
        """Wait for what is on the way, and a moment longer for what should not come."""
        self.active = False
        self._send_due()
        with contextlib.suppress(LoadTimeoutError):
            self._loop.run(self._all_arrived, _DRAIN_SECONDS, "the last messages")
        self._loop.run_for(_LINGER_SECONDS)
        findings = Findings()
        for pair in self._pairs:
            findings.add(pair.ledger.close())
        return findings

    def _all_arrived(self) -> bool:
        return not any(pair.ledger.outstanding for pair in self._pairs) or self._crowd.broken() > 0

    def first_bounce(self) -> str:
        """A message that came back to its sender with an error, to explain a loss; empty if none did."""
        return next((pair.bounced.decode(errors="replace") for pair in self._pairs if pair.bounced), "")

    def _missing_acknowledgements(self) -> int:
        for session in self._sessions:
            session.send(ACK_REQUEST)
        with contextlib.suppress(LoadTimeoutError):
            self._loop.run(lambda: not self._unacknowledged(), _DRAIN_SECONDS, "the last acknowledgements")
        return self._unacknowledged()

    def _unacknowledged(self) -> int:
        return sum(session.acknowledged != session.outbound for session in self._sessions)

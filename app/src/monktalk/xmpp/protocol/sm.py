"""Stream management (XEP-0198) as counters and a queue: what was handled, what the peer has not acknowledged yet."""

from __future__ import annotations

from collections import deque

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StreamError

_MODULUS = 1 << 32
REQUEST = f"<r xmlns='{ns.STREAM_MANAGEMENT}'/>".encode()


class StreamManagement:
    """The state of one session. Counters grow without bound inside and are reduced modulo 2**32 on the wire.

    ``received`` counts the peer's stanzas that were taken over; those whose effect is not durable yet are ``unsettled``
    and not acknowledged. ``queue`` holds the stanzas that the peer has not acknowledged, oldest first, ``size`` their bytes.
    ``requested`` is set while an acknowledgement has been asked for and has not come.
    """

    __slots__ = (
        "acknowledged",
        "answered",
        "newcomers",
        "queue",
        "received",
        "requested",
        "size",
        "token",
        "unsettled",
    )

    def __init__(self, token: str | None = None) -> None:
        self.received = 0
        self.answered = 0
        self.acknowledged = 0
        self.queue: deque[bytes] = deque()
        self.size = 0
        self.requested = False
        self.token = token
        self.newcomers: dict[str, int] | None = None
        self.unsettled: dict[int, None] | None = None

    def sent(self, raw: bytes) -> None:
        """A stanza was given to the stream."""
        self.queue.append(raw)
        self.size += len(raw)

    def acknowledge(self, h: str | None) -> int:
        """Take the peer's counter; returns how many stanzas it newly acknowledges.

        Raises :class:`StreamError` when it is no number or higher than what was sent (XEP-0198 section 4).
        """
        newly = self.newly(h)
        if newly > len(self.queue):
            sent = (self.acknowledged + len(self.queue)) % _MODULUS
            raise StreamError(
                "undefined-condition",
                f"{h} stanzas acknowledged, but {sent} were sent",
                application=f"<handled-count-too-high xmlns='{ns.STREAM_MANAGEMENT}' h='{h}' send-count='{sent}'/>".encode(),
            )
        queue = self.queue
        for _ in range(newly):
            self.size -= len(queue.popleft())
        self.acknowledged += newly
        self.requested = False
        return newly

    @staticmethod
    def _number(h: str | None) -> int:
        if h is None or not h.isascii() or not h.isdigit() or len(h) > 10 or int(h) >= _MODULUS:
            raise StreamError("policy-violation", "the attribute h must be a number below 2**32")
        return int(h)

    def newly(self, h: str | None) -> int:
        """How many stanzas the peer's counter is ahead of what it has acknowledged, whatever was sent.

        Raises :class:`StreamError` when it is no number.
        """
        return (self._number(h) - self.acknowledged) % _MODULUS

    def note_newcomer(self, resource: str) -> None:
        """Another resource of the account takes messages from now on: it has missed what was sent before."""
        if self.newcomers is None:
            self.newcomers = {}
        self.newcomers[resource] = self.acknowledged + len(self.queue)

    def missed_by(self, resource: str) -> int:
        """The number of the last stanza that was sent before the resource took messages; 0 when it always did."""
        return self.newcomers.get(resource, 0) if self.newcomers is not None else 0

    def unsettle(self) -> int:
        """The stanza handled last has an effect that is not durable yet. Returns its number, for :meth:`settle`."""
        if self.unsettled is None:
            self.unsettled = {}
        self.unsettled[self.received] = None
        return self.received

    def settle(self, number: int) -> bool:
        """The effect of that stanza is durable, or its failure was answered. True when nothing is unsettled any more."""
        if self.unsettled is not None:
            self.unsettled.pop(number, None)
            if not self.unsettled:
                self.unsettled = None
        return self.unsettled is None

    def rewind(self, count: int) -> None:
        """The peer is told, as it resumes, that ``count`` stanzas are handled: it sends the others again."""
        self.received = self.answered = count
        self.unsettled = None

    @property
    def handled(self) -> int:
        """The number of stanzas that may be acknowledged to the peer: all before the first unsettled one."""
        if self.unsettled is None:
            return self.received
        return next(iter(self.unsettled)) - 1

    def answer(self, count: int | None = None) -> bytes:
        """``<a/>`` with the present counter, or with ``count``."""
        self.answered = self.handled if count is None else count
        return f"<a xmlns='{ns.STREAM_MANAGEMENT}' h='{self.answered % _MODULUS}'/>".encode()

    @property
    def h(self) -> int:
        """The counter as it goes on the wire."""
        return self.handled % _MODULUS

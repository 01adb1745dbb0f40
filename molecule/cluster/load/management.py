"""The client's half of stream management (XEP-0198): what was sent and is not acknowledged, what was received."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from load.ledger import Message

_MODULUS = 2**32


class TooManyAcknowledgedError(Exception):
    """The server acknowledges stanzas that it was never sent."""


class Management:
    """The counters of one session and its queue; they live on when the session is resumed.

    Attributes:
        token: the id to resume by; empty when there is nothing to resume.
        inbound: stanzas received.
        queue: stanzas sent and not acknowledged, each with the message that it is, if it is one of ours.
    """

    __slots__ = ("_acknowledged", "inbound", "queue", "token")

    def __init__(self) -> None:
        self.token = b""
        self.inbound = 0
        self.queue: deque[tuple[bytes, Message | None]] = deque()
        self._acknowledged = 0

    def sent(self, stanza: bytes, message: Message | None = None) -> None:
        """Keep a stanza until the server has acknowledged it."""
        self.queue.append((stanza, message))

    def received(self) -> None:
        """Count a stanza of the server."""
        self.inbound = (self.inbound + 1) % _MODULUS

    def acknowledge(self, h: int) -> list[Message]:
        """Drop what the server says that it has handled; returns the messages among it.

        Raises:
            TooManyAcknowledgedError: the number is beyond what was sent.
        """
        count = (h - self._acknowledged) % _MODULUS
        if count > len(self.queue):
            raise TooManyAcknowledgedError(
                f"the server acknowledges {h} stanzas, {(self._acknowledged + len(self.queue)) % _MODULUS} were sent"
            )
        self._acknowledged = h
        done = [self.queue.popleft()[1] for _ in range(count)]
        return [message for message in done if message is not None]

    def begin(self, token: bytes) -> list[tuple[bytes, Message]]:
        """Count anew for a new session; returns the messages that were never acknowledged, in their order."""
        rest = [(stanza, message) for stanza, message in self.queue if message is not None]
        self.token = token
        self.inbound = 0
        self.queue.clear()
        self._acknowledged = 0
        return rest

    @property
    def messages(self) -> int:
        """How many messages wait for their acknowledgement."""
        return sum(message is not None for _, message in self.queue)

"""The benchmark's messages: each body says what it is, so that loss, repetition, damage and mix-ups show."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass

BODY_SIZE = 100
_TEXT = b"The quick brown fox jumps over the lazy dog and then sits down to wait for the next message to arrive."


def make_body(pair: int, sequence: int) -> bytes:
    """A body of BODY_SIZE bytes: CRC-32 of all that follows, number of the pair, number of the message, text."""
    head = b"%05d %010d " % (pair, sequence)
    content = head + _TEXT[: BODY_SIZE - 9 - len(head)]
    return b"%08x %b" % (zlib.crc32(content), content)


def read_body(body: bytes) -> tuple[int, int] | None:
    """Pair and sequence number of a body, or None if it is damaged."""
    try:
        pair, sequence = int(body[9:14]), int(body[15:25])
    except ValueError:
        return None
    return (pair, sequence) if body == make_body(pair, sequence) else None


@dataclass(slots=True)
class Findings:
    """What went wrong with messages; all zero when every message arrived once, intact and in order."""

    lost: int = 0
    duplicated: int = 0
    damaged: int = 0
    misdelivered: int = 0
    reordered: int = 0

    def __bool__(self) -> bool:
        return bool(self.lost or self.duplicated or self.damaged or self.misdelivered or self.reordered)

    def add(self, other: Findings) -> None:
        """Add the numbers of another one."""
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.damaged += other.damaged
        self.misdelivered += other.misdelivered
        self.reordered += other.reordered


class Ledger:
    """The messages of one sender that have not arrived yet, with the moment each was sent."""

    __slots__ = ("_late", "findings", "next_sequence", "outstanding", "pair")

    def __init__(self, pair: int) -> None:
        self.pair = pair
        self.next_sequence = 0
        self.outstanding: deque[tuple[bytes, float]] = deque()
        self.findings = Findings()
        # Skipped over by a later message: lost, unless they still come.
        self._late: set[bytes] = set()

    def new_body(self, now: float) -> bytes:
        """The body of the next message, entered as sent at `now`."""
        body = make_body(self.pair, self.next_sequence)
        self.next_sequence += 1
        self.outstanding.append((body, now))
        return body

    def arrived(self, body: bytes) -> float | None:
        """Enter the arrival of a body; returns when it was sent, None when it is not one we were waiting for."""
        outstanding = self.outstanding
        if outstanding and outstanding[0][0] == body:
            return outstanding.popleft()[1]
        return self._unexpected(body)

    def _unexpected(self, body: bytes) -> float | None:
        findings = self.findings
        content = read_body(body)
        if content is None:
            findings.damaged += 1
        elif content[0] != self.pair:
            findings.misdelivered += 1
        elif body in self._late:
            self._late.discard(body)
            findings.reordered += 1
        elif any(waiting == body for waiting, _ in self.outstanding):
            return self._skip_to(body)
        else:
            findings.duplicated += 1
        return None

    def _skip_to(self, body: bytes) -> float:
        while True:
            waiting, sent = self.outstanding.popleft()
            if waiting == body:
                return sent
            self._late.add(waiting)

    def close(self) -> Findings:
        """Count what has not arrived as lost; returns all findings since the last time."""
        findings, self.findings = self.findings, Findings()
        findings.lost += len(self.outstanding) + len(self._late)
        self.outstanding.clear()
        self._late.clear()
        return findings

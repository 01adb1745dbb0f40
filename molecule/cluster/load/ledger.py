"""What became of every message: acknowledged to its sender, received, how often, in which order."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field

_TEXT = "The quick brown fox jumps over the lazy dog and waits for the next message."


@dataclass(slots=True, eq=False)
class Message:
    """One message and its fate.

    Attributes:
        id: the id of the stanza, the same in every repetition.
        sender: number of the client that sends it.
        recipient: number of the client that it is for.
        sequence: its place among the messages between these two, from 1.
        sent: when it was first given to the network.
        acknowledged: when the server took the responsibility for it (XEP-0198); 0 before.
        received: when it first arrived; 0 before.
        bounced: the condition of the error that came back for it.
        resent: sent once more in a new session, because nobody knew what had become of it.
        seen_in: number of the recipient's session in which it arrived last.
        repeats: how often it arrived again.
    """

    id: bytes
    sender: int
    recipient: int
    sequence: int
    sent: float
    acknowledged: float = 0.0
    received: float = 0.0
    bounced: str = ""
    resent: bool = False
    seen_in: int = 0
    repeats: int = 0

    @property
    def body(self) -> bytes:
        """The text, which follows from the rest, so that damage shows."""
        return b"%b from %d to %d, number %d. %b" % (
            self.id,
            self.sender,
            self.recipient,
            self.sequence,
            _TEXT.encode(),
        )

    @property
    def lost(self) -> bool:
        """The server said that it had it, and nobody got it or was told."""
        return bool(self.acknowledged) and not self.received and not self.bounced

    @property
    def open(self) -> bool:
        """Whether something is still to happen: an acknowledgement, an arrival."""
        return not self.acknowledged or self.lost


@dataclass(slots=True)
class Findings:
    """The sums over the messages of one round.

    Attributes:
        sent: messages given to the network.
        acknowledged: those that the server took the responsibility for.
        lost: acknowledged, never received, and no error came back.
        duplicated: arrivals beyond the first.
        duplicates: how the duplicated ones came about: `resent` (the sender had begun a new session and sent it
            again), `new session` (the recipient had), `same session`.
        bounced: errors that came back, by their condition.
        unacknowledged: those that the server has said nothing about.
        resent: messages that were sent again in a new session.
        misordered: first arrivals behind a message that the same sender had sent later to the same recipient.
        damaged: arrivals with another text.
        misdelivered: arrivals at somebody else.
        strays: arrivals of messages that nobody in this process has sent.
        delay: the longest time between sending and arrival, of messages to clients that were online.
    """

    sent: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    duplicates: Counter[str] = field(default_factory=Counter)
    bounced: Counter[str] = field(default_factory=Counter)
    unacknowledged: int = 0
    resent: int = 0
    misordered: int = 0
    damaged: int = 0
    misdelivered: int = 0
    strays: int = 0
    delay: float = 0.0


class Ledger:
    """The messages of all clients, in rounds. What arrives late counts in the round in which it arrives."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._messages: dict[bytes, Message] = {}
        self._round: list[Message] = []
        self._sequences: dict[tuple[int, int], int] = {}
        self._newest: dict[tuple[int, int], int] = {}
        self._findings = Findings()

    def new(self, sender: int, recipient: int, now: float) -> Message:
        """The next message from one client to another, entered as sent."""
        pair = sender, recipient
        sequence = self._sequences[pair] = self._sequences.get(pair, 0) + 1
        message = Message(f"{self._run}-{len(self._messages) + 1}".encode(), sender, recipient, sequence, now)
        self._messages[message.id] = message
        self._round.append(message)
        return message

    def acknowledged(self, message: Message, now: float) -> float:
        """Enter that the server has acknowledged it; returns the time that it took."""
        if not message.acknowledged:
            message.acknowledged = now
        return message.acknowledged - message.sent

    def resent(self, message: Message) -> None:
        """Enter that the sender has sent it again, in a new session."""
        message.resent = True
        self._findings.resent += 1

    def bounced(self, identifier: bytes, condition: str) -> None:
        """Enter that an error came back for it."""
        message = self._messages.get(identifier)
        if message is None:
            self._findings.strays += 1
            return
        message.bounced = condition
        self._findings.bounced[condition] += 1

    def arrived(self, identifier: bytes, body: bytes, recipient: int, session: int, now: float) -> None:
        """Enter an arrival.

        Args:
            identifier: the id of the stanza.
            body: its text.
            recipient: the client that got it.
            session: the how-many-eth session of that client it came in; a resumed session is the same one.
            now: when.
        """
        findings = self._findings
        message = self._messages.get(identifier)
        if message is None:
            findings.strays += 1
            return
        if message.recipient != recipient:
            findings.misdelivered += 1
            return
        if body != message.body:
            findings.damaged += 1
        if message.received:
            self._again(message, session)
        else:
            message.received = now
            self._in_order(message)
        message.seen_in = session

    def _again(self, message: Message, session: int) -> None:
        message.repeats += 1
        self._findings.duplicated += 1
        if message.resent:
            self._findings.duplicates["resent"] += 1
        else:
            self._findings.duplicates["same session" if session == message.seen_in else "new session"] += 1

    def _in_order(self, message: Message) -> None:
        pair = message.sender, message.recipient
        if message.sequence < self._newest.get(pair, 0):
            self._findings.misordered += 1
        else:
            self._newest[pair] = message.sequence

    def open(self, recipients: set[int] | None = None) -> list[Message]:
        """The messages of this round that something is still to happen to; only those for some recipients if named."""
        return [
            message
            for message in self._round
            if message.open and (recipients is None or message.recipient in recipients)
        ]

    def close_round(self, online: set[int]) -> tuple[Findings, list[Message]]:
        """Sum up and begin the next round.

        Args:
            online: the clients that were online all the time, whose messages should not take long.

        Returns:
            The sums, and the messages that were lost, came more than once, came back, or are not acknowledged.
        """
        findings, self._findings = self._findings, Findings()
        messages, self._round = self._round, []
        findings.sent = len(messages)
        for message in messages:
            findings.acknowledged += bool(message.acknowledged)
            findings.unacknowledged += not message.acknowledged
            findings.lost += message.lost
            if message.received and message.recipient in online:
                findings.delay = max(findings.delay, message.received - message.sent)
        return findings, [each for each in messages if each.open or each.repeats or each.bounced]

"""One round: clients talk while something happens, then everything comes to rest and is counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from load.crowd import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from load.client import Client
    from load.crowd import Crowd
    from load.ledger import Findings, Ledger, Message

_ASK = 0.5
_LINGER = 2.0
"""How long what should not come any more is waited for."""
_MOST_EXAMPLES = 10


@dataclass(slots=True)
class Report:
    """What one round has shown.

    Attributes:
        name: what happened meanwhile.
        seconds: how long clients were talking.
        clients: how many.
        findings: the sums over the messages.
        resumptions: sessions that were resumed.
        new_sessions: sessions that were begun because the former one could not be resumed.
        interruption: the longest interruption of any client, in seconds.
        untouched: the longest one of the clients that nothing had happened to; None when it was not said who these are.
        touched: how many clients something had happened to; None when it was not said.
        ghosts: who saw somebody that was not there any more, at the end and not at the beginning.
        unseen: who did not see somebody that was there, at the end and not at the beginning.
        incomplete: what did not come to rest within the time; empty when everything did.
        ends: why streams ended and attempts failed.
        examples: some of the messages that something is wrong with.
        cpu: seconds of CPU time that this program has used.
    """

    name: str
    seconds: float
    clients: int
    findings: Findings
    resumptions: int = 0
    new_sessions: int = 0
    interruption: float = 0.0
    untouched: float | None = None
    touched: int | None = None
    ghosts: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    cpu: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {**_words(self), "findings": _words(self.findings)}


def _words(record: Report | Findings) -> dict[str, Any]:
    # dataclasses.asdict would count the entries of a Counter.
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}


class Round:
    """A round from its begin; `settle` ends it."""

    def __init__(self, crowd: Crowd, ledger: Ledger, name: str = "") -> None:
        self._crowd = crowd
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._cpu = time.process_time()
        self._touched: set[str] | None = None
        # What a former round has left behind has been told by that one.
        self._known = {*crowd.unseen(), *crowd.ghosts(asleep=True)}
        self.name = name
        crowd.talk()

    def fault(self, name: str, touched: Iterable[str] | None) -> None:
        """Something is about to happen.

        Args:
            name: what.
            touched: users whose node or stream it happens to, None when that is not known; those of several faults add up.
        """
        self.name = name
        if touched is not None:
            self._touched = (self._touched or set()) | set(touched)

    async def settle(self, patience: float) -> Report:
        """Stop talking, let everything arrive, look at the sleepers' mail and at presence, and sum up.

        Args:
            patience: how long each of these steps may take, in seconds.
        """
        crowd = self._crowd
        seconds = self._loop.time() - self._began
        crowd.talking = False
        incomplete: list[str] = []
        online = crowd.online
        if not await self._rest(patience):
            away = [client.account.user for client in crowd.clients if not client.usable]
            if away:
                incomplete.append(f"not online: {', '.join(away[:_MOST_EXAMPLES])} ({len(away)} in all)")
            if missing := self._ledger.open(online):
                incomplete.append(f"{len(missing)} messages to clients that are online have not come to rest")
        await self._deliver_stored(patience, incomplete)
        await asyncio.sleep(_LINGER)
        await crowd.until(lambda: not (self._unseen() or self._ghosts(asleep=False)), patience)
        unseen, ghosts = self._unseen(), self._ghosts(asleep=False)
        incomplete.extend(f"{client.account.user} could not log out" for client in await crowd.sleep(patience))
        await crowd.until(lambda: not self._ghosts(asleep=True), patience)
        ghosts = sorted({*ghosts, *self._ghosts(asleep=True)})
        return self._sum_up(seconds, unseen, ghosts, incomplete)

    def _unseen(self) -> list[str]:
        found = self._crowd.unseen() + self._crowd.unseen_sleepers()
        return [each for each in found if each not in self._known]

    def _ghosts(self, *, asleep: bool) -> list[str]:
        return [each for each in self._crowd.ghosts(asleep=asleep) if each not in self._known]

    async def _rest(self, patience: float) -> bool:
        """Wait until all clients are online, and what they have sent to each other is acknowledged and has arrived."""
        crowd, online = self._crowd, self._crowd.online
        deadline = self._loop.time() + patience
        while True:
            waiting = [client for client in crowd.clients if client.management.messages or not client.usable]
            if not waiting and not self._ledger.open(online):
                return True
            if self._loop.time() > deadline:
                return False
            for client in waiting:
                client.request_acknowledgement()
            await asyncio.sleep(_ASK)

    async def _deliver_stored(self, patience: float, incomplete: list[str]) -> None:
        crowd = self._crowd
        try:
            await crowd.wake(patience)
        except NotReadyError as error:
            incomplete.append(f"sleepers: {error}")
        sleepers = {sleeper.number for sleeper in crowd.sleepers}
        if not await crowd.until(lambda: not self._ledger.open(sleepers), patience):
            incomplete.append(f"{len(self._ledger.open(sleepers))} stored messages have not come to rest")

    def _sum_up(self, seconds: float, unseen: list[str], ghosts: list[str], incomplete: list[str]) -> Report:
        crowd, now = self._crowd, self._loop.time()
        findings, wrong = self._ledger.close_round(crowd.online)
        report = Report(self.name, seconds, len(crowd.clients), findings)
        report.unseen, report.ghosts, report.incomplete = unseen, ghosts, incomplete
        interruptions = {client.account.user: client.interruptions.close_round(now) for client in crowd.clients}
        report.interruption = max(interruptions.values())
        if self._touched is not None:
            report.touched = len(self._touched & interruptions.keys())
            report.untouched = max((interruptions[user] for user in interruptions.keys() - self._touched), default=0.0)
        for client in crowd.everybody:
            report.ends.update(client.ends)
            client.ends.clear()
        for client in crowd.clients:
            report.resumptions += client.counts["resumptions"]
            report.new_sessions += client.counts["new sessions"]
            client.counts.clear()
        report.examples = [self._explain(message) for message in _first_of_each_kind(wrong)]
        report.cpu = time.process_time() - self._cpu
        return report

    def _explain(self, message: Message) -> str:
        everybody = self._crowd.everybody

        def when(moment: float) -> str:
            return f"{moment - self._began:.2f}" if moment else "never"

        return (
            f"{message.id.decode()} from {_user(everybody, message.sender)} to {_user(everybody, message.recipient)}:"
            f" sent {when(message.sent)}, acknowledged {when(message.acknowledged)}, received {when(message.received)},"
            f" repeated {message.repeats} times{', resent' if message.resent else ''}"
            f"{', bounced with ' + message.bounced if message.bounced else ''}"
        )


def _first_of_each_kind(wrong: Sequence[Message]) -> list[Message]:
    kinds: dict[tuple[bool, bool, bool, bool], list[Message]] = {}
    for message in wrong:
        kind = message.lost, bool(message.repeats), bool(message.bounced), not message.acknowledged
        kinds.setdefault(kind, []).append(message)
    return [message for messages in kinds.values() for message in messages[:_MOST_EXAMPLES]]


def _user(everybody: Sequence[Client], number: int) -> str:
    return everybody[number].account.user

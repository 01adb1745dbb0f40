"""All clients together: who knows whom, who sends to whom and how often."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from load.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from load.accounts import Account
    from load.ledger import Ledger
    from load.login import Service

_TICK = 0.02
_WATCH = 1.0
_MOST_WAITING = 50
"""A client that has so many messages unacknowledged sends no more for the moment, as a person stops typing."""
_MOST_STORED = 80
"""A sleeper gets so many messages in a round: servers keep 100 for an account by default, and drop what is more."""
_LOGINS_AT_ONCE = 20
# One message in ten goes to somebody who is no contact, one to somebody who is not online, the rest to the partner.
_STRANGER, _SLEEPER, _OF = 4, 9, 10


class NotReadyError(Exception):
    """Something did not come about in time; says what."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many clients there are and what they do.

    Attributes:
        pairs: pairs of clients that are in each other's rosters and talk to each other.
        sleepers: accounts that are not online while the others talk; each is the contact of one client.
        rate: messages a second of each client.
    """

    pairs: int
    sleepers: int
    rate: float

    @property
    def accounts(self) -> int:
        """How many accounts that takes."""
        return 2 * self.pairs + self.sleepers


class Crowd:
    """The clients.

    Attributes:
        clients: those who stay online and talk; numbers 2 n and 2 n + 1 are partners.
        sleepers: those who log in only to get what has been stored for them.
        talking: whether messages are being sent.
    """

    def __init__(self, plan: Plan, service: Service, accounts: Sequence[Account], ledger: Ledger) -> None:
        """Make the clients; nobody logs in yet.

        Raises:
            ValueError: there are not enough accounts, or the plan makes no sense.
        """
        if plan.pairs < 1 or plan.sleepers < 0 or plan.rate <= 0:
            raise ValueError("there has to be a pair at least, and a rate above 0")
        if len(accounts) < plan.accounts:
            raise ValueError(f"{plan.accounts} accounts are needed, there are {len(accounts)}")
        self.plan = plan
        self._ledger = ledger
        # Half of the clients ask for the same resource whenever they begin a session, half for a new one: the one makes
        # the server replace a session that it may still have, the other shows when it keeps that.
        everybody = [
            Client(number, account, service, ledger, resource="load" if number % 4 < 2 else "load-{}")
            for number, account in enumerate(accounts[: plan.accounts])
        ]
        self.clients = everybody[: 2 * plan.pairs]
        self.sleepers = everybody[2 * plan.pairs :]
        self.talking = False
        self._loop = asyncio.get_running_loop()
        self._work: list[asyncio.Task[None]] = []
        self._said = [0] * len(self.clients)
        self._stored: Counter[int] = Counter()
        randomness = random.Random(1)  # noqa: S311 - spreads the clients over the interval
        self._due = [randomness.uniform(0, 1 / plan.rate) for _ in self.clients]

    @property
    def everybody(self) -> list[Client]:
        """Clients and sleepers, in the order of their numbers."""
        return [*self.clients, *self.sleepers]

    @property
    def online(self) -> set[int]:
        """The numbers of those who stay online."""
        return {client.number for client in self.clients}

    def partner(self, client: Client) -> Client:
        """The other one of the pair."""
        return self.clients[client.number ^ 1]

    def watcher(self, sleeper: Client) -> Client:
        """The client that has the sleeper among its contacts."""
        return self.clients[(sleeper.number - len(self.clients)) * 7 % len(self.clients)]

    # ---------------------------------------------------------------------------------------- coming and going

    async def come(self, patience: float) -> None:
        """Let everybody log in and subscribe to each other's presence; sleepers leave again.

        Raises:
            NotReadyError: not within the time.
        """
        self._work = [asyncio.create_task(self._watch()), asyncio.create_task(self._talk())]
        await self._log_in(self.everybody, patience)
        for client in self.clients:
            self._befriend(client, self.partner(client))
        for sleeper in self.sleepers:
            self._befriend(sleeper, self.watcher(sleeper))
            self._befriend(self.watcher(sleeper), sleeper)
        await self._until(lambda: all(each.contacts.befriended for each in self.everybody), patience, "friendship")
        await self._until(lambda: not self.unseen() and not self.unseen_sleepers(), patience, "presence of everybody")
        await self.sleep(patience)

    async def _log_in(self, clients: Sequence[Client], patience: float) -> None:
        """A few at a time, as a deployment would see it; after a failure that is the server's business."""
        deadline = self._loop.time() + patience
        for start in range(0, len(clients), _LOGINS_AT_ONCE):
            some = clients[start : start + _LOGINS_AT_ONCE]
            for client in some:
                client.start()
            await self._until(partial(_all_usable, some), deadline - self._loop.time(), "logins")

    @staticmethod
    def _befriend(one: Client, other: Client) -> None:
        one.contacts.befriend(other.account.jid)

    async def wake(self, patience: float) -> None:
        """Let the sleepers log in.

        Raises:
            NotReadyError: not within the time.
        """
        await self._log_in(self.sleepers, patience)

    async def sleep(self, patience: float) -> list[Client]:
        """Let the sleepers log out; returns those whose server has not confirmed it."""
        confirmed = await asyncio.gather(*(sleeper.leave(patience) for sleeper in self.sleepers))
        return [sleeper for sleeper, left in zip(self.sleepers, confirmed, strict=True) if not left]

    async def leave(self, patience: float) -> None:
        """Everybody logs out."""
        self.talking = False
        for task in self._work:
            task.cancel()
        await asyncio.gather(*(client.leave(patience) for client in self.clients if client.usable))
        for client in self.everybody:
            client.stop()

    # ---------------------------------------------------------------------------------------- who sees whom

    def unseen(self) -> list[str]:
        """Who does not see the partner that is online."""
        return [
            f"{_name(client)} does not see {other.jid.decode()}"
            for client in self.clients
            if (other := self.partner(client)).jid not in client.contacts.online.get(other.account.jid, ())
        ]

    def unseen_sleepers(self) -> list[str]:
        """Who does not see the sleeper that is awake."""
        return [
            f"{_name(client)} does not see {sleeper.jid.decode()}"
            for sleeper in self.sleepers
            if sleeper.jid not in (client := self.watcher(sleeper)).contacts.online.get(sleeper.account.jid, ())
        ]

    def ghosts(self, *, asleep: bool) -> list[str]:
        """Who sees somebody that is not there: a former session of a contact, or a sleeper that has left.

        Args:
            asleep: whether the sleepers are logged out.
        """
        real = {client.jid for client in self.clients}
        if not asleep:
            real |= {sleeper.jid for sleeper in self.sleepers}
        # Oneself is among those whose presence one gets.
        return [
            f"{_name(client)} sees {jid.decode()}"
            for client in self.clients
            for jids in client.contacts.online.values()
            for jid in jids - real
        ]

    # ---------------------------------------------------------------------------------------- talking

    def talk(self) -> None:
        """Begin to send."""
        self._stored.clear()
        self.talking = True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH)
            now = self._loop.time()
            for client in self.everybody:
                client.watch(now)

    async def _talk(self) -> None:
        interval = 1 / self.plan.rate
        began = self._loop.time()
        due = self._due
        while True:
            await asyncio.sleep(_TICK)
            now = self._loop.time()
            elapsed = now - began
            for number, client in enumerate(self.clients):
                if due[number] > elapsed:
                    continue
                # A turn that was missed is not made up for: the rate stays what it is after an interruption, too.
                due[number] += interval * (1 + int((elapsed - due[number]) / interval))
                if self.talking and client.usable and len(client.management.queue) < _MOST_WAITING:
                    self._say_something(client, now)

    def _say_something(self, client: Client, now: float) -> None:
        turn = self._said[client.number]
        self._said[client.number] += 1
        recipient, to = self._recipient(client, turn)
        client.say(self._ledger.new(client.number, recipient.number, now), to)

    def _recipient(self, client: Client, turn: int) -> tuple[Client, bytes]:
        """Who is next, and by which address: the bare one, or the resource of the partner that was seen last."""
        kind = turn % _OF
        if kind == _SLEEPER and self.sleepers:
            sleeper = self.sleepers[(client.number + turn // _OF) % len(self.sleepers)]
            if self._stored[sleeper.number] < _MOST_STORED:
                self._stored[sleeper.number] += 1
                return sleeper, sleeper.account.jid
        if kind == _STRANGER and self.plan.pairs > 1:
            stranger = self.clients[(client.number + 2 + turn // _OF * 2) % len(self.clients)]
            if stranger is not client:
                return stranger, stranger.account.jid
        partner = self.partner(client)
        seen = client.contacts.online.get(partner.account.jid)
        return partner, next(iter(seen)) if seen and turn % 2 else partner.account.jid

    async def _until(self, condition: Callable[[], bool], patience: float, what: str) -> None:
        if not await self.until(condition, patience):
            states = [f"{_name(client)}: {dict(client.ends)}" for client in self.everybody if client.ends][:5]
            raise NotReadyError(f"waited {patience:.0f} s for {what}. {' '.join(states)}".strip())

    async def until(self, condition: Callable[[], bool], patience: float) -> bool:
        """Wait for a condition; returns whether it came about in time."""
        deadline = self._loop.time() + patience
        while not condition():
            if self._loop.time() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


def _all_usable(clients: Sequence[Client]) -> bool:
    return all(client.usable for client in clients)


def _name(client: Client) -> str:
    return client.account.user

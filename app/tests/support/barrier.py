"""Waiting until everything has taken effect at all workers of a cluster.

A ping to the host proves that the worker which has the session has handled what was sent before. What that has caused at
others is on its way then. So a sentry at each worker asks for the presence of every account of the test, and waits for the
refusals: a probe comes behind all that the worker has sent to the account's home before, it waits there in the queue behind
subscriptions that are being stored, and the refusal comes behind all that the home has sent. After one round everything that
was under way has arrived, and what it has caused is under way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.support.accounts import Account
    from tests.support.client import Client
    from tests.support.server import Server

ROUNDS: Final = 3
"""So many steps a chain of effects may have: a request, the answer that the contact's server gives, what follows from it."""


class Barrier:
    """The sentries of one test; they log in when they are first needed.

    Args:
        account: gives the account of a sentry, for a host and the number of a worker.
        workers: the workers.
        accounts: those that the test has to do with.
    """

    def __init__(
        self, account: Callable[[str, int], Account], workers: Sequence[Server], accounts: Sequence[Account]
    ) -> None:
        self._account = account
        self._workers = workers
        self._accounts = accounts
        self._sentries: dict[tuple[str, int], Client] = {}
        self._turn = asyncio.Lock()

    async def __call__(self) -> None:
        """Wait until what has been caused so far has taken effect at the workers that run."""
        async with self._turn:
            posted = [
                (await self._sentry(host, number), jids)
                for host, jids in self._watched().items()
                for number, worker in enumerate(self._workers)
                if worker.program.running
            ]
            for _ in range(ROUNDS):
                await asyncio.gather(*(_probe(sentry, jids) for sentry, jids in posted))

    def _watched(self) -> dict[str, set[str]]:
        """The addresses of the test's accounts, by host: a sentry may be refused to speak to other hosts."""
        watched: dict[str, set[str]] = {}
        for account in {*self._accounts, *(account for worker in self._workers for account in worker.accounts)}:
            watched.setdefault(account.host, set()).add(account.jid)
        return watched

    async def _sentry(self, host: str, number: int) -> Client:
        sentry = self._sentries.get((host, number))
        if sentry is None:
            sentry = self._sentries[host, number] = await self._workers[number].login(self._account(host, number))
        return sentry


async def _probe(sentry: Client, jids: Iterable[str]) -> None:
    """Wait for the answers to a probe for each address. Nobody shows a sentry his presence."""
    waiting = set(jids)
    await sentry.send("".join(f"<presence type='probe' to={quoteattr(jid)}/>" for jid in waiting))
    while waiting:
        waiting.discard((await sentry.next()).get("from", ""))

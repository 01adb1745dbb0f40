"""Pairs that chat across workers, or inside each of them, and what a message costs whom."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.chat import Chat
from bench.cluster.stack import BUS, DATABASE, WORKERS
from bench.crowd import Crowd
from bench.servers.base import account
from bench.transport import Loop
from bench.workloads import WorkloadError, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cluster.stack import Costs, Stack
    from bench.session import Session
    from bench.workloads import Load

INSIDE, HALF, BETWEEN = "inside", "half", "between"
"""Which messages cross from one worker to another: none, those of every other pair, all."""

_LOGIN_TIMEOUT = 180.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """One measurement.

    Attributes:
        workers_us, bus_us, database_us: CPU microseconds for a message.
        wall_per_s: messages a second.
        p50_ms: half of them took no longer.
        busy: how much of a core all of it used.
        faults: what went wrong, by name.
    """

    workers_us: float
    bus_us: float
    database_us: float
    wall_per_s: float
    p50_ms: float
    busy: float
    faults: dict[str, int]

    @property
    def total_us(self) -> float:
        """All CPU of a message."""
        return self.workers_us + self.bus_us + self.database_us


class _Crowds:
    """The crowds of all workers as one. See chat.Sessions."""

    def __init__(self, crowds: Sequence[Crowd]) -> None:
        self._crowds = crowds

    def check(self) -> None:
        """Complain when a session of one of them broke."""
        for crowd in self._crowds:
            crowd.check()

    def broken(self) -> int:
        """How many sessions have broken."""
        return sum(crowd.broken() for crowd in self._crowds)


def places(pairs: int, workers: int, crossing: str) -> list[tuple[int, int]]:
    """The workers of sender and recipient of each pair, spread evenly; `crossing` is INSIDE, HALF or BETWEEN."""
    found = []
    for pair in range(pairs):
        sender = pair % workers
        # Whoever crosses is not decided by what decides the sender's worker.
        crosses = crossing == BETWEEN or (crossing == HALF and pair // workers % 2 == 0)
        found.append((sender, (sender + 1) % workers if crosses else sender))
    return found


def chat(
    stack: Stack, load: Load, windows: Sequence[int], *, workers: int, crossing: str, tls: bool, sm: bool
) -> dict[int, Traffic]:
    """Log the pairs in once, at these workers of the stack, and measure each window.

    Raises:
        SessionError: a client could not log in or lost its session.
        LoadTimeoutError: the stack is too slow.
        ServerError: a worker has ended.
        WorkloadError: no message arrived.
    """
    loop = Loop()
    try:
        crowds = [
            Crowd(loop, stack.endpoint_of(number, tls=tls), mechanism=load.mechanism, management=sm)
            for number in range(workers)
        ]
        seats = [worker for pair in places(load.pairs, workers, crossing) for worker in pair]
        sessions = _log_in(crowds, seats, load)
        conversation = Chat(loop, _Crowds(crowds), sessions, management=sm)
        found = {window: _measure(stack, conversation, load, window) for window in windows}
        for crowd in crowds:
            crowd.log_out()
        return found
    finally:
        loop.close()


def _log_in(crowds: Sequence[Crowd], seats: Sequence[int], load: Load) -> list[Session]:
    by_user: dict[str, Session] = {}
    for number, crowd in enumerate(crowds):
        accounts = [account(place, load.accounts) for place, seat in enumerate(seats) if seat == number]
        if accounts:
            by_user |= {session.account.user: session for session in crowd.log_in(accounts, _LOGIN_TIMEOUT)}
    return [by_user[account(place, load.accounts).user] for place in range(len(seats))]


def _measure(stack: Stack, conversation: Chat, load: Load, window: int) -> Traffic:
    readings: list[Costs] = []

    def read() -> float:
        readings.append(stack.costs())
        return sum(readings[-1].values())

    result = conversation.measure(window, load.warm_up, load.duration, read)
    if not result.messages:
        raise WorkloadError(f"no message arrived. {conversation.first_bounce()}")
    before, after = readings
    used = {who: (after[who] - before[who]) / result.messages * 1e6 for who in after}
    faults = asdict(result.findings) | {"unacknowledged": result.unacknowledged}
    return Traffic(
        workers_us=used[WORKERS],
        bus_us=used[BUS],
        database_us=used[DATABASE],
        wall_per_s=result.messages / result.seconds,
        p50_ms=percentile(result.latencies, 50) * 1e3,
        busy=result.server_cpu / result.seconds,
        faults={name: count for name, count in faults.items() if count},
    )

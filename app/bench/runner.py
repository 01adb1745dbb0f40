"""The order of things: servers take turns in every cell, and the whole is repeated."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from bench import workloads
from bench.child import ServerError
from bench.results import CHAT, IDLE, LOGIN, Cell, Sample
from bench.servers import SERVERS, Server
from bench.session import SessionError
from bench.transport import LoadTimeoutError
from bench.workloads import Load, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        servers: names, in the order in which they take turns.
        workloads: of results.WORKLOADS.
        tls: which of connections in the clear (False) and with TLS (True).
        managements: chat without (False) and with (True) stream management.
        repetitions: how often everything is measured.
        load: how much of it.
        cores: those of the servers.
    """

    servers: Sequence[str]
    workloads: Sequence[str]
    tls: Sequence[bool]
    managements: Sequence[bool]
    repetitions: int
    load: Load
    cores: set[int]


@dataclass(slots=True)
class Run:
    """Measures a plan; afterwards `results` and `failures` say what came out.

    Attributes:
        folder: an existing folder, for the servers' files.
        tell: shows a line of progress.
        results: for each cell and server one sample a repetition, None where it failed.
        failures: a sentence for each measurement that failed.
    """

    plan: Plan
    folder: Path
    tell: Callable[[str], None]
    results: dict[Cell, dict[str, list[Sample | None]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _unusable: set[str] = field(default_factory=set)

    def execute(self) -> None:
        """Do all repetitions; the servers are stopped at the end, also when interrupted."""
        with self._servers() as servers:
            for repetition in range(self.plan.repetitions):
                self.tell(f"repetition {repetition + 1} of {self.plan.repetitions}")
                if CHAT in self.plan.workloads:
                    self._chat(servers)
                if LOGIN in self.plan.workloads:
                    self._login(servers)
                if IDLE in self.plan.workloads:
                    self._idle(servers)
                for server in servers:
                    server.stop()

    @contextlib.contextmanager
    def _servers(self) -> Iterator[list[Server]]:
        servers = []
        for name in self.plan.servers:
            folder = self.folder / name
            folder.mkdir()
            servers.append(SERVERS[name](folder, self.plan.cores, self.plan.load.accounts))
        try:
            yield servers
        finally:
            for server in servers:
                server.stop()

    def _chat(self, servers: list[Server]) -> None:
        load = self.plan.load
        for tls in self.plan.tls:
            for sm in self.plan.managements:
                cells = [Cell(CHAT, tls, window, sm) for window in load.windows]
                for server in servers:
                    self._measure(server, cells, partial(workloads.chat, server, load, tls=tls, sm=sm))

    def _login(self, servers: list[Server]) -> None:
        for tls in self.plan.tls:
            cell = Cell(LOGIN, tls, window=None, sm=False)
            for server in servers:
                self._measure(server, [cell], partial(workloads.login, server, self.plan.load, tls=tls))

    def _idle(self, servers: list[Server]) -> None:
        """Memory: each measurement has a server that was just started, and no other server beside it."""
        for tls in self.plan.tls:
            cell = Cell(IDLE, tls, window=None, sm=False)
            for server in servers:
                for other in servers:
                    other.stop()
                self._measure(server, [cell], partial(workloads.idle, server, self.plan.load, tls=tls))

    def _measure(self, server: Server, cells: Sequence[Cell], workload: Callable[[], dict[Cell, Sample]]) -> None:
        """Have the server run and collect the samples of these cells; note a failure instead of passing it on."""
        samples: dict[Cell, Sample] = {}
        if server.name not in self._unusable and self._started(server):
            try:
                samples = workload()
            except (ServerError, SessionError, LoadTimeoutError, WorkloadError) as error:
                self._failed(f"{server.name}, {cells[0].workload}, {cells[0].conditions()}: {error}")
                server.stop()
        for cell in cells:
            sample = samples.get(cell)
            self.results.setdefault(cell, {}).setdefault(server.name, []).append(sample)
            if sample is not None:
                where = f"{cell.workload} {cell.conditions()}"
                self.tell(f"  {where:34} {server.name:9} {_headline(sample)}")

    def _started(self, server: Server) -> bool:
        try:
            server.ensure_running()
        except ServerError as error:
            self._failed(str(error))
            self._unusable.add(server.name)
            server.stop()
            return False
        return True

    def _failed(self, sentence: str) -> None:
        self.failures.append(sentence)
        self.tell(f"  FAILED: {sentence}")


def _headline(sample: Sample) -> str:
    if sample.kib is not None:
        return f"{sample.kib:8.1f} KiB a session"
    busy = sample.extra.get("generator_busy")
    own = "" if busy is None else f", generator {busy:.0%} busy"
    return f"{sample.cpu_us or 0:8.1f} µs, {sample.wall_per_s or 0:8.0f} a second{own}"

"""The parts of the cluster's benchmark, and what comes out of each: records, one for each kind of measurement."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.child import ServerError
from bench.cluster.stack import NatsServer, Stack
from bench.cluster.traffic import BETWEEN, HALF, INSIDE, Traffic, chat
from bench.servers.base import child_environment
from tests.postgres import DURABLE, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.workloads import Load

Record = dict[str, Any]

MESSAGES, GUARANTEE, CAPACITY, HOMES, BEATS = "messages", "guarantee", "capacity", "homes", "beats"
PARTS = (MESSAGES, GUARANTEE, CAPACITY, HOMES, BEATS)

_BEATING = (2, 8, 16, 32, 64)
_CHILD_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        load: of the chats.
        repetitions: of each chat; medians of them are reported.
        cores: those of workers, bus and database.
        steps: numbers of users known to the bus.
        tell: shows a line of progress.
    """

    load: Load
    repetitions: int
    cores: set[int]
    steps: Sequence[int]
    tell: Callable[[str], None]


def run(part: str, plan: Plan) -> list[Record]:
    """Measure one part.

    Raises:
        SessionError, LoadTimeoutError, ServerError, WorkloadError: it could not be measured.
    """
    plan.tell(f"{part}, load of the machine {os.getloadavg()[0]:.1f}")
    measure = {
        MESSAGES: messages,
        GUARANTEE: guarantee,
        CAPACITY: capacity,
        HOMES: homes,
        BEATS: beats,
    }[part]
    return [{"part": part, **record} for record in measure(plan)]


# -- messages ----------------------------------------------------------------------------------------------------


def messages(plan: Plan) -> list[Record]:
    """Messages between two workers against messages inside each of them, on the same stack."""
    records: list[Record] = []
    with _stack(plan) as stack:
        for tls in (False, True):
            found: dict[str, list[dict[int, Traffic]]] = {INSIDE: [], BETWEEN: []}
            for _ in range(plan.repetitions):
                for crossing, samples in found.items():
                    samples.append(
                        _chat(stack, plan, crossing, f"{crossing} {_security(tls)}", workers=2, tls=tls, sm=False)
                    )
            for window in plan.load.windows:
                inside = [sample[window] for sample in found[INSIDE]]
                between = [sample[window] for sample in found[BETWEEN]]
                common: Record = {"tls": tls, "window": window}
                ratios = [b.total_us / a.total_us for a, b in zip(inside, between, strict=True)]
                records.append({**common, "crossing": INSIDE, **summary(inside)})
                records.append({**common, "crossing": BETWEEN, **summary(between), "ratio": round(median(ratios), 2)})
    return records


def guarantee(plan: Plan) -> list[Record]:
    """What `durable` costs, with both databases, for clients with stream management, inside and between workers."""
    records: list[Record] = []
    for name in ("memory", "SQLite", "PostgreSQL"):
        if name == "PostgreSQL" and not _postgres_installed():
            plan.tell("PostgreSQL's server programs are not installed. It is left out.")
            continue
        kind = "memory" if name == "memory" else "durable"
        with _database(name, plan.cores) as (url, cpu), _stack(plan, kind, url, cpu) as stack:
            for crossing in (INSIDE, BETWEEN):
                samples = [
                    _chat(stack, plan, crossing, f"{crossing} {name}", workers=2, tls=False, sm=True)
                    for _ in range(plan.repetitions)
                ]
                for window in plan.load.windows:
                    one = [sample[window] for sample in samples]
                    records.append({"database": name, "crossing": crossing, "window": window, **summary(one)})
    return records


def capacity(plan: Plan) -> list[Record]:
    """One worker without a bus, against two of which each sends half of its messages to the other."""
    found: dict[int, list[dict[int, Traffic]]] = {1: [], 2: []}
    with _stack(plan, workers=1) as one, _stack(plan, workers=2) as two:
        for _ in range(plan.repetitions):
            for workers, stack in ((1, one), (2, two)):
                crossing = INSIDE if workers == 1 else HALF
                what = f"{workers} worker{'s' if workers > 1 else ''}"
                found[workers].append(_chat(stack, plan, crossing, what, workers=workers, tls=False, sm=False))
    records: list[Record] = []
    for window in plan.load.windows:
        alone = [sample[window] for sample in found[1]]
        both = [sample[window] for sample in found[2]]
        gains = [gain(a, b) for a, b in zip(alone, both, strict=True)]
        records.append({"workers": 1, "window": window, **summary(alone)})
        records.append(
            {
                "workers": 2,
                "window": window,
                **summary(both),
                "gain": round(median(pair[0] for pair in gains), 2),
                "gain_with_bus": round(median(pair[1] for pair in gains), 2),
            }
        )
    return records


def gain(one: Traffic, two: Traffic) -> tuple[float, float]:
    """How many times the messages of one worker on one core two workers on two cores route.

    A core has a million microseconds of CPU a second, so one worker routes 1e6 / (its CPU for a message), two of them
    2e6 / (theirs). The second figure has the bus on these two cores, too.
    """
    return 2 * one.workers_us / two.workers_us, 2 * one.workers_us / (two.workers_us + two.bus_us)


def _chat(
    stack: Stack, plan: Plan, crossing: str, what: str, *, workers: int, tls: bool, sm: bool
) -> dict[int, Traffic]:
    found = chat(stack, plan.load, plan.load.windows, workers=workers, crossing=crossing, tls=tls, sm=sm)
    for window, sample in found.items():
        plan.tell(
            f"  {what:20} window {window:2}: {sample.total_us:7.1f} µs (workers {sample.workers_us:.1f}, "
            f"bus {sample.bus_us:.1f}, database {sample.database_us:.1f}), {sample.wall_per_s:.0f} a second"
        )
    return found


def summary(samples: Sequence[Traffic]) -> Record:
    """Medians of the figures and sums of what went wrong."""
    fields = ("workers_us", "bus_us", "database_us", "total_us", "wall_per_s", "p50_ms", "busy")
    record: Record = {name: round(median(getattr(sample, name) for sample in samples), 2) for name in fields}
    record["samples"] = [round(sample.total_us, 2) for sample in samples]
    faults: dict[str, int] = {}
    for sample in samples:
        for name, count in sample.faults.items():
            faults[name] = faults.get(name, 0) + count
    return {**record, "faults": faults}


def _security(tls: bool) -> str:
    return "TLS" if tls else "plain"


@contextlib.contextmanager
def _stack(
    plan: Plan,
    kind: str = "memory",
    database: str | None = None,
    database_cpu: Callable[[], float] = float,
    *,
    workers: int = 2,
) -> Iterator[Stack]:
    """A running stack, stopped and removed at the end."""
    with _folder() as folder:
        stack = Stack(
            folder,
            plan.cores,
            plan.load.accounts,
            workers=workers,
            guarantee=kind,
            database=database,
            database_cpu=database_cpu,
        )
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def _postgres_installed() -> bool:
    return any(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or shutil.which("postgres") is not None


@contextlib.contextmanager
def _database(name: str, cores: set[int]) -> Iterator[tuple[str | None, Callable[[], float]]]:
    """The address of an empty PostgreSQL database that writes to the disk, and its CPU; of SQLite there is none."""
    if name != "PostgreSQL":
        yield None, float
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        server = contextlib.ExitStack()
        running = server.enter_context(running_server(DURABLE))
    finally:
        os.sched_setaffinity(0, own)
    with server:
        yield running.create_database(), running.cpu_seconds


# -- users and heartbeats ----------------------------------------------------------------------------------------


def homes(plan: Plan) -> list[Record]:
    """Memory and CPU of homes at one worker, for each number of users; last what finding them costs another one."""
    with _folder() as folder, _nats_pair(folder, plan.cores) as (near, far):
        arguments = ["--port", str(near.port), "--near", str(near.child.pid), "--far", str(far.child.pid)]
        return _program("homes", [*arguments, "--steps", *map(str, plan.steps)], folder, plan)


def beats(plan: Plan) -> list[Record]:
    """CPU of heartbeats, for some numbers of workers."""
    records = []
    for workers in _BEATING:
        with _folder() as folder, _nats_pair(folder, plan.cores) as (near, _):
            arguments = ["--port", str(near.port), "--nats", str(near.child.pid), "--workers", str(workers)]
            records += _program("beats", arguments, folder, plan)
    return records


@contextlib.contextmanager
def _nats_pair(folder: Path, cores: set[int]) -> Iterator[tuple[NatsServer, NatsServer]]:
    with contextlib.ExitStack() as stack:
        near = NatsServer(folder, cores, "near")
        stack.callback(near.stop)
        far = NatsServer(folder, cores, "far", [near])
        stack.callback(far.stop)
        yield near, far


def _program(name: str, arguments: Sequence[str], folder: Path, plan: Plan) -> list[Record]:
    """The records that a program of this package prints."""
    environment: Mapping[str, str] = child_environment(
        HOME=str(folder), PYTHONPATH=os.pathsep.join(path for path in sys.path if path)
    )
    answer = subprocess.run(
        [sys.executable, "-m", f"bench.cluster.{name}", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHILD_SECONDS,
    )
    if answer.returncode:
        raise ServerError(f"bench.cluster.{name} failed:\n{answer.stderr[-2000:]}")
    for line in answer.stdout.splitlines():
        plan.tell(f"  {line}")
    return [json.loads(line) for line in answer.stdout.splitlines()]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder

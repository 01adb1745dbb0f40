"""`python -m bench.cluster.homes`: many users arrive at one worker; a process of its own, so that its memory is theirs.

The worker is the bus as servers use it (NatsBus), without clients. Two NATS servers are looked at: the node's own, and one
of another node, that learns of each home over the route between them. Prints one line of JSON for each size.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import time
from typing import TYPE_CHECKING, Any

import uvloop

from bench import procfs
from bench.cluster.idle import IdleHub
from bench.workloads import percentile
from monktalk.common.logging import configure as configure_logging
from monktalk.xmpp.cluster.directory import ANNOUNCE_SECONDS, MOST_LOCATIONS
from monktalk.xmpp.cluster.natsbus import NatsBus, NatsOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "localhost"
STEPS = (1_000, 10_000, 50_000, 100_000)

_AT_ONCE = 20
_ALONE = 200
_KIND = 1
_FIELDS: tuple[Any, ...] = ("message", {}, b"", (), "", "", "", 0)


class Meter:
    """CPU and memory of this process and of the two NATS servers."""

    def __init__(self, near: int, far: int) -> None:
        self._pids = {"worker": os.getpid(), "bus": near, "far_bus": far}

    def cpu(self) -> dict[str, float]:
        """Seconds since the start."""
        return {who: procfs.cpu_seconds(_process(pid)) for who, pid in self._pids.items()}

    def kib(self) -> dict[str, int]:
        """Memory (PSS)."""
        gc.collect()
        return {who: procfs.pss_kib(_process(pid)) for who, pid in self._pids.items()}


def _process(pid: int) -> list[procfs.ProcessInfo]:
    found = procfs.read_process(pid)
    return [] if found is None else [found]


def _user(number: int) -> str:
    return f"user{number:06d}"


async def arrive(bus: NatsBus, numbers: range) -> None:
    """Have these users arrive, some at once, as logins come."""
    waiting = iter(numbers)

    async def one_after_the_other() -> None:
        for number in waiting:
            await bus.arrive(HOST, _user(number))

    await asyncio.gather(*(one_after_the_other() for _ in range(_AT_ONCE)))


async def alone(bus: NatsBus, numbers: range) -> list[float]:
    """Have these users arrive one by one; returns the milliseconds that each took, sorted."""
    seconds = []
    for number in numbers:
        begin = time.perf_counter()
        await bus.arrive(HOST, _user(number))
        seconds.append(time.perf_counter() - begin)
    return sorted(second * 1e3 for second in seconds)


async def measure(near: int, steps: Sequence[int], meter: Meter) -> None:
    """Print what each size takes: memory, CPU and time of a login, and what finding these homes takes."""
    options = NatsOptions([("127.0.0.1", near)])
    bus = NatsBus(options, "bench", 0)
    await bus.start(IdleHub())
    # What the first ones load is not memory of a user.
    await arrive(bus, range(-100, 0))
    await asyncio.sleep(2 * ANNOUNCE_SECONDS)
    empty, known = meter.kib(), 0
    for size in steps:
        used = meter.cpu()
        await arrive(bus, range(known, size - _ALONE))
        arriving = _since(used, meter.cpu())
        taken = await alone(bus, range(size - _ALONE, size))
        # Each home is announced once more, a moment later; that is a part of its price.
        await asyncio.sleep(2 * ANNOUNCE_SECONDS)
        used = _since(used, meter.cpu())
        count, known = size - known, size
        record = {
            "users": size,
            "kib": meter.kib(),
            "kib_empty": empty,
            "login_us": {who: seconds / count * 1e6 for who, seconds in used.items()},
            "arrival_us": {who: seconds / (count - _ALONE) * 1e6 for who, seconds in arriving.items()},
            "p50_ms": percentile(taken, 50),
            "p99_ms": percentile(taken, 99),
        }
        print(json.dumps(record), flush=True)
    print(json.dumps(await find(options, min(known, MOST_LOCATIONS), meter)), flush=True)
    await bus.close()


async def find(options: NatsOptions, users: int, meter: Meter) -> dict[str, object]:
    """What it costs another worker to find these homes by a first stanza for each, and to remember them."""
    bus = NatsBus(options, "bench", 1)
    await bus.start(IdleHub())
    await asyncio.sleep(0.5)
    before, used = meter.kib(), meter.cpu()
    for begin in range(0, users, _AT_ONCE):
        for number in range(begin, min(begin + _AT_ONCE, users)):
            bus.to_user(HOST, _user(number), _KIND, _FIELDS)
        await asyncio.sleep(0)
        # At most some thousands on the way: they would be counted as memory of what is remembered.
        if begin % 2000 == 0:
            await bus._nats.flush()  # noqa: SLF001  # the bus itself has nobody who waits for that
    await asyncio.sleep(1.5)
    used = _since(used, meter.cpu())
    after = meter.kib()
    await bus.close()
    return {
        "found": users,
        "find_us": {who: seconds / users * 1e6 for who, seconds in used.items()},
        "found_kib": {who: after[who] - before[who] for who in after},
    }


def _since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {who: after[who] - before[who] for who in after}


def main() -> None:
    """Measure against NATS servers that run already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="of the node's own NATS server")
    parser.add_argument("--near", type=int, required=True, help="its process id")
    parser.add_argument("--far", type=int, required=True, help="that of the other node's")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="numbers of users, growing")
    options = parser.parse_args()
    configure_logging("warning")
    # As a worker does (xmpp/program.py).
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    uvloop.run(measure(options.port, options.steps, Meter(options.near, options.far)))


if __name__ == "__main__":
    main()

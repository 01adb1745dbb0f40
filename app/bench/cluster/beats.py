"""`python -m bench.cluster.beats`: what members' heartbeats cost while nothing else happens. Prints a line of JSON.

All workers are in this one process, each with its own connection; its CPU is divided among them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time

import uvloop

from bench import procfs
from bench.cluster.idle import IdleHub
from monktalk.common.logging import configure as configure_logging
from monktalk.xmpp.cluster.members import BEAT_SECONDS
from monktalk.xmpp.cluster.natsbus import NatsBus, NatsOptions

_KNOWN_SECONDS = 30.0


async def measure(port: int, nats: int, workers: int, seconds: float) -> dict[str, float]:
    """CPU of a worker and of the NATS server, as a share of a core."""
    options = NatsOptions([("127.0.0.1", port)])
    buses = [NatsBus(options, f"node{number // 4}", number % 4) for number in range(workers)]
    for bus in buses:
        await bus.start(IdleHub())
        # Workers do not beat in step.
        await asyncio.sleep(BEAT_SECONDS / workers)
    async with asyncio.timeout(_KNOWN_SECONDS):
        while any(len(bus.peers()) < workers for bus in buses):  # noqa: ASYNC110  # nobody is told of members
            await asyncio.sleep(0.1)
    gc.collect()
    begin, own, theirs = time.perf_counter(), time.process_time(), _cpu(nats)
    await asyncio.sleep(seconds)
    wall = time.perf_counter() - begin
    own, theirs = time.process_time() - own, _cpu(nats) - theirs
    for bus in buses:
        await bus.close()
    return {
        "workers": workers,
        "worker_share": own / wall / workers,
        "bus_share": theirs / wall,
        "beat_us": own / wall / workers * BEAT_SECONDS / max(1, workers - 1) * 1e6,
    }


def _cpu(pid: int) -> float:
    found = procfs.read_process(pid)
    return 0.0 if found is None else procfs.cpu_seconds([found])


def main() -> None:
    """Measure against a NATS server that runs already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="of the NATS server")
    parser.add_argument("--nats", type=int, required=True, help="its process id")
    parser.add_argument("--workers", type=int, default=64, help="how many (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for how long (%(default)s)")
    options = parser.parse_args()
    configure_logging("error")
    print(json.dumps(uvloop.run(measure(options.port, options.nats, options.workers, options.seconds))))


if __name__ == "__main__":
    main()

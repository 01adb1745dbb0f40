"""`PYTHONPATH=app python -m bench.storage`: what the storage costs, on SQLite and on PostgreSQL with fsync.

Three kinds of figures: wall time per operation with many at once, CPU time of the process (event loop and threads
together) per append that arrives at a steady rate, with the delay that this causes the event loop, and CPU time of the
process and of PostgreSQL per message that is stored for a session, in groups of a given size.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop

from monktalk.db import migrate
from monktalk.xmpp.storage.sql.storage import SqlStorage
from tests.postgres import DURABLE, running_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "example.org"
STANZA = b"<message from='alice@example.org/phone' to='bob@example.org'><body>hello</body></message>" * 2


class Text:
    """A codec."""

    def encode(self, value: str) -> bytes:
        """Text to UTF-8."""
        return value.encode()

    def decode(self, data: bytes) -> str:
        """UTF-8 to text."""
        return data.decode()


async def at_once(number: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Microseconds of wall time per operation."""
    began = time.perf_counter()
    await asyncio.gather(*(call(place) for place in range(number)))
    return (time.perf_counter() - began) / number * 1e6


async def one_by_one(number: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Microseconds of wall time per operation, each after the other."""
    began = time.perf_counter()
    for place in range(number):
        await call(place)
    return (time.perf_counter() - began) / number * 1e6


async def at_a_rate(storage: SqlStorage, rate: int, seconds: float) -> tuple[float, float, float]:
    """CPU microseconds per append, milliseconds until it is durable (median), worst delay of the loop (99 %)."""
    delays: list[float] = []
    answers: list[float] = []
    pending = []

    def answered(sent: float, _: asyncio.Future[bool]) -> None:
        answers.append(time.perf_counter() - sent)

    began, cpu = time.perf_counter(), time.process_time()
    due = began
    while due < began + seconds:
        await asyncio.sleep(due - time.perf_counter())
        delays.append(time.perf_counter() - due)
        for place in range(max(1, rate // 500)):
            append = storage.offline.append(HOST, f"user{place}", STANZA, 1.0, None, 1_000_000)
            append.add_done_callback(partial(answered, time.perf_counter()))
            pending.append(append)
        due += max(1, rate // 500) / rate
    await asyncio.gather(*pending)
    used = (time.process_time() - cpu) / len(pending) * 1e6
    return used, sorted(answers)[len(answers) // 2] * 1000, sorted(delays)[len(delays) * 99 // 100] * 1000


async def in_groups(
    storage: SqlStorage, sessions: list[int], size: int, *, counters: bool, server: Callable[[], float]
) -> tuple[float, float, float]:
    """Microseconds per message, for a session each: wall time, CPU time of this process, and of the server.

    With `counters` the sender's and the recipient's counter follow each message, as with stream management.
    """
    number = 400 if size == 1 else 40 * size
    origin = f"{size} {counters}"
    began, cpu, served = time.perf_counter(), time.process_time(), server()
    for first in range(0, number, size):
        calls: list[asyncio.Future[Any]] = []
        for message in range(first, first + size):
            recipient = sessions[message % len(sessions)]
            calls.append(storage.offline.deliver(HOST, "bob", STANZA, 1.0, [(recipient, message)], origin, message))
        await asyncio.gather(*calls)
        if counters:
            for message in range(first, first + size):
                calls.append(storage.sessions.handled(sessions[message % len(sessions) - 1], message))
                calls.append(storage.sessions.acknowledged(sessions[message % len(sessions)], message))
            await asyncio.gather(*calls)
    used = time.perf_counter() - began, time.process_time() - cpu, server() - served
    wall, ours, theirs = (seconds / number * 1e6 for seconds in used)
    return wall, ours, theirs


async def measure_delivery(name: str, storage: SqlStorage, server: Callable[[], float]) -> None:
    """Print what messages for sessions cost."""
    opening = [
        storage.sessions.open(f"token of session {number}", HOST, f"user{number}", "phone", "worker", True, bytes(500))
        for number in range(200)
    ]
    sessions = await asyncio.gather(*opening)
    for counters in (False, True):
        what = "deliver and counters" if counters else "deliver"
        for size in (1, 32, 256):
            wall, ours, theirs = await in_groups(storage, sessions, size, counters=counters, server=server)
            print(f"{name:10} {f'{what}, groups of {size}':40} {wall:8.1f} µs, CPU {ours:.1f} and {theirs:.1f} µs")


async def measure(name: str, url: str, gather: float, server: Callable[[], float] = float) -> None:
    """Print the figures of one database; `server` tells the CPU seconds that its processes have used."""
    migrate.upgrade(url)
    storage = SqlStorage(url, gather=gather)
    await storage.start()
    store = storage.keyvalue("roster", Text(), 10_000)
    value = "x" * 500
    await one_by_one(200, lambda n: storage.offline.append(HOST, f"user{n}", STANZA, 1.0, None, 1_000_000))
    figures = {
        "append, 5000 at once": await at_once(
            5000, lambda n: storage.offline.append(HOST, f"user{n % 200}", STANZA, 1.0, None, 1_000_000)
        ),
        "append, one by one": await one_by_one(
            200, lambda n: storage.offline.append(HOST, f"user{n}", STANZA, 1.0, None, 1_000_000)
        ),
        "put, 2000 at once": await at_once(2000, lambda n: store.put(HOST, f"user{n}", "", value, 0)),
    }
    store.invalidate_all()
    figures["get from the database, 2000 at once"] = await at_once(2000, lambda n: store.get(HOST, f"user{n}", ""))
    store.invalidate_all()
    figures["get from the database, one by one"] = await one_by_one(2000, lambda n: store.get(HOST, f"user{n}", ""))
    figures["get from the cache"] = await one_by_one(2000, lambda n: store.get(HOST, f"user{n}", ""))
    began = time.perf_counter()
    for place in range(2000):
        store.peek(HOST, f"user{place}", "")
    figures["peek"] = (time.perf_counter() - began) / 2000 * 1e6
    for what, microseconds in figures.items():
        print(f"{name:10} {what:40} {microseconds:8.1f} µs")
    for rate in (500, 2000, 5000):
        cpu, answer, delay = await at_a_rate(storage, rate, 2.0)
        print(f"{name:10} {f'append, {rate} a second':40} {cpu:8.1f} µs CPU, durable after {answer:.1f} ms", end="")
        print(f", loop late by {delay:.1f} ms (99 %)")
    await measure_delivery(name, storage, server)
    await storage.close()


def main() -> None:
    """Measure both databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=".", help="where the databases are put: the disk is measured, too")
    parser.add_argument("--gather", type=float, default=0.002, help="seconds that the writer waits for more")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        uvloop.run(measure("SQLite", f"sqlite:///{directory}/bench.db", options.gather))
    with running_server(DURABLE) as server:
        uvloop.run(measure("PostgreSQL", server.create_database(), options.gather, server.cpu_seconds))


if __name__ == "__main__":
    main()

"""A process that is killed has lost nothing that it had acknowledged."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.storage.conftest import Opener

# Appends without end and prints the number of each message once it is durable.
PROGRAM = """
import asyncio, sys
from monktalk.xmpp.storage.sql.storage import SqlStorage

async def main():
    storage = SqlStorage(sys.argv[1])
    await storage.start()
    number = 0
    while True:
        numbers = range(number, number + 20)
        number += 20
        appends = [storage.offline.append("h", "bob", str(n).encode(), 1.0, None, 10**6) for n in numbers]
        assert all(await asyncio.gather(*appends))
        print(*numbers, flush=True)

asyncio.run(main())
"""


async def test_kill_in_the_middle(open_storage: Opener, database_url: str) -> None:
    acknowledged = await asyncio.to_thread(append_until_killed, database_url)
    assert len(acknowledged) >= 200
    storage = await open_storage()
    messages = await storage.offline.load("h", "bob", 1_000_000)
    # In order, without gaps, and with nothing twice.
    stored = [message.stanza for message in messages]
    assert stored == [str(number).encode() for number in range(len(stored))]
    assert stored[: len(acknowledged)] == acknowledged


def append_until_killed(url: str) -> list[bytes]:
    """The numbers that the program has acknowledged before it was killed."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(10)]
        finally:
            process.kill()
        lines += process.stdout.readlines()
    return [number for line in lines if line.endswith(b"\n") for number in line.split()]

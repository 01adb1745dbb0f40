"""A relay in front of PostgreSQL that breaks a connection in the middle of a commit."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum, auto
from typing import Any

CHUNK = 65536


class Fault(Enum):
    """What happens to the next commit."""

    ANSWER_LOST = auto()  # the server commits, and the client never hears of it
    COMMIT_LOST = auto()  # the server never hears of it


class Proxy:
    """Relays connections on a port of 127.0.0.1 to a server's; `fault` concerns one commit."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.fault: Fault | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        answers = asyncio.ensure_future(self._copy(from_server, writer))
        try:
            with suppress(ConnectionError):
                while data := await reader.read(CHUNK):
                    if b"COMMIT\0" in data and self.fault is not None:
                        fault, self.fault = self.fault, None
                        if fault is Fault.ANSWER_LOST:
                            answers.cancel()
                            to_server.write(data)
                            await from_server.read(CHUNK)
                        return
                    to_server.write(data)
                    await to_server.drain()
        finally:
            answers.cancel()
            to_server.close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
            writer.close()

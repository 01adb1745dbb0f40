"""A TCP relay between clients and a server: it cuts connections, falls silent, and garbles what the server sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.stream import StreamReader

Garble = Callable[[bytes], list[bytes]]


class _Connection:
    """One client's connection, through to the server."""

    def __init__(self, relay: Relay, client: asyncio.StreamWriter) -> None:
        self.relay = relay
        self.client = client
        self.server: asyncio.StreamWriter | None = None

    def cut(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()


class Relay:
    """Listens on a port of its own and passes everything on to the server's.

    Attributes:
        garble: gets each element that the server sends in clear, and returns what is passed on instead.
        silent: nothing is passed on, in either direction; connections stay.
        refusing: new connections are closed at once.
    """

    def __init__(self, port: int, garble: Garble | None = None) -> None:
        self.target = port
        self.garble = garble
        self.silent = False
        self.refusing = False
        self.port = 0
        self.connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut everything and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections at once."""
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        if self.refusing:
            connection.cut()
            return
        self.connections.append(connection)
        try:
            server_reader, connection.server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            connection.cut()
            return
        for source, target, garble in (
            (reader, connection.server, None),
            (server_reader, connection.client, self.garble),
        ):
            task = asyncio.create_task(self._pass_on(connection, source, target, garble))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, connection: _Connection, source: asyncio.StreamReader, target: asyncio.StreamWriter, garble: Garble | None
    ) -> None:
        elements = StreamReader()
        try:
            while data := await source.read(65536):
                if self.silent:
                    continue
                if garble is not None:
                    data = b"".join(part for element in elements.feed(data) for part in garble(element))
                target.write(data)
        except OSError:
            pass
        finally:
            connection.cut()

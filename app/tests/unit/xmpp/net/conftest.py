"""A server on real sockets of the loopback, its clock in the hands of the test, on the event loop of the real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import uvloop

from monktalk.xmpp.net.connection import TcpConnection
from monktalk.xmpp.net.listener import ClientListener, Connections
from monktalk.xmpp.net.tls import TlsContexts
from tests.support.accounts import Account
from tests.support.certificates import make_certificate
from tests.support.client import Client, client_context
from tests.support.gate import Gate
from tests.support.inproc import HOST, OTHER_HOST, Site, site
from tests.support.wire import Wire

LOOPBACK = "127.0.0.1"
ROMEO = Account("romeo", HOST, "sesame")


class Station:
    """A server that listens on one port, and the clients that the test has connected to it."""

    def __init__(self, running: Site, connections: Connections, tls: TlsContexts) -> None:
        self.site = running
        self.server = running.server
        self.connections = connections
        self.tls = tls
        self.listener = ClientListener(connections, self.server.config.sections("listen", "c2s")[0], tls)
        self._sockets: list[socket.socket] = []
        self._wires: list[Wire] = []

    @property
    def gate(self) -> Gate:
        """The module that the test uses."""
        module = self.site.host.modules["gate"]
        assert isinstance(module, Gate)
        return module

    def tick(self, seconds: int = 1) -> None:
        """Let time go on for the housekeeping."""
        for _ in range(seconds):
            self.connections._tick()
            self.connections._timer.cancel()

    async def connect(self, *, tls: bool = False, source: str | None = None) -> Client:
        """A connection without a stream yet."""
        wire = await Wire.connect(
            LOOPBACK,
            self.listener.port,
            tls=client_context() if tls else None,
            server_hostname=HOST if tls else None,
            source=source,
        )
        self._wires.append(wire)
        return Client(wire, HOST)

    async def stream(self, *, tls: bool = False) -> Client:
        """An open stream."""
        client = await self.connect(tls=tls)
        await client.open_stream()
        return client

    async def login(self, *, tls: bool = False, resource: str | None = None) -> Client:
        """A bound session."""
        client = await self.stream(tls=tls)
        await client.authenticate(ROMEO)
        await client.bind(resource)
        return client

    async def socket(self, receive_buffer: int | None = None) -> socket.socket:
        """A connected socket that reads when the test says so."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sockets.append(sock)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, self.listener.port))
        return sock

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let the loop turn until the condition holds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10
        while not condition():
            assert loop.time() < deadline, f"{what}: it never happened"
            await asyncio.sleep(0.002)

    async def of(self, port: int) -> TcpConnection:
        """The server's end of the connection from that port."""
        found: list[TcpConnection] = []

        def look() -> bool:
            found.extend(each for each in self.connections._all() if each.port == port)
            return bool(found)

        await self.until(look, "the server has accepted")
        return found[0]

    async def end_of(self, client: Client) -> TcpConnection:
        """The server's end of a client's connection."""
        port: int = client.wire._writer.get_extra_info("sockname")[1]
        return await self.of(port)

    async def close(self) -> None:
        """End everything."""
        for sock in self._sockets:
            sock.close()
        for wire in self._wires:
            await wire.close()
        await self.listener.close()
        await self.connections.close()
        await self.until(lambda: not self.connections.count, "all connections are gone")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of the server, whose transports differ in details from those of asyncio."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> str:
    """The section of the configuration with a certificate for both hosts."""
    path, key = make_certificate(tmp_path_factory.mktemp("tls"), "server", [HOST, OTHER_HOST])
    return f"[tls]\ncertificate = '{path}'\nkey = '{key}'\n"


@pytest.fixture
def station(certificate) -> Callable[..., AbstractAsyncContextManager[Station]]:
    """``async with station("[limits]\\n…", listen="starttls_required = true")``: a server with that configuration."""

    @contextlib.asynccontextmanager
    async def open_station(text: str = "", listen: str = "starttls_required = false") -> AsyncIterator[Station]:
        listener = f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = 0\n{listen}\n"
        async with site({"gate": Gate}, certificate + listener + text) as running:
            running.accounts().passwords[ROMEO.user] = ROMEO.password
            connections = Connections(running.server)
            connections._timer.cancel()
            tls = TlsContexts()
            tls.load(running.server.config)
            opened = Station(running, connections, tls)
            await opened.listener.start()
            try:
                yield opened
            finally:
                await opened.close()

    return open_station

"""What a test holds in its hands: a running server, and the clients that the test has connected to it."""

from __future__ import annotations

import itertools
import ssl

from tests.support.accounts import Account
from tests.support.client import Client, client_context
from tests.support.stack import XmppServer
from tests.support.wire import Wire

CLEAR, STARTTLS, DIRECT = "clear", "starttls", "direct"
TRANSPORTS = (CLEAR, STARTTLS, DIRECT)
_serial = itertools.count(1)
HOST, OTHER_HOST, ISOLATED_HOST = "localhost", "other.example", "isolated.example"


def fresh_address() -> str:
    """A loopback address that no other test connects from: failed logins of one address add up."""
    number = next(_serial)
    return f"127.{100 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


class Server:
    """A server as one test sees it. Connections made through it are closed when the test ends."""

    def __init__(self, program: XmppServer) -> None:
        self.program = program
        self.host = HOST
        self._log_start = program.log_size()
        self._clients: list[Client] = []

    @property
    def administrator(self) -> Account:
        """The administrator of the first host, as the configuration names him."""
        return self.program.auth.administrator

    # -------------------------------------------------------------------------------------------- connections

    async def connect(
        self,
        transport: str = CLEAR,
        *,
        host: str = HOST,
        name: str = "client",
        required: bool = False,
        context: ssl.SSLContext | None = None,
        source: str | None = None,
    ) -> Client:
        """A connection without a stream yet.

        Direct TLS from the first byte when ``transport`` says so. The listener in use refuses clear streams if
        ``required``. ``source`` is the local address of the client.
        """
        tls = (context or client_context()) if transport == DIRECT else None
        port = self.program.tls_port if required or transport != CLEAR else self.program.clear_port
        wire = await Wire.connect(
            "127.0.0.1", port, name=name, tls=tls, server_hostname=host if tls else None, source=source
        )
        client = Client(wire, host)
        self._clients.append(client)
        return client

    async def stream(self, transport: str = CLEAR, *, host: str = HOST, source: str | None = None) -> Client:
        """An open stream that is ready for authentication, over TLS where the transport says so."""
        client = await self.connect(transport, host=host, source=source)
        await client.open_stream()
        if transport == STARTTLS:
            await client.starttls()
        return client

    async def authenticated(
        self, account: Account, transport: str = CLEAR, *, mechanism: str = "PLAIN", source: str | None = None
    ) -> Client:
        """A stream that is ready to bind a resource, or to resume a session."""
        client = await self.stream(transport, host=account.host, source=source)
        await client.authenticate(account, mechanism)
        return client

    async def login(
        self,
        account: Account,
        resource: str | None = None,
        *,
        transport: str = CLEAR,
        mechanism: str = "PLAIN",
    ) -> Client:
        """A bound session that has not sent presence."""
        client = await self.authenticated(account, transport, mechanism=mechanism)
        await client.bind(resource)
        return client

    async def online(
        self, account: Account, resource: str | None = None, *, priority: int | None = None, inner: str = ""
    ) -> Client:
        """An available session. What it received on becoming available is left in its inbox, except the echo."""
        client = await self.login(account, resource)
        await client.available(inner, priority)
        return client

    @property
    def accounts(self) -> set[Account]:
        """The accounts that have authenticated on connections made through this."""
        return {client.account for client in self._clients if client.known}

    # ------------------------------------------------------------------------------------------- when it ends

    @property
    def log(self) -> str:
        """What the server has logged since the test began."""
        return self.program.log_text(self._log_start)

    def story(self) -> str:
        """The conversations of the test's clients, for the report of a failure."""
        return "\n\n".join(client.wire.story() for client in self._clients)

    async def close(self) -> None:
        """Close all connections; fail when the server has logged a programming error meanwhile."""
        for client in self._clients:
            await client.wire.close()
        if " traceback=" in self.log or "Traceback (most recent call last)" in self.log:
            raise AssertionError(f"the server logged an exception:\n{self.log}")

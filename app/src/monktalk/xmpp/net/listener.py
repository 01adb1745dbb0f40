"""Listening sockets, and the housekeeping of their connections: admission, rates, time limits."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from monktalk.common.logging import get_logger
from monktalk.xmpp.net.connection import TcpConnection
from monktalk.xmpp.net.proxy import listed
from monktalk.xmpp.protocol.errors import StreamError

if TYPE_CHECKING:
    import socket

    from monktalk.common.config import Settings
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.net.tls import TlsContexts

log = get_logger(__name__)

_SLOTS = 16
_CLOSING_TICKS = 5
_FAREWELL_SECONDS = 1.0
_ARRIVAL_SECONDS = 1.0
_ARRIVAL_PAUSE = 0.02


class Flusher:
    """Lets every connection that has output write once at the end of the loop's iteration."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[TcpConnection] = []

    def add(self, connection: TcpConnection) -> None:
        """The connection has output now."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(connection)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            try:
                connection.flush()
            except Exception:
                log.exception("write_failed", ip=connection.peer)
                connection.abort()


class Connections:
    """All client connections of a process, over all listeners.

    One timer a second serves everybody: it ends streams that take too long to log in, gives out rates, and visits a
    sixteenth of the connections to look for dead ones.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.limits: Settings = server.config.section("limits")
        self.tick = 1
        self.count = 0
        self.flusher = Flusher(asyncio.get_running_loop())
        self._by_address: dict[str, int] = {}
        self._slots: list[set[TcpConnection]] = [set() for _ in range(_SLOTS)]
        self._logging_in: dict[TcpConnection, None] = {}  # oldest first
        self._throttled: set[TcpConnection] = set()
        self._accepted_now = 0
        self._unread: dict[TcpConnection, None] = {}  # oldest first
        self._closing: dict[TcpConnection, int] = {}  # with the tick at which they are aborted, oldest first
        self._all_gone: asyncio.Future[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(1.0, self._tick)

    async def close(self) -> None:
        """End all streams, give the clients a moment to take what they were sent, and drop who is left."""
        self._timer.cancel()
        for connection in self._all():
            connection.fail(StreamError("system-shutdown", "the server is being stopped"))
        if self.count:
            self._all_gone = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._all_gone], timeout=_FAREWELL_SECONDS)
        for connection in self._all():
            connection.abort()

    async def arrivals_served(self) -> None:
        """When no more are accepted: let those who have just connected get their answers, for a second at most.

        Whoever comes while the server is restarted should meet the old process or the new one, not the end of the old one.
        """
        loop = asyncio.get_running_loop()
        deadline, newest = loop.time() + _ARRIVAL_SECONDS, self.tick - 1
        while loop.time() < deadline and any(  # noqa: ASYNC110 - an event would cost something at every login
            connection.accepted >= newest and not connection.stream.arrived for connection in self._logging_in
        ):
            await asyncio.sleep(_ARRIVAL_PAUSE)

    def _all(self) -> list[TcpConnection]:
        return [connection for slot in self._slots for connection in slot]

    def admit(self, connection: TcpConnection, address: str) -> bool:
        """Count a new connection in, unless there are too many.

        ``address`` is whom it counts for, "" for nobody: a proxy is not limited, and has yet to say who is behind it.
        """
        if self.count >= self.limits.connections or not self._count_for(connection, address):
            self.server.metrics.connections_refused.inc()
            return False
        self.server.metrics.connections_accepted.inc()
        self.count += 1
        self._slots[id(connection) // 64 % _SLOTS].add(connection)
        self._logging_in[connection] = None
        self._accepted_now += 1
        if self._accepted_now > self.limits.accepts_per_second:
            connection.throttled()
            self._unread[connection] = None
        return True

    def identified(self, connection: TcpConnection) -> bool:
        """A proxy has named the client: count it for that address. False when the address has too many."""
        if self._count_for(connection, connection.peer):
            return True
        self.server.metrics.connections_refused.inc()
        return False

    def _count_for(self, connection: TcpConnection, address: str) -> bool:
        if not address:
            return True
        here = self._by_address.get(address, 0)
        if here >= self.limits.connections_per_address:
            return False
        self._by_address[address] = here + 1
        connection.counted = address
        return True

    def gone(self, connection: TcpConnection) -> None:
        """The connection has ended."""
        slot = self._slots[id(connection) // 64 % _SLOTS]
        if connection not in slot:
            return
        slot.discard(connection)
        self._throttled.discard(connection)
        self._logging_in.pop(connection, None)
        self._unread.pop(connection, None)
        self._closing.pop(connection, None)
        self.count -= 1
        if connection.counted:
            left = self._by_address[connection.counted] - 1
            if left:
                self._by_address[connection.counted] = left
            else:
                del self._by_address[connection.counted]
        if self._all_gone is not None and not self.count:
            self._all_gone.set_result(None)

    def throttle(self, connection: TcpConnection) -> None:
        """The connection has used up its rate."""
        connection.throttled()
        self._throttled.add(connection)

    def overflow(self, connection: TcpConnection) -> None:
        """The client does not read what it is sent, and too much is waiting."""
        log.info("client_too_slow", ip=connection.peer, stream=connection.stream.id)
        connection.abort()

    def closing(self, connection: TcpConnection) -> None:
        """The connection is being closed: see to it that it ends even when the client does not read."""
        self._closing.setdefault(connection, self.tick + _CLOSING_TICKS)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(1.0, self._tick)
        self.tick += 1
        try:
            self._end_late_logins()
            self._read_new()
            self._throttled = {connection for connection in self._throttled if not connection.refill()}
            self._end_late_closes()
            for connection in list(self._slots[self.tick % _SLOTS]):
                self._visit(connection)
        except Exception:
            log.exception("housekeeping_failed")

    def _end_late_logins(self) -> None:
        """A stream has so much time to bind a resource, whatever it sends meanwhile."""
        oldest = self.tick - self.limits.login_time
        while self._logging_in:
            connection = next(iter(self._logging_in))
            if connection.accepted > oldest:
                break
            del self._logging_in[connection]
            if not connection.stream.arrived:
                connection.fail(StreamError("connection-timeout", "logging in has taken too long"))

    def _end_late_closes(self) -> None:
        """A client that does not read keeps a closed connection open for a few seconds only."""
        while self._closing:
            connection, tick = next(iter(self._closing.items()))
            if tick > self.tick:
                break
            del self._closing[connection]
            connection.abort()

    def _read_new(self) -> None:
        """Begin to read as many of the connections that came too fast as one second allows."""
        ready = list(islice(self._unread, self.limits.accepts_per_second))
        self._accepted_now = len(ready)
        for connection in ready:
            del self._unread[connection]
            if not connection.refill():
                self._throttled.add(connection)

    def _visit(self, connection: TcpConnection) -> None:
        limits = self.limits
        if connection.stalled and self.tick - connection.stalled > limits.write_time:
            self.overflow(connection)
        elif limits.idle_time and self.tick - connection.active > limits.idle_time:
            connection.fail(StreamError("connection-timeout", "nothing has come for too long"), resumable=True)


class ClientListener:
    """One listening socket for client streams."""

    def __init__(self, connections: Connections, options: Settings, tls: TlsContexts) -> None:
        self.connections = connections
        self.options = options
        self.tls = tls
        self.server = connections.server
        self.flusher = connections.flusher
        self.admit = connections.admit
        self.identified = connections.identified
        self.gone = connections.gone
        self.throttle = connections.throttle
        self.overflow = connections.overflow
        self.closing = connections.closing
        self._asyncio: asyncio.Server | None = None

    def is_proxy(self, peer: str) -> bool:
        """Whether a connection from there has to begin with a PROXY header. Headers of others are never believed."""
        networks = self.options.proxy_protocol
        return bool(networks) and listed(peer, networks)

    @property
    def limits(self) -> Settings:
        """The limits in force."""
        return self.connections.limits

    @property
    def tick(self) -> int:
        """The present second of the housekeeping clock."""
        return self.connections.tick

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen, on ``sock`` when the service manager has handed one over. Raises OSError with the address in it."""
        loop = asyncio.get_running_loop()
        address, port = self.options.address, self.options.port
        try:
            if sock is not None:
                self._asyncio = await loop.create_server(self._connection, sock=sock, backlog=self.options.backlog)
            else:
                self._asyncio = await loop.create_server(
                    self._connection, address, port, backlog=self.options.backlog, reuse_address=True
                )
        except OSError as error:
            raise OSError(error.errno, f"can't listen on {address} port {port}: {error.strerror}") from None
        log.info("listening", kind="c2s", address=address, port=self.port)

    def _connection(self) -> TcpConnection:
        return TcpConnection(self)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._asyncio is not None
        port: int = self._asyncio.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Accept no more connections."""
        if self._asyncio is not None:
            self._asyncio.close()
            self._asyncio = None

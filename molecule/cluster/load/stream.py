"""One connection: bytes in, whole elements out; TLS from the first byte or by STARTTLS."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

from bench.stream import StreamReader, StreamSyntaxError

if TYPE_CHECKING:
    import ssl

_CONNECT_TIME = 3.0
"""Longer than a connection to a host of the same network ever takes; one to a host that is gone takes for ever."""


class StreamClosedError(Exception):
    """The connection has ended; the text says how."""


class Listener(Protocol):
    """Who gets the elements after the negotiation."""

    def element(self, element: bytes) -> None:
        """An element of the server's."""

    def closed(self, reason: str) -> None:
        """The connection has ended."""


class Stream(asyncio.Protocol):
    """A connection. During the negotiation elements are asked for (`next`), afterwards a listener gets them.

    Attributes:
        last_received: when bytes came last, in the loop's time.
        awaiting: since when an answer is missing; 0 when none is.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = StreamReader()
        self._elements: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._listener: Listener | None = None
        self._closed = ""
        self.last_received = self._loop.time()
        self.awaiting = 0.0

    @classmethod
    async def connect(cls, address: tuple[str, int], tls: ssl.SSLContext | None, name: str) -> Stream:
        """Connect.

        Args:
            address: host and port.
            tls: for TLS from the first byte; None to begin in clear.
            name: the domain, which the certificate has to be for.

        Raises:
            OSError: there is no connection to be had (TimeoutError and ssl.SSLError among them).
        """
        async with asyncio.timeout(_CONNECT_TIME):
            _, stream = await asyncio.get_running_loop().create_connection(
                cls, *address, ssl=tls, server_hostname=name if tls else None
            )
        return stream

    async def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Begin TLS on the connection (STARTTLS).

        Raises:
            OSError: the handshake failed.
            StreamClosedError: the connection has ended.
        """
        if self._transport is None or self._closed:
            raise StreamClosedError(self._closed or "not connected")
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=name)
        if transport is None:
            raise StreamClosedError("the connection ended during the TLS handshake")
        self._transport = transport

    def restart(self) -> None:
        """Expect a new stream header."""
        self._reader = StreamReader()

    # ----------------------------------------------------------------------------------- what the transport reports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is there, with TLS if it was asked for."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Cut what came into elements."""
        self.last_received = self._loop.time()
        self.awaiting = 0.0
        try:
            elements = self._reader.feed(data)
        except StreamSyntaxError as error:
            self.abort(str(error))
            return
        for element in elements:
            if self._listener is not None:
                self._listener.element(element)
            else:
                self._elements.append(element)
        self._wake()

    def eof_received(self) -> bool:
        """The server says no more: nor do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._end(f"connection lost: {type(exc).__name__}" if exc else "the server closed the connection")

    def _end(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = reason
        self._wake()
        if self._listener is not None:
            self._listener.closed(reason)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ------------------------------------------------------------------------------------------- what clients do

    async def next(self) -> bytes:
        """The next element.

        Raises:
            StreamClosedError: the connection ended before one came.
        """
        while not self._elements:
            if self._closed:
                raise StreamClosedError(self._closed)
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._elements.popleft()

    def listen(self, listener: Listener) -> None:
        """Give what comes from now on, and what has come already, to a listener."""
        self._listener = listener
        while self._elements:
            listener.element(self._elements.popleft())
        if self._closed:
            listener.closed(self._closed)

    def write(self, data: bytes) -> None:
        """Send bytes, if the connection is still there; whether they arrive is another question."""
        if self._transport is not None and not self._closed:
            self._transport.write(data)

    def request(self, data: bytes) -> None:
        """Send bytes that the server has to answer in some way."""
        if not self.awaiting:
            self.awaiting = self._loop.time()
        self.write(data)

    def abort(self, reason: str) -> None:
        """End the connection at once, as a machine does that loses its network."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

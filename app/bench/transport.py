"""Non-blocking TCP and TLS over one epoll: the load generator's own event loop.

TLS runs on ssl.MemoryBIO: one recv() fetches all records that are there, where an SSLSocket would ask the kernel
twice for each of them and become the bottleneck of the measurement.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_RECEIVE_SIZE = 262144
_CLOSED_EVENTS = select.EPOLLHUP | select.EPOLLERR


class Receiver(Protocol):
    """What a connection reports to."""

    def connected(self) -> None:
        """The connection, with TLS if it has it, can be used."""

    def received(self, data: bytes) -> None:
        """Bytes came, decrypted."""

    def disconnected(self, reason: str) -> None:
        """The other side closed, or an error ended the connection. Comes once, and not after close()."""


class LoadTimeoutError(Exception):
    """What was waited for did not happen in time."""


class Loop:
    """Waits for sockets and calls their connections; after each round it calls `after_round`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self.after_round: Callable[[], None] | None = None

    def add(self, connection: Connection, number: int, events: int) -> None:
        """Watch the socket with this number."""
        self._connections[number] = connection
        self._epoll.register(number, events)

    def change(self, number: int, events: int) -> None:
        """Watch the socket for other events."""
        self._epoll.modify(number, events)

    def remove(self, number: int) -> None:
        """Stop watching the socket."""
        if self._connections.pop(number, None) is not None:
            self._epoll.unregister(number)

    def run(self, finished: Callable[[], bool], timeout: float, purpose: str) -> None:
        """Serve the sockets until `finished()`.

        Raises:
            LoadTimeoutError: `timeout` seconds were not enough; `purpose` says for what.
        """
        deadline = time.monotonic() + timeout
        while not finished():
            if time.monotonic() > deadline:
                raise LoadTimeoutError(f"{purpose}: not finished after {timeout:g} s")
            self._round(0.05)

    def run_for(self, seconds: float) -> None:
        """Serve the sockets for a time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._round(min(left, 0.05))

    def _round(self, timeout: float) -> None:
        connections = self._connections
        for number, events in self._epoll.poll(timeout):
            connection = connections.get(number)
            if connection is not None:
                connection.handle(events)
        if self.after_round is not None:
            self.after_round()

    def close(self) -> None:
        """Close every connection that is left, and the loop."""
        for connection in list(self._connections.values()):
            connection.close()
        self._epoll.close()


class Connection:
    """One client connection; `send` before `connected` is kept until then."""

    def __init__(self, loop: Loop, address: tuple[str, int], receiver: Receiver, tls: ssl.SSLContext | None) -> None:
        self._loop = loop
        self._receiver = receiver
        self._unsent = b""
        self._writable = False
        self._tls: ssl.SSLObject | None = None
        self._handshaken = False
        self._ready = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number = self._socket.fileno()
        if tls is not None:
            self._wrap(tls)
        with contextlib.suppress(BlockingIOError):
            self._socket.connect(address)
        loop.add(self, self._number, select.EPOLLIN | select.EPOLLOUT)

    def start_tls(self, tls: ssl.SSLContext) -> None:
        """Begin TLS on the open connection (STARTTLS); `connected` is called again after the handshake."""
        self._wrap(tls)
        self._handshake()

    def _wrap(self, tls: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._incoming, self._outgoing)

    def send(self, data: bytes) -> None:
        """Send bytes, encrypted if the connection has TLS; never blocks."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._send_raw(data)

    def _send_raw(self, data: bytes) -> None:
        if self._unsent or not self._writable:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(f"sending failed: {error}")
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._writable = False
            self._loop.change(self._number, select.EPOLLIN | select.EPOLLOUT)

    def handle(self, events: int) -> None:
        """React to what epoll reported."""
        if events & select.EPOLLOUT and not self._writable:
            self._became_writable()
        if events & (select.EPOLLIN | _CLOSED_EVENTS):
            self._read()

    def _became_writable(self) -> None:
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(f"connecting failed: error {error}")
            return
        self._writable = True
        self._loop.change(self._number, select.EPOLLIN)
        if not self._ready:
            self._ready = True
            if self._tls is None:
                self._receiver.connected()
            else:
                self._handshake()
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self._send_raw(unsent)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"receiving failed: {error}")
            return
        if not data:
            self._fail("the server closed the connection")
        elif self._tls is None:
            self._receiver.received(data)
        else:
            self._decrypt(self._tls, data)

    def _decrypt(self, tls: ssl.SSLObject, data: bytes) -> None:
        incoming = self._incoming
        incoming.write(data)
        if not self._handshaken:
            self._handshake()
        parts = []
        failure = ""
        try:
            # Asking only while something is there saves an exception for each piece received.
            while self._handshaken and (incoming.pending or tls.pending()):
                parts.append(tls.read(_RECEIVE_SIZE))
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            failure = "the server closed the connection"
        except ssl.SSLError as error:
            failure = f"TLS failed: {error}"
        if parts:
            self._receiver.received(parts[0] if len(parts) == 1 else b"".join(parts))
        if failure:
            self._fail(failure)

    def _handshake(self) -> None:
        assert self._tls is not None
        done = False
        try:
            self._tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(f"TLS handshake failed: {error}")
            return
        if self._outgoing.pending:
            self._send_raw(self._outgoing.read())
        if done and not self._handshaken:
            self._handshaken = True
            self._receiver.connected()

    def _fail(self, reason: str) -> None:
        if self._number >= 0:
            self.close()
            self._receiver.disconnected(reason)

    def close(self) -> None:
        """Close the socket; nothing is reported any more."""
        if self._number >= 0:
            self._loop.remove(self._number)
            self._number = -1
            self._socket.close()


def client_tls_context(alpn: str | None = None) -> ssl.SSLContext:
    """A context for servers on loopback whose certificate was made for this run: it is not verified.

    Args:
        alpn: the application protocol to ask for; direct TLS wants "xmpp-client" (XEP-0368).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context

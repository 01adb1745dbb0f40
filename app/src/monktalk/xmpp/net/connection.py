"""One TCP connection of a client: bytes to and from the stream, in clear or through TLS.

Output of one iteration of the event loop is gathered and leaves in one write. A connection owns no task.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, cast

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.c2s import ClientStream
from monktalk.xmpp.net.proxy import BadHeader, HeaderReader
from monktalk.xmpp.protocol.stream import XmlStream

if TYPE_CHECKING:
    from monktalk.xmpp.core.relay import Uplink
    from monktalk.xmpp.net.listener import ClientListener
    from monktalk.xmpp.net.tls import TlsLayer
    from monktalk.xmpp.protocol.errors import StreamError

log = get_logger(__name__)

_TLS_HANDSHAKE = 0x16


class TcpConnection(asyncio.Protocol):
    """The transport side of a :class:`ClientStream`; implements :class:`~monktalk.xmpp.core.link.Link`.

    ``active`` is the tick (seconds of the listener's clock) at which input came last, ``stalled`` that at which the
    client stopped reading, or 0. ``counted`` is the address that the connection counts for, "" for none.
    """

    __slots__ = (
        "_allowance",
        "_caught_up",
        "_closing",
        "_fresh",
        "_header",
        "_held",
        "_listener",
        "_output",
        "_paused",
        "_port",
        "_refilled",
        "_throttled",
        "_tls",
        "_transport",
        "_uplink",
        "_xml",
        "accepted",
        "active",
        "counted",
        "logged_in",
        "peer",
        "secure",
        "stalled",
        "stream",
    )

    kind = "tcp"

    def __init__(self, listener: ClientListener) -> None:
        self._listener = listener
        self._tls: TlsLayer | None = None
        self._transport: asyncio.Transport
        self._output: list[bytes] = []
        self._closing = False
        self._fresh = True
        self._header: HeaderReader | None = None
        self._port = 0
        self._held: list[bytes] | None = None
        self._paused = False
        self._throttled = False
        self.peer = self.counted = ""
        self.secure = False
        self.logged_in = False
        self.accepted = self.active = self._refilled = listener.tick
        self.stalled = 0
        self._caught_up: asyncio.Future[None] | None = None
        self._allowance: int = listener.limits.burst_unauthenticated
        self._uplink: Uplink | None = None
        self._xml: XmlStream | Uplink = XmlStream(listener.server.parsers, listener.limits.stanza_size_unauthenticated)
        self.stream: ClientStream

    # -- asyncio -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        if name:
            self.peer, self._port = str(name[0]), int(name[1])
        else:
            self.peer = "unix"
        listener = self._listener
        self.stream = ClientStream(listener.server, self, tls_required=listener.options.starttls_required)
        if listener.is_proxy(self.peer):
            self._header = HeaderReader()
        elif listener.options.proxies_only:
            log.info("connection_refused", ip=self.peer, reason="it does not come from a proxy")
            listener.server.metrics.connections_refused.inc()
            self.abort()
            return
        if not listener.admit(self, "" if self._header is not None else self.peer):
            self.abort()
            return
        self._transport.set_write_buffer_limits(high=listener.limits.write_buffer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._closing = True
        self.resume_writing()
        self._listener.gone(self)
        self.stream.lost()
        self._xml.close()
        self._tls = None
        self._held = None

    def eof_received(self) -> bool:
        """The client has closed its side: what it has sent is handled, and there is nothing more to wait for."""
        if self._header is not None and self._header.begun and not self._closing:
            self._refuse_header("the header is not complete")
        self._hang_up()
        return False

    def data_received(self, data: bytes) -> None:
        """Input."""
        listener = self._listener
        self.active = listener.tick
        self._allowance -= len(data)
        if self._paused or self._throttled:
            if self._held is None:
                self._held = []
            self._held.append(data)
            # uvloop begins to read a new connection even if that was paused in connection_made().
            self._transport.pause_reading()
            return
        if self._allowance < 0 and self._over_rate():
            listener.throttle(self)
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        if self._fresh:
            if self._header is not None:
                data = self._receive_header(self._header, data)
            if not data:
                return
            self._sniff(data)
        if self._tls is not None:
            plain = self._decrypt(self._tls, data)
            if not plain:
                return
            data = plain
        if not self._closing:
            self.stream.handle(self._xml.receive(data))

    def _receive_header(self, header: HeaderReader, data: bytes) -> bytes:
        """A proxy tells who is behind it. Returns what the client itself has sent."""
        if self._closing:
            return b""
        try:
            found = header.receive(data)
        except BadHeader as error:
            self._refuse_header(str(error))
            return b""
        if found is None:
            return b""
        if found.address:
            self.peer = self.stream.peer = found.address
            self._port = found.port
            if not self._listener.identified(self):
                self.abort()
                return b""
        self._header = None
        return found.rest

    def _refuse_header(self, reason: str) -> None:
        log.warning("proxy_header_refused", ip=self.peer, reason=reason)
        self.abort()

    def _sniff(self, data: bytes) -> None:
        """The first byte of a connection tells direct TLS (XEP-0368) from a stream in clear."""
        self._fresh = False
        listener = self._listener
        if data[0] == _TLS_HANDSHAKE and listener.options.direct_tls and listener.tls.available:
            self._tls = listener.tls.wrap()

    def _decrypt(self, tls: TlsLayer, data: bytes) -> bytes | None:
        try:
            plain = tls.decrypt(data)
        except ssl.SSLError as error:
            log.info("tls_failed", ip=self.peer, reason=error.reason or str(error))
            self._send_raw(tls.outgoing())
            self._closing = True
            self._hang_up()
            return None
        if tls.established is not self.secure:
            self.secure = True
            log.debug("tls_established", ip=self.peer, version=tls.version)
        if plain is None:
            self._hang_up()
            return None
        if tls.has_output:
            self._send_raw(tls.outgoing())
        return plain

    def _hang_up(self) -> None:
        """The client has ended the connection: send what is queued, and see to it that the end does not depend on it."""
        self.flush()
        self._transport.close()
        self._listener.closing(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        self.stalled = self._listener.tick or 1
        if self._uplink is not None:
            self._uplink.stalled(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._uplink is not None and self.stalled:
            self._uplink.stalled(False)
        self.stalled = 0
        waiting, self._caught_up = self._caught_up, None
        if waiting is not None:
            waiting.set_result(None)

    # -- rate ----------------------------------------------------------------------------------------------------

    def _over_rate(self) -> bool:
        """Refill the allowance for the time that has passed; True when it is still used up."""
        limits = self._listener.limits
        now = self._listener.tick
        rate, burst = (
            (limits.rate, limits.burst)
            if self.logged_in
            else (limits.rate_unauthenticated, limits.burst_unauthenticated)
        )
        if not rate:
            self._allowance, self._refilled = burst, now
            return False
        self._allowance = min(burst, self._allowance + min(burst, rate * (now - self._refilled)))
        self._refilled = now
        return self._allowance < 0

    def throttled(self) -> None:
        """The client has sent more than its rate allows: stop reading until :meth:`refill`."""
        self._throttled = True
        self._transport.pause_reading()

    def refill(self) -> bool:
        """Time has passed; True when the client may be read again."""
        if self._over_rate():
            return False
        self._throttled = False
        self._read_on()
        return True

    # -- Link ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue output for the end of this iteration."""
        if self._closing:
            return
        output = self._output
        if not output:
            self._listener.flusher.add(self)
        output.append(data)

    def flush(self) -> None:
        """Write what is queued."""
        output = self._output
        if not output:
            return
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        if self._transport.is_closing():
            return
        tls = self._tls
        if tls is None:
            self._transport.write(data)
        elif tls.established:
            self._transport.write(tls.encrypt(data))
        if self.stalled and self._transport.get_write_buffer_size() > 2 * self._listener.limits.write_buffer:
            self._listener.overflow(self)

    def _send_raw(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def start_tls(self) -> None:
        """Send what is queued in clear, then expect a handshake. Input that has come already is dropped."""
        self.flush()
        self._held = None
        self._tls = self._listener.tls.wrap()

    def restart(self) -> None:
        """Expect a new stream header."""
        self._xml.restart()

    def authenticated(self) -> None:
        """The limits for authenticated clients hold from now on."""
        limits = self._listener.limits
        self.logged_in = True
        self._xml.max_bytes = limits.stanza_size
        self._allowance = limits.burst

    def relay(self, uplink: Uplink) -> None:
        """Hand what comes from now on to ``uplink``."""
        self._xml.close()
        self._xml = self._uplink = uplink

    def bindings(self) -> dict[str, bytes]:
        """Channel bindings of the TLS connection."""
        return self._tls.bindings() if self._tls is not None and self.secure else {}

    def close(self) -> None:
        """Send what is queued, then end the connection."""
        if self._closing:
            return
        self.flush()
        self._closing = True
        if self._tls is not None:
            self._send_raw(self._tls.shutdown())
        self._transport.close()
        self._listener.closing(self)

    def abort(self) -> None:
        """End the connection at once."""
        self._closing = True
        self._transport.abort()

    @property
    def port(self) -> int:
        """The client's port; 0 when it has none."""
        return self._port

    @property
    def idle(self) -> int:
        """Seconds since something came from the client."""
        return self._listener.tick - self.active

    async def drained(self) -> None:
        """Wait until the client has taken most of what it was sent, or the connection has ended."""
        self.flush()
        if self.stalled:
            if self._caught_up is None:
                self._caught_up = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._caught_up)

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            if not self._throttled:
                self._read_on()

    def _read_on(self) -> None:
        if self._paused or self._transport.is_closing():
            return
        self._transport.resume_reading()
        held, self._held = self._held, None
        for index, data in enumerate(held or ()):
            if self._waiting:
                self._held = (held or [])[index:] + (self._held or [])
                return
            self._receive(data)

    @property
    def _waiting(self) -> bool:
        return self._paused or self._throttled

    def fail(self, error: StreamError, *, resumable: bool = False) -> None:
        """End the stream with an error. A proxy that has not said whose stream it is does not get to see one."""
        if self._header is None:
            self.stream.fail(error, resumable=resumable)
        elif error.condition == "connection-timeout":
            self._refuse_header("none has come in time")
        else:
            self.abort()

"""The readiness endpoint: a load balancer asks by HTTP whether new connections are welcome here.

``GET /ready`` is 200 while they are, and 503 with the reason while they are not; ``GET /live`` is 200 while the process
answers at all. One small request a connection, from addresses that are allowed; everything else is turned away.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, cast

from monktalk.common.logging import get_logger
from monktalk.xmpp.net.proxy import listed

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network, IPv6Network

    from monktalk.common.config import Settings

log = get_logger(__name__)

STARTING, READY, DRAINING, STOPPING = "starting", "ready", "draining", "stopping"

MAX_REQUEST: Final = 4096
"""Bytes of a request, its header fields included."""

MAX_CALLERS: Final = 64
"""Connections at once."""

REQUEST_SECONDS: Final = 5.0
"""How long a caller may take to ask and to take the answer."""

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]").fullmatch
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


def answer(request: bytes, state: str) -> bytes:
    """The answer to the head of a request, while the server is in ``state``."""
    found = _REQUEST_LINE(request.partition(b"\r\n")[0])
    if found is None:
        return _response(400, "bad request")
    method, path = found[1], found[2]
    if path not in (b"/ready", b"/live"):
        return _response(404, "not found")
    if method not in (b"GET", b"HEAD"):
        return _response(405, "method not allowed", "Allow: GET, HEAD\r\n")
    if path == b"/live":
        return _response(200, "live", head=method == b"HEAD")
    return _response(200 if state == READY else 503, state, head=method == b"HEAD")


def _response(status: int, text: str, more: str = "", *, head: bool = False) -> bytes:
    body = f"{text}\n"
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nConnection: close\r\n{more}\r\n{'' if head else body}"
    ).encode("ascii")


class ReadinessEndpoint:
    """The listening side. ``state`` tells one of the states above whenever somebody asks."""

    def __init__(self, state: Callable[[], str]) -> None:
        self.state = state
        self.allowed: tuple[IPv4Network | IPv6Network, ...] = ()
        self.callers: set[_Caller] = set()
        self._place: tuple[str, int] | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int | None:
        """The port that is listened on, None when the endpoint is off."""
        if self._server is None:
            return None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def change(self, settings: Settings) -> None:
        """Listen where the section says, or nowhere. Raises OSError for a port that can't be had: then nothing changes."""
        self.use(settings, await self.open(settings))

    async def open(self, settings: Settings) -> asyncio.Server | None:
        """The first half of :meth:`change`: what is to be listened on besides. Close it, or :meth:`use` it."""
        place = _place(settings)
        return await self._listen(*place) if place is not None and place != self._place else None

    def use(self, settings: Settings, opened: asyncio.Server | None) -> None:
        """The second half: let go what is not wanted any more."""
        if _place(settings) != self._place:
            self.close()
            self._server, self._place = opened, _place(settings)
        self.allowed = settings.allowed

    async def _listen(self, address: str, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: _Caller(self), address, port, reuse_address=True)
        except OSError as error:
            raise OSError(error.errno, f"can't listen on {address} port {port}: {error.strerror}") from None
        log.info("listening", kind="readiness", address=address, port=server.sockets[0].getsockname()[1])
        return server

    def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()
            self._server = self._place = None
        for caller in list(self.callers):
            caller.end()


def _place(settings: Settings) -> tuple[str, int] | None:
    return (settings.address, settings.port) if settings.port is not None else None


class _Caller(asyncio.Protocol):
    """One request."""

    def __init__(self, endpoint: ReadinessEndpoint) -> None:
        self._endpoint = endpoint
        self._request = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        endpoint = self._endpoint
        peer = str(transport.get_extra_info("peername")[0])
        if len(endpoint.callers) >= MAX_CALLERS or not listed(peer, endpoint.allowed):
            log.debug("readiness_refused", ip=peer)
            self._transport.abort()
            return
        endpoint.callers.add(self)
        self._timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self.end)

    def data_received(self, data: bytes) -> None:
        if self not in self._endpoint.callers or self._transport.is_closing():
            return
        self._request += data
        if len(self._request) > MAX_REQUEST:
            self.end()
        elif b"\r\n\r\n" in self._request:
            self._transport.write(answer(self._request, self._endpoint.state()))
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._endpoint.callers.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """End the connection at once."""
        self._transport.abort()

"""Clients whose connection ends at one worker and whose user's home is another: bytes go through the bus.

The edge, where the connection is, keeps TLS, rates and time limits. After authentication it passes on what the client
sends, as bytes, and writes what comes back. At the home a :class:`RemoteLink` takes the place of the connection.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.c2s import ClientStream
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.stream import XmlStream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.protocol.stream import Event

log = get_logger(__name__)

KINDS: Final = range(20, 27)
OPEN, UP, DOWN, LOST, CLOSE, STALLED, PAUSED = KINDS
"""Kinds of frames: a client has come, bytes from and to it, it has gone, close it, it does (not) read, (don't) read it."""

_NOTHING: Final[tuple[Event, ...]] = ()


class Uplink:
    """At the edge, in the place of the XML stream of a connection: passes its bytes on."""

    max_bytes = 0

    def __init__(self, relays: Relays, home: str, number: int, stream: ClientStream) -> None:
        self.home = home
        self.number = number
        self.stream = stream
        self._relays = relays

    def receive(self, data: bytes) -> Iterable[Event]:
        """The client has sent something."""
        self._relays.send(self.home, UP, self.number, data)
        return _NOTHING

    def stalled(self, stalled: bool) -> None:
        """The client reads more slowly than it is written to, or has caught up."""
        self._relays.send(self.home, STALLED, self.number, stalled)

    def restart(self) -> None:
        """The stream is the home's."""

    def close(self) -> None:
        """The connection has gone."""
        self._relays.gone(self)


class RemoteLink:
    """At the home, in the place of a connection that ends at another worker. See :class:`~monktalk.xmpp.core.link.Link`."""

    def __init__(self, relays: Relays, edge: str, number: int, facts: tuple[Any, ...]) -> None:
        self.edge = edge
        self.number = number
        self.peer, self.port, self.secure, self.kind = facts
        self.active = 0
        self._relays = relays
        self._heard = relays.now()
        self._stalled = False
        self._closed = False
        self._caught_up: asyncio.Future[None] | None = None
        server = relays.server
        self.xml = XmlStream(server.parsers, server.config.section("limits").stanza_size)
        self.stream = ClientStream(server, self, tls_required=False)

    def receive(self, data: bytes) -> None:
        """The client has sent something."""
        self._heard = self._relays.now()
        if not self._closed:
            self.stream.handle(self.xml.receive(data))

    def write(self, data: bytes) -> None:
        """Send to the client; what goes to one worker in one iteration of the loop leaves together."""
        if data and not self._closed:
            self._relays.send(self.edge, DOWN, self.number, data)

    def start_tls(self) -> None:
        """TLS was negotiated before, or not at all: the stream is authenticated."""

    def restart(self) -> None:
        """Expect a new stream header."""
        self.xml.restart()

    def relay(self, uplink: Uplink) -> None:
        """Nothing is passed on twice."""
        raise AssertionError("a relayed stream is authenticated already")

    def authenticated(self) -> None:
        """The edge has been told."""

    def bindings(self) -> dict[str, bytes]:
        """Authentication is over."""
        return {}

    def close(self) -> None:
        """Have the edge send what was written, and close the connection."""
        if not self._closed:
            self._closed = True
            self._relays.send(self.edge, CLOSE, self.number)
            self._relays.forget(self)
            self._wake()

    def lost(self) -> None:
        """The connection, or the worker where it ended, is gone."""
        if not self._closed:
            self._closed = True
            self._relays.forget(self)
            self._wake()
        self.stream.lost()
        self.xml.close()

    def stalled(self, stalled: bool) -> None:
        """The client does not read for now, or does again."""
        self._stalled = stalled
        if not stalled:
            self._wake()

    def _wake(self) -> None:
        waiting, self._caught_up = self._caught_up, None
        if waiting is not None:
            waiting.set_result(None)

    def pause(self) -> None:
        """Have the edge stop reading."""
        self._relays.send(self.edge, PAUSED, self.number, True)

    def resume(self) -> None:
        """Have the edge read again."""
        self._relays.send(self.edge, PAUSED, self.number, False)

    @property
    def idle(self) -> int:
        """Seconds since something came from the client."""
        return int(self._relays.now() - self._heard)

    async def drained(self) -> None:
        """Wait until the client has taken most of what it was sent, or is gone."""
        if self._stalled and not self._closed:
            if self._caught_up is None:
                self._caught_up = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._caught_up)


class Relays:
    """All relayed clients of a worker: those whose connections are here, and those whose sessions are."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.send = server.bus.send
        self.now = server.clock.monotonic
        self._numbers = itertools.count(1)
        self._uplinks: dict[int, Uplink] = {}
        self._links: dict[tuple[str, int], RemoteLink] = {}

    # -- at the edge ---------------------------------------------------------------------------------------------

    def pass_on(self, stream: ClientStream, user: str, home: str, success: bytes) -> None:
        """The client of ``stream`` has authenticated as ``user``; from now on the worker ``home`` serves it."""
        host, link = stream.host, stream.link
        assert host is not None
        if stream.closed:
            return
        uplink = Uplink(self, home, next(self._numbers), stream)
        self._uplinks[uplink.number] = uplink
        self.send(
            home, OPEN, uplink.number, host.domain, user, stream.id, (link.peer, link.port, link.secure, link.kind)
        )
        link.write(success)
        link.authenticated()
        link.relay(uplink)
        stream.relayed(uplink)
        log.info("client_relayed", stream=stream.id, home=home)

    def gone(self, uplink: Uplink) -> None:
        """The client has gone, or the connection was closed here."""
        if self._uplinks.pop(uplink.number, None) is not None:
            self.send(uplink.home, LOST, uplink.number)

    # -- at the home ---------------------------------------------------------------------------------------------

    def forget(self, link: RemoteLink) -> None:
        """The link has ended."""
        self._links.pop((link.edge, link.number), None)

    def _open(self, edge: str, fields: tuple[Any, ...]) -> None:
        number, domain, user, stream_id, facts = fields[:5]
        host = self.server.hosts.get(domain)
        link = RemoteLink(self, edge, number, facts)
        self._links[edge, number] = link
        if host is None:
            link.stream.fail(StreamError("host-gone", "the domain is not served any more"))
            return
        link.stream.host = host
        link.stream.id = stream_id
        link.stream.authenticated(user, b"")
        seconds = self.server.config.section("limits").login_time
        asyncio.get_running_loop().call_later(seconds, self._end_late_login, link)

    @staticmethod
    def _end_late_login(link: RemoteLink) -> None:
        if link.stream.session is None:
            link.stream.fail(StreamError("connection-timeout", "logging in has taken too long"))

    # -- frames --------------------------------------------------------------------------------------------------

    def frame(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame of another worker about a relayed client."""
        number = fields[0]
        if kind == OPEN:
            self._open(worker, fields)
        elif kind == DOWN:
            uplink = self._uplinks.get(number)
            if uplink is not None:
                uplink.stream.link.write(fields[1])
        elif kind == CLOSE:
            uplink = self._uplinks.pop(number, None)
            if uplink is not None:
                uplink.stream.relay_ended()
        elif kind == PAUSED:
            uplink = self._uplinks.get(number)
            if uplink is not None:
                link = uplink.stream.link
                link.pause() if fields[1] else link.resume()
        else:
            self._from_edge(worker, number, kind, fields)

    def _from_edge(self, worker: str, number: int, kind: int, fields: tuple[Any, ...]) -> None:
        link = self._links.get((worker, number))
        if link is None:
            if kind == UP:
                self.send(worker, CLOSE, number)  # the home has started anew meanwhile
        elif kind == UP:
            link.receive(fields[1])
        elif kind == LOST:
            link.lost()
        elif kind == STALLED:
            link.stalled(fields[1])

    def worker_gone(self, worker: str) -> None:
        """A worker is gone: so are the clients whose connections ended there, and the sessions that were there."""
        for link in [link for link in self._links.values() if link.edge == worker]:
            link.lost()
        for uplink in [uplink for uplink in self._uplinks.values() if uplink.home == worker]:
            del self._uplinks[uplink.number]
            uplink.stream.fail(StreamError("system-shutdown", "the session's server has ended, resume elsewhere"))

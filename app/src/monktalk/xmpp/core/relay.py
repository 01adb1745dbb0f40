"""Clients whose connection ends at one worker and whose user's home is another: bytes go through the bus.

The edge, where the connection is, keeps TLS, rates and time limits. After authentication it passes on what the client
sends, as bytes, and writes what comes back. At the home a :class:`RemoteLink` takes the place of the connection.

The bus may lose frames. Bytes are counted by frames, both ways: where one is missing the connection ends, and the client
resumes its session.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster.bus import BusDown
from monktalk.xmpp.core.c2s import ClientStream
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.stream import XmlStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.protocol.stream import Event

log = get_logger(__name__)

KINDS: Final = range(20, 27)
OPEN, UP, DOWN, LOST, CLOSE, STALLED, PAUSED = KINDS
"""Kinds of frames: a client has come, bytes from and to it, it has gone, close it, it does (not) read, (don't) read it."""

PIECE: Final = 128 * 1024
"""Bytes to or from a client in one frame; NATS takes messages up to a limit."""

_NOTHING: Final[tuple[Event, ...]] = ()
_CUT: Final = StreamError("system-shutdown", "the session's server could not be reached, connect again and resume")
_ELSEWHERE: Final = StreamError("system-shutdown", "the account is served elsewhere by now, connect again")


class Uplink:
    """At the edge, in the place of the XML stream of a connection: passes its bytes on."""

    max_bytes = 0

    def __init__(self, relays: Relays, home: str, number: int, stream: ClientStream) -> None:
        self.home = home
        self.number = number
        self.stream = stream
        self._relays = relays
        self._sent = 0
        self._written = 0

    def receive(self, data: bytes) -> Iterable[Event]:
        """The client has sent something."""
        for piece in _pieces(data):
            self._sent += 1
            self._relays.send(self.home, UP, self.number, piece, self._sent)
        return _NOTHING

    def write(self, data: bytes, serial: int) -> bool:
        """The home has sent something for the client; False when something is missing before it."""
        self._written += 1
        if serial != self._written:
            return False
        self.stream.link.write(data)
        return True

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
        self._received = 0
        self._sent = 0
        self._early: list[bytes] | None = []
        self._stalled = False
        self._paused = False
        self._closed = False
        self._caught_up: asyncio.Future[None] | None = None
        server = relays.server
        self.xml = XmlStream(server.parsers, server.config.section("limits").stanza_size)
        self.stream = ClientStream(server, self, tls_required=False)

    def receive(self, data: bytes, serial: int) -> bool:
        """The client has sent something; False when something is missing before it."""
        self._received += 1
        if serial != self._received:
            return False
        self._heard = self._relays.now()
        if self._early is not None:
            self._early.append(data)
        elif not self._closed:
            self.stream.handle(self.xml.receive(data))
        return True

    def begin(self, user: str) -> None:
        """The user's home is here: serve the client, beginning with what it has sent already."""
        early, self._early = self._early, None
        self.stream.authenticated(user, b"")
        if early and not self._closed:
            self.stream.handle(self.xml.receive(b"".join(early)))

    def write(self, data: bytes) -> None:
        """Send to the client; what goes to one worker in one iteration of the loop leaves together."""
        if not self._closed:
            for piece in _pieces(data):
                self._sent += 1
                self._relays.send(self.edge, DOWN, self.number, piece, self._sent)

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
        self._pause(paused=True)

    def resume(self) -> None:
        """Have the edge read again."""
        self._pause(paused=False)

    def _pause(self, *, paused: bool) -> None:
        if paused is not self._paused and not self._closed:
            self._paused = paused
            self._relays.send(self.edge, PAUSED, self.number, paused)

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
        self._unsaid: dict[tuple[str, int, int], None] = {}
        """Ends of clients of which other workers could not be told: worker, kind and number."""

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

    def relayed(self) -> list[ClientStream]:
        """The streams whose connections are here and whose sessions are elsewhere."""
        return [uplink.stream for uplink in self._uplinks.values()]

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
        if self.server.bus.is_home(domain, user):
            link.begin(user)
        else:
            # His last session has ended while this client was on its way.
            _ = self.server.spawn(self._settle_here(link, host, user))
        seconds = self.server.config.section("limits").login_time
        asyncio.get_running_loop().call_later(seconds, self._end_late_login, link)

    async def _settle_here(self, link: RemoteLink, host: VirtualHost, user: str) -> None:
        """Become the user's home again, unless another worker was faster."""
        try:
            home = await self.server.bus.arrive(host.domain, user)
        except BusDown:
            link.stream.fail(_CUT)
            return
        if home is None:
            link.begin(user)
        else:
            link.stream.fail(_ELSEWHERE)

    @staticmethod
    def _end_late_login(link: RemoteLink) -> None:
        if link.stream.session is None:
            link.stream.fail(StreamError("connection-timeout", "logging in has taken too long"))

    # -- frames --------------------------------------------------------------------------------------------------

    def frame(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame of another worker about a relayed client."""
        if kind == OPEN:
            self._open(worker, fields)
        elif kind in (DOWN, CLOSE, PAUSED):
            self._from_home(worker, kind, fields)
        else:
            self._from_edge(worker, kind, fields)

    def _from_home(self, home: str, kind: int, fields: tuple[Any, ...]) -> None:
        number = fields[0]
        uplink = self._uplinks.get(number)
        if uplink is None:
            if kind == DOWN:
                self.send(home, LOST, number)  # it was not told, or not heard
        elif kind == DOWN:
            if not uplink.write(fields[1], fields[2]):
                log.warning("relay_broken", stream=uplink.stream.id, home=home)
                uplink.stream.fail(_CUT)
        elif kind == CLOSE:
            del self._uplinks[number]
            uplink.stream.relay_ended()
        elif fields[1]:
            uplink.stream.link.pause()
        else:
            uplink.stream.link.resume()

    def _from_edge(self, edge: str, kind: int, fields: tuple[Any, ...]) -> None:
        number = fields[0]
        link = self._links.get((edge, number))
        if link is None:
            if kind == UP:
                self.send(edge, CLOSE, number)  # the home has started anew meanwhile
        elif kind == UP:
            if not link.receive(fields[1], fields[2]):
                log.warning("relay_broken", stream=link.stream.id, edge=edge)
                self._cut(link)
        elif kind == LOST:
            link.lost()
        elif kind == STALLED:
            link.stalled(fields[1])

    # -- workers and the bus fail --------------------------------------------------------------------------------

    def _cut(self, link: RemoteLink) -> None:
        """Part with a client; the edge closes its connection."""
        self.send(link.edge, CLOSE, link.number)
        link.lost()

    def unsent(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame could not be sent, because there is no connection to the bus: the client it is about has to come anew."""
        number = fields[0]
        if kind in (DOWN, CLOSE, PAUSED):
            self._unsaid[worker, CLOSE, number] = None
            link = self._links.get((worker, number))
            if link is not None:
                link.lost()
        else:
            self._unsaid[worker, LOST, number] = None
            uplink = self._uplinks.pop(number, None)
            if uplink is not None:
                uplink.stream.fail(_CUT)

    def connected(self) -> None:
        """The bus works again: say what could not be said."""
        unsaid, self._unsaid = self._unsaid, {}
        for worker, kind, number in unsaid:
            self.send(worker, kind, number)

    def worker_gone(self, worker: str) -> None:
        """A worker is gone: so are the clients whose connections ended there, and the sessions that were there.

        Both are told, in case it is just out of reach.
        """
        for link in [link for link in self._links.values() if link.edge == worker]:
            self._cut(link)
        for uplink in [uplink for uplink in self._uplinks.values() if uplink.home == worker]:
            uplink.stream.fail(StreamError("system-shutdown", "the session's server has ended, resume elsewhere"))


def _pieces(data: bytes) -> Iterator[bytes]:
    for begin in range(0, len(data), PIECE):
        yield data[begin : begin + PIECE]

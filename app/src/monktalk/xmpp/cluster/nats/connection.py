"""One connection to NATS that comes back by itself, with plain calls for handlers.

The usual client keeps a queue and a task for each subscription. A worker subscribes to a subject for each user who is
online, so here a subscription is an entry in a dictionary, one dispatcher calls handlers, and what is sent in one iteration
of the event loop leaves in one write. What is sent without a connection is lost, as the bus may lose messages: whoever
has to know is told by ``on_state``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster.nats import wire

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

Handler = Callable[[wire.Message], None]
"""Called for each message of a subscription; what it raises is logged."""

CONNECT_SECONDS: Final = 5.0
"""How long a server may take to let us in."""

DRAIN_SECONDS: Final = 2.0
"""How long the last messages are waited for."""

PING_SECONDS: Final = 5.0
"""A server from which nothing comes for twice as long, in spite of a PING, is given up."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5

MOST_UNSENT: Final = 64 * 1024 * 1024
"""Bytes that wait for a server which does not read; with more, the connection is given up."""

_MAX_PAYLOAD: Final = 1024 * 1024
"""What a server takes unless it says otherwise."""

_JITTER: Final = random.SystemRandom()
"""So that not all workers come back at the same moment."""

log = get_logger(__name__)


class NotConnected(ConnectionError):
    """There is no connection, or it was lost before an answer came."""


class _Link(asyncio.Protocol):
    """One TCP connection of a :class:`Nats`, from INFO to its end."""

    def __init__(self, dispatch: Handler, lost: Callable[[_Link], None]) -> None:
        self._dispatch = dispatch
        self._lost = lost
        self._parser = wire.Parser()
        self.transport: asyncio.Transport | None = None
        self.informed: asyncio.Future[wire.Info] = asyncio.get_running_loop().create_future()
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard = True
        self.pongs: list[asyncio.Future[None]] = []
        self._output: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; the server speaks first."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        error = NotConnected(str(exc) if exc else "the server has closed the connection")
        waiting: list[asyncio.Future[Any]] = [self.informed, self.welcomed, *self.pongs]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # marked as seen: perhaps nobody waits for it
        self.transport = None
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Input."""
        self.heard = True
        try:
            events = self._parser.receive(data)
        except wire.ProtocolError as error:
            log.error("nats_protocol_error", reason=str(error))
            self.abort()
            return
        for event in events:
            if isinstance(event, wire.Message):
                self._dispatch(event)
            else:
                self._handle(event)

    def _handle(self, event: wire.Event) -> None:
        if isinstance(event, wire.Ping):
            self.write(wire.PONG)
        elif isinstance(event, wire.Pong):
            if not self.welcomed.done():
                self.welcomed.set_result(None)
            elif self.pongs:
                waiting = self.pongs.pop(0)
                if not waiting.done():
                    waiting.set_result(None)
        elif isinstance(event, wire.Info):
            if not self.informed.done():
                self.informed.set_result(event)
        elif isinstance(event, wire.Refusal):
            log.warning("nats_refused", reason=event.text)
            if not self.welcomed.done():
                self.welcomed.set_exception(NotConnected(event.text))

    def write(self, data: bytes) -> None:
        """Queue output for the end of this iteration of the loop."""
        if not self._output:
            asyncio.get_running_loop().call_soon(self.flush)
        self._output.append(data)

    def flush(self) -> None:
        """Write what is queued."""
        output, self._output = self._output, []
        transport = self.transport
        if not output or transport is None or transport.is_closing():
            return
        transport.write(b"".join(output))
        if transport.get_write_buffer_size() > MOST_UNSENT:
            log.error("nats_does_not_read", bytes=transport.get_write_buffer_size())
            self.abort()

    def ping(self) -> asyncio.Future[None]:
        """Ask for a PONG; done when everything sent before has reached the server."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pongs.append(waiting)
        self.write(wire.PING)
        return waiting

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()


class Nats:
    """A client of one NATS cluster.

    Args:
        servers: host and port of each server, in the order of preference: usually the node's own first.
        name: what the server shows for us in its lists.
        user, password: credentials, if the server wants some.
        tls: for servers that want TLS; None to speak in clear.
        on_state: called with True when a connection stands and all subscriptions are renewed, with False when it is lost.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        *,
        name: str,
        user: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
        on_state: Callable[[bool], None] = lambda _connected: None,
    ) -> None:
        self._servers = list(servers)
        self._hello = wire.connect(name, user=user, password=password)
        self._tls = tls
        self._on_state = on_state
        self._link: _Link | None = None
        self._max_payload = _MAX_PAYLOAD
        self._handlers: dict[int, Handler] = {}
        self._subjects: dict[int, tuple[bytes, bytes]] = {}
        self._last = 0
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    # -- life ----------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect to the first server that lets us in, and keep the connection up from then on.

        Raises :class:`NotConnected` when none does; then nothing is kept up.
        """
        await self._connect_to_one()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def drain(self) -> None:
        """Take no more messages: when this returns, all that the server has sent before are handled.

        Whoever sends now is told that nobody is there.
        """
        link = self._link
        if link is None:
            return
        link.write(b"".join(wire.unsubscribe(number) for number in self._subjects))
        self._subjects.clear()
        with contextlib.suppress(NotConnected, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await link.ping()

    async def close(self) -> None:
        """Send what is queued, and end the connection."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        link, self._link = self._link, None
        if link is not None and link.transport is not None:
            link.flush()
            link.transport.close()

    @property
    def connected(self) -> bool:
        """There is a connection, as far as we know."""
        return self._link is not None

    async def _connect_to_one(self) -> None:
        reasons = []
        for host, port in self._servers:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    link = await self._enter(host, port)
            except (OSError, TimeoutError, wire.ProtocolError) as error:
                reason = "no answer in time" if isinstance(error, TimeoutError) else error
                reasons.append(f"{host}:{port}: {reason}")
                continue
            self._link = link
            log.info("nats_connected", server=f"{host}:{port}")
            self._on_state(True)
            return
        raise NotConnected("no NATS server lets us in: " + "; ".join(reasons))

    async def _enter(self, host: str, port: int) -> _Link:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: _Link(self._dispatch, self._lost), host, port)
        try:
            info = await link.informed
            self._max_payload = int(info.options.get("max_payload", _MAX_PAYLOAD))
            if self._tls is not None:
                assert link.transport is not None
                # The server has said in clear that it wants TLS, and expects it next.
                link.transport = await loop.start_tls(link.transport, link, self._tls, server_hostname=host)
            elif info.options.get("tls_required"):
                raise NotConnected("the server wants TLS, but none is configured")
            renewed = [wire.subscribe(subject, sid, queue) for sid, (subject, queue) in self._subjects.items()]
            link.write(b"".join([self._hello, *renewed, wire.PING]))
            await link.welcomed
        except BaseException:
            link.abort()
            raise
        return link

    async def _keep(self) -> None:
        """Watch the connection, and connect anew whenever it is lost."""
        pause = FIRST_PAUSE
        while True:
            if self._link is None:
                try:
                    await self._connect_to_one()
                except NotConnected as error:
                    log.warning("nats_unreachable", reason=str(error), again_in=pause)
                    await asyncio.sleep(pause * _JITTER.uniform(0.5, 1.0))
                    pause = min(LONGEST_PAUSE, pause * 2)
                    continue
            pause = FIRST_PAUSE
            await self._watch()

    async def _watch(self) -> None:
        """Return when the connection is lost, or seems to be."""
        while (link := self._link) is not None:
            self._wake.clear()
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                if not link.heard:
                    log.warning("nats_silent", seconds=2 * PING_SECONDS)
                    link.abort()
                    self._lost(link)
                    return
                link.heard = False
                _ = link.ping()

    def _lost(self, link: _Link) -> None:
        if self._link is not link:
            return
        self._link = None
        self._wake.set()
        if not self._closing:
            log.warning("nats_lost")
        self._on_state(False)

    # -- messages ------------------------------------------------------------------------------------------------

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> bool:
        """Send a message; False when there is no connection to send it on.

        One that is larger than the server takes is dropped: the server would close the connection.
        """
        link = self._link
        if link is None:
            return False
        if len(payload) > self._max_payload:
            reason = "NATS takes less: raise its max_payload, or lower limits.stanza_size"
            log.error("message_too_large", subject=subject.decode(), bytes=len(payload), reason=reason)
            return True
        link.write(wire.publish(subject, payload, reply))
        return True

    def subscribe(self, subject: bytes, handler: Handler, queue: bytes = b"") -> int:
        """Have ``handler`` called for what is sent to the subject, from now on and after every new connection.

        Returns the number of the subscription, for :meth:`unsubscribe`.
        """
        self._last += 1
        number = self._last
        self._handlers[number] = handler
        self._subjects[number] = (subject, queue)
        if self._link is not None:
            self._link.write(wire.subscribe(subject, number, queue))
        return number

    def unsubscribe(self, number: int) -> None:
        """Take no more messages of a subscription."""
        self._handlers.pop(number, None)
        if self._subjects.pop(number, None) is not None and self._link is not None:
            self._link.write(wire.unsubscribe(number))

    async def flush(self) -> None:
        """Wait until the server has handled everything sent so far. Raises :class:`NotConnected`."""
        if self._link is None:
            raise NotConnected("there is no connection to NATS")
        await self._link.ping()

    def _dispatch(self, message: wire.Message) -> None:
        handler = self._handlers.get(message.subscription)
        if handler is None:
            return  # unsubscribed while it was on the way
        try:
            handler(message)
        except Exception:
            log.exception("nats_handler_failed", subject=message.subject)

"""NATS inside the test process, for tests of what is built on it: in order, without loss unless a test wants some.

::

    broker = Broker()
    alice, bob = broker.client(), broker.client()
    bob.subscribe(b"news", handler)
    alice.publish(b"news", b"hello")
    await broker.settled()
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from monktalk.xmpp.cluster.nats import wire
from monktalk.xmpp.cluster.nats.connection import NotConnected

if TYPE_CHECKING:
    from collections.abc import Callable

    from monktalk.xmpp.cluster.nats.connection import Handler


class Broker:
    """What all clients are connected to."""

    def __init__(self) -> None:
        self.clients: list[FakeNats] = []
        self.lose: Callable[[bytes], bool] = lambda _subject: False
        """Whether a message on that subject is lost on the way."""
        self._queue: deque[tuple[FakeNats, bytes, bytes, bytes]] = deque()

    def client(self) -> FakeNats:
        """A client that is connected."""
        client = FakeNats(self)
        client.up()
        return client

    def carry(self, sender: FakeNats, subject: bytes, payload: bytes, reply: bytes) -> None:
        """Take a message; it is delivered in another iteration of the loop."""
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._queue.append((sender, subject, payload, reply))

    def _deliver(self) -> None:
        queue, self._queue = self._queue, deque()
        for sender, subject, payload, reply in queue:
            if self.lose(subject):
                continue
            found = [client for client in self.clients if client is not sender and client.connected]
            taken = [client.take(subject, payload, reply) for client in found]
            if reply and not any(taken):
                sender.take(reply, b"", b"", wire.NO_RESPONDERS)

    async def settled(self) -> None:
        """Everything that has been published, and what that has caused, is delivered."""
        quiet = 0
        while quiet < 10:
            quiet = 0 if self._queue else quiet + 1
            await asyncio.sleep(0)


class FakeNats:
    """A client. See :class:`monktalk.xmpp.cluster.nats.connection.Nats`."""

    def __init__(self, broker: Broker, *, on_state: Callable[[bool], None] = lambda _connected: None) -> None:
        self._broker = broker
        self._on_state = on_state
        self._handlers: dict[int, tuple[bytes, Handler]] = {}
        self._last = 0
        self.connected = False
        broker.clients.append(self)

    def up(self) -> None:
        """The connection stands."""
        self.connected = True
        self._on_state(True)

    def down(self) -> None:
        """The connection is lost."""
        self.connected = False
        self._on_state(False)

    async def connect(self) -> None:
        """Connect."""
        self.up()

    async def drain(self) -> None:
        """Take no more messages."""
        await self._broker.settled()
        self._handlers.clear()

    async def close(self) -> None:
        """End it."""
        self.connected = False

    async def flush(self) -> None:
        """Everything is delivered."""
        if not self.connected:
            raise NotConnected("there is no connection to NATS")
        await self._broker.settled()

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> bool:
        """Send a message."""
        if self.connected:
            self._broker.carry(self, subject, payload, reply)
        return self.connected

    def subscribe(self, subject: bytes, handler: Handler, queue: bytes = b"") -> int:
        """Have ``handler`` called for what is sent to the subject."""
        self._last += 1
        self._handlers[self._last] = (subject, handler)
        return self._last

    def unsubscribe(self, number: int) -> None:
        """Take no more."""
        self._handlers.pop(number, None)

    def take(self, subject: bytes, payload: bytes, reply: bytes, status: bytes = b"") -> bool:
        """A message has come; False when nobody here has subscribed to it."""
        found = [(n, handler) for n, (wanted, handler) in self._handlers.items() if _matches(wanted, subject)]
        for number, handler in found:
            handler(wire.Message(subject, number, reply, payload, status))
        return bool(found)


def _matches(wanted: bytes, subject: bytes) -> bool:
    tokens, parts = wanted.split(b"."), subject.split(b".")
    if tokens[-1] == b">":
        tokens, parts = tokens[:-1], parts[: len(tokens) - 1]
    return len(tokens) == len(parts) and all(token in (b"*", part) for token, part in zip(tokens, parts, strict=True))


def fake(broker: Broker) -> Any:
    """Stands in for the class :class:`~monktalk.xmpp.cluster.nats.connection.Nats`: its clients are the broker's."""

    def make(_servers: Any, *, on_state: Callable[[bool], None], **_options: Any) -> FakeNats:
        return FakeNats(broker, on_state=on_state)

    return make

"""The client of NATS against the real server: messages, outages, who is let in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl

import pytest

from monktalk.xmpp.cluster.nats import connection as connection_module
from monktalk.xmpp.cluster.nats import wire
from monktalk.xmpp.cluster.nats.connection import Nats, NotConnected
from tests.support.certificates import make_certificate
from tests.support.nats import NatsServer

pytestmark = pytest.mark.integration
SECONDS = 15


@pytest.fixture
def server(tmp_path):
    found = NatsServer(tmp_path).start()
    yield found
    found.stop()


class Client(Nats):
    """A client that notes when its connection comes and goes."""

    def __init__(self, *servers: NatsServer, **options) -> None:
        self.states: list[bool] = []
        super().__init__([server.address for server in servers], name="test", on_state=self.states.append, **options)


@contextlib.asynccontextmanager
async def client(*servers: NatsServer, **options):
    nats = Client(*servers, **options)
    await nats.connect()
    try:
        yield nats
    finally:
        await nats.close()


class Box:
    """Messages as they come."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[wire.Message] = asyncio.Queue()

    def __call__(self, message: wire.Message) -> None:
        self.queue.put_nowait(message)

    async def next(self) -> wire.Message:
        async with asyncio.timeout(SECONDS):
            return await self.queue.get()


async def until(condition, what: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


async def test_messages_go_to_subscribers_in_order(server):
    async with client(server) as alice, client(server) as bob:
        box = Box()
        bob.subscribe(b"u.bob", box)
        await bob.flush()
        for number in range(1000):
            alice.publish(b"u.bob", b"%d" % number, b"back")
        received = [await box.next() for _ in range(1000)]
        assert [int(message.payload) for message in received] == list(range(1000))
        assert received[0].reply == b"back"


async def test_a_request_that_nobody_takes_is_told_at_once(server):
    async with client(server) as alice:
        box = Box()
        alice.subscribe(b"inbox.alice", box)
        alice.publish(b"u.nobody", b"hello", b"inbox.alice")
        assert (await box.next()).status == wire.NO_RESPONDERS


async def test_who_unsubscribes_gets_nothing_more(server):
    async with client(server) as alice, client(server) as bob:
        box, end = Box(), Box()
        number = bob.subscribe(b"u.bob", box)
        bob.subscribe(b"end", end)
        await bob.flush()
        bob.unsubscribe(number)
        await bob.flush()
        alice.publish(b"u.bob", b"late")
        alice.publish(b"end", b"")
        await end.next()
        assert box.queue.empty()


async def test_who_drains_has_taken_everything_that_was_sent_to_him(server):
    """Nothing falls between: what is sent is taken, or its sender is told that nobody is there."""
    async with client(server) as alice, client(server) as bob:
        taken, refused = Box(), Box()
        bob.subscribe(b"u.bob", taken)
        alice.subscribe(b"inbox.alice", refused)
        await asyncio.gather(alice.flush(), bob.flush())
        draining = asyncio.create_task(bob.drain())
        count = 0
        while not draining.done():
            alice.publish(b"u.bob", b"", b"inbox.alice")
            count += 1
            await asyncio.sleep(0)
        await bob.close()
        alice.publish(b"u.bob", b"", b"inbox.alice")
        await until(lambda: taken.queue.qsize() + refused.queue.qsize() == count + 1, "every one has an end")
        assert not refused.queue.empty()


async def test_a_handler_that_fails_keeps_nobody_else_from_hearing(server, caplog):
    async with client(server) as alice, client(server) as bob:
        box = Box()

        def broken(_message) -> None:
            raise RuntimeError("a bug")

        bob.subscribe(b"u.bob", broken)
        bob.subscribe(b"u.bob", box)
        await bob.flush()
        alice.publish(b"u.bob", b"hello")
        assert (await box.next()).payload == b"hello"
    assert any(record.getMessage() == "nats_handler_failed" for record in caplog.records)


async def test_subscriptions_come_back_with_the_server(server):
    async with client(server) as alice, client(server) as bob:
        box = Box()
        bob.subscribe(b"u.bob", box)
        await bob.flush()
        server.stop()
        await until(lambda: not alice.connected and not bob.connected, "both have noticed")
        assert not alice.publish(b"u.bob", b"lost")
        with pytest.raises(NotConnected):
            await alice.flush()
        server.start()
        await until(lambda: alice.connected and bob.connected, "both are back")
        alice.publish(b"u.bob", b"found")
        assert (await box.next()).payload == b"found"
        assert alice.states == [True, False, True]


async def test_another_server_of_the_cluster_will_do(tmp_path):
    one = NatsServer(tmp_path, "one").start()
    two = NatsServer(tmp_path, "two", peers=(one,)).start()
    try:
        async with client(one, two) as alice, client(two) as bob:
            box = Box()
            bob.subscribe(b"u.bob", box)
            await bob.flush()
            one.stop()
            await until(lambda: alice.states == [True, False, True], "alice is with the other one")
            alice.publish(b"u.bob", b"over there")
            assert (await box.next()).payload == b"over there"
    finally:
        one.stop()
        two.stop()


async def test_a_server_that_says_nothing_more_is_given_up(server, monkeypatch):
    monkeypatch.setattr(connection_module, "PING_SECONDS", 0.1)
    async with client(server) as alice:
        os.kill(server.program.pid, signal.SIGSTOP)
        try:
            await until(lambda: not alice.connected, "it is given up")
        finally:
            os.kill(server.program.pid, signal.SIGCONT)
        await until(lambda: alice.connected, "it is back")


async def test_nobody_answers():
    with pytest.raises(NotConnected, match=r"no NATS server lets us in: 127\.0\.0\.1:1: .*(refused|failed)"):
        await Nats([("127.0.0.1", 1)], name="test").connect()


async def test_credentials_are_shown(tmp_path):
    server = NatsServer(tmp_path, options='authorization { user: "bus", password: "sesame" }').start()
    try:
        async with client(server, user="bus", password="sesame") as alice:
            await alice.flush()
        with pytest.raises(NotConnected, match="Authorization Violation"):
            await Nats([server.address], name="test", user="bus", password="wrong").connect()
    finally:
        server.stop()


async def test_tls(tmp_path):
    certificate, key = make_certificate(tmp_path, "nats", ["localhost"])
    server = NatsServer(tmp_path, options=f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}').start()
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    try:
        async with client(server, tls=context) as alice, client(server, tls=context) as bob:
            box = Box()
            bob.subscribe(b"u.bob", box)
            await bob.flush()
            alice.publish(b"u.bob", b"secret")
            assert (await box.next()).payload == b"secret"
        with pytest.raises(NotConnected, match="wants TLS"):
            await Nats([server.address], name="test").connect()
    finally:
        server.stop()

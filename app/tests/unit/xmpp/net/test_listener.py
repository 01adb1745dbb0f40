"""Who is let in, how fast, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from monktalk.common.config import Schema, parse
from monktalk.xmpp.core.settings import LISTEN_C2S
from monktalk.xmpp.net import listener
from monktalk.xmpp.net.listener import ClientListener, Connections
from tests.support.accounts import Account
from tests.support.client import stream_header
from tests.support.gate import NOW
from tests.support.inproc import HOST

ROMEO = Account("romeo", HOST, "sesame")
LOOPBACK = "127.0.0.1"
OTHER_ADDRESS = "127.0.0.2"


async def hung_up(client) -> bool:
    """Whether the server closes the connection without a word."""
    return await client.wire.raw() == b""


async def answered(client) -> bool:
    await client.send(f"<iq type='get' id='1' to='{HOST}'>{NOW}</iq>")
    return (await client.next()).get("type") == "result"


# -- admission ---------------------------------------------------------------------------------------------------------


async def test_one_address_has_so_many_connections(station):
    async with station("[limits]\nconnections_per_address = 2\n") as server:
        first, second = await server.stream(), await server.stream()
        assert await hung_up(await server.connect())
        assert await (await server.connect(source=OTHER_ADDRESS)).open_stream()
        assert server.server.metrics.connections_refused.value == 1
        assert server.server.metrics.connections_accepted.value == 3
        first.drop()
        await server.until(lambda: server.connections.count == 2, "the connection is gone")
        await server.stream()
        assert second.features is not None


async def test_all_together_have_so_many(station):
    async with station("[limits]\nconnections = 2\n") as server:
        await server.stream()
        other = await server.connect(source=OTHER_ADDRESS)
        await other.open_stream()
        assert await hung_up(await server.connect(source="127.0.0.3"))
        other.drop()
        await server.until(lambda: server.connections.count == 1, "the connection is gone")
        await server.stream()


async def test_addresses_are_forgotten_with_their_connections(station):
    async with station() as server:
        clients = [await server.stream() for _ in range(3)]
        for client in clients:
            client.drop()
        await server.until(lambda: not server.connections.count, "all connections are gone")
        assert server.connections._by_address == {}
        assert not server.connections._logging_in


async def test_who_comes_too_fast_is_read_later_in_the_order_of_arrival(station):
    async with station("[limits]\naccepts_per_second = 2\n") as server:
        clients = [await server.connect() for _ in range(5)]
        for client in clients:
            await client.send(stream_header(HOST))
        await clients[1].receives_header()
        await server.until(lambda: server.connections.count == 5, "all have been accepted")
        assert not await clients[2].wire.heard(0.02)
        server.tick()
        await clients[2].receives_header()
        await clients[3].receives_header()
        assert not await clients[4].wire.heard(0.02)
        server.tick()
        await clients[4].receives_header()


async def test_who_is_not_read_yet_fills_no_memory(station):
    text = "[limits]\naccepts_per_second = 1\nrate_unauthenticated = 16384\nburst_unauthenticated = 65536\n"
    async with station(text) as server:
        await server.stream()
        sock = await server.socket()
        connection = await server.of(sock.getsockname()[1])
        sent = 0
        for _ in range(50):
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += sock.send(b" " * 65536)
            await asyncio.sleep(0.001)
        held = sum(map(len, connection._held or []))
        assert 65536 < held < 500_000 < sent
        server.tick(2)
        assert connection._throttled
        server.tick(held // 16384)
        assert connection._held is None
        assert not connection._throttled


async def test_a_client_may_leave_before_it_is_read(station):
    async with station("[limits]\naccepts_per_second = 1\n") as server:
        await server.stream()
        client = await server.connect()
        connection = await server.end_of(client)
        connection.abort()
        await server.until(lambda: server.connections.count == 1, "the connection is gone")
        server.tick()
        assert not server.connections._unread


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_stream_has_so_much_time_to_log_in(station):
    async with station("[limits]\nlogin_time = '10 s'\n") as server:
        silent, opened = await server.connect(), await server.stream()
        bound = await server.login()
        server.tick(5)
        late = await server.stream()
        server.tick(5)
        await silent.receives_header()
        await silent.stream_error("connection-timeout")
        await opened.stream_error("connection-timeout")
        assert await answered(bound)
        assert not await late.wire.heard(0.02)
        server.tick(5)
        await late.stream_error("connection-timeout")
        assert await answered(bound)


async def test_whatever_it_sends_meanwhile(station):
    async with station("[limits]\nlogin_time = '3 s'\n") as server:
        client = await server.stream()
        server.tick()
        await client.authenticate(ROMEO)
        server.tick()
        await client.send(" ")
        server.tick()
        await client.stream_error("connection-timeout")


async def test_a_session_from_which_nothing_comes_is_closed_and_may_be_resumed(station):
    async with station("[limits]\nidle_time = '60 s'\n") as server:
        client = await server.login()
        await client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        await client.next()
        server.tick(50)
        assert await answered(client)
        server.tick(60)
        assert await answered(client)
        server.tick(60 + 16)
        await client.stream_error("connection-timeout")
        assert len(server.server.away) == 1


async def test_sessions_may_be_idle_for_ever(station):
    async with station("[limits]\nidle_time = 0\n") as server:
        client = await server.login()
        server.tick(2000)
        assert await answered(client)


async def test_new_limits_hold_from_the_next_second_on(station):
    async with station("[limits]\nlogin_time = '60 s'\n") as server:
        client = await server.stream()
        async with station("[limits]\nlogin_time = '5 s'\nconnections_per_address = 1\n") as other:
            server.connections.limits = other.connections.limits
            assert await hung_up(await server.connect())
            server.tick(5)
            await client.stream_error("connection-timeout")


async def test_a_bug_does_not_stop_the_clock(station, monkeypatch, caplog):
    async with station("[limits]\nlogin_time = '3 s'\n") as server:
        client = await server.stream()
        connections = server.connections
        real = connections._read_new

        def broken() -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(connections, "_read_new", broken)
        server.tick()
        assert [record.getMessage() for record in caplog.records if record.exc_info] == ["housekeeping_failed"]
        monkeypatch.setattr(connections, "_read_new", real)
        server.tick(2)
        await client.stream_error("connection-timeout")


async def test_the_clock_turns_by_itself(station):
    async with station() as server:
        running = Connections(server.server)
        await asyncio.sleep(1.1)
        assert running.tick == 2
        await running.close()
        assert running._timer.cancelled()


# -- listening ---------------------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_told_with_its_address(station):
    async with station() as server:
        port = server.listener.port
        text = f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {port}\n"
        [options] = parse(text, "test", Schema([LISTEN_C2S])).sections("listen", "c2s")
        other = ClientListener(server.connections, options, server.tls)
        with pytest.raises(OSError, match=f"can't listen on {LOOPBACK} port {port}: .*in use"):
            await other.start()
        await other.close()


async def test_a_socket_of_the_service_manager_is_used(station):
    async with station() as server:
        sock = socket.socket()
        sock.bind((LOOPBACK, 0))
        sock.listen()
        other = ClientListener(server.connections, server.listener.options, server.tls)
        await other.start(sock)
        assert other.port == sock.getsockname()[1] != server.listener.port
        reader, writer = await asyncio.open_connection(LOOPBACK, other.port)
        writer.write(stream_header(HOST).encode())
        assert b"<stream:features>" in await reader.readuntil(b"</stream:features>")
        writer.close()
        await other.close()


async def test_a_closed_listener_accepts_nobody_and_keeps_its_connections(station):
    async with station() as server:
        client = await server.login()
        port = server.listener.port
        await server.listener.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, port)
        assert await answered(client)


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_all_streams_hear_of_the_end(station):
    async with station() as server:
        waiting, bound, secure = await server.stream(), await server.login(), await server.stream(tls=True)
        await server.connections.close()
        for client in (waiting, bound, secure):
            await client.stream_error("system-shutdown")
        assert server.connections.count == 0


async def test_the_end_does_not_wait_for_a_client_that_does_not_read(station, monkeypatch):
    monkeypatch.setattr(listener, "_FAREWELL_SECONDS", 0.05)
    async with station("[limits]\nwrite_buffer = '64 KiB'\n") as server:
        sock = await server.socket(receive_buffer=4096)
        connection = await server.of(sock.getsockname()[1])
        while not connection.stalled:
            connection.write(b" " * 100_000)
            connection.flush()
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await server.connections.close()
        await server.until(lambda: not server.connections.count, "the connection is gone")
        assert loop.time() - began < 5


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_who_has_just_come_gets_an_answer_before_the_server_stops(station):
    async with station() as server:
        client = await server.connect()
        await server.until(lambda: server.connections.count == 1, "the connection is accepted")
        waiting = asyncio.ensure_future(server.connections.arrivals_served())
        await client.open_stream()
        assert not waiting.done()
        client.drop()
        await waiting
        assert server.connections.count == 0


async def test_who_says_nothing_is_not_waited_for_long(station, monkeypatch):
    monkeypatch.setattr(listener, "_ARRIVAL_SECONDS", 0.05)
    async with station() as server:
        await server.connect()
        await server.until(lambda: server.connections.count == 1, "the connection is accepted")
        await server.connections.arrivals_served()
        assert server.connections.count == 1


async def test_nobody_is_waited_for_who_came_earlier(station):
    async with station() as server:
        await server.stream()
        server.tick()
        server.tick()
        began = asyncio.get_running_loop().time()
        await server.connections.arrivals_served()
        assert asyncio.get_running_loop().time() - began < listener._ARRIVAL_SECONDS

"""One connection: its bytes, in clear and in TLS, and what happens when one side is faster than the other."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

import pytest
import uvloop

from tests.support.accounts import Account
from tests.support.client import client_context, stream_header
from tests.support.gate import NOW, WAIT
from tests.support.inproc import HOST

TLS = "urn:ietf:params:xml:ns:xmpp-tls"
STARTTLS = f"<starttls xmlns='{TLS}'/>"
SM = "urn:xmpp:sm:3"
ROMEO = Account("romeo", HOST, "sesame")
SMALL_BUFFER = "[limits]\nwrite_buffer = '64 KiB'\n"
LOTS = b"<message>" + b"x" * 100_000 + b"</message>"


def ask(number: object, payload: str = NOW) -> str:
    return f"<iq type='get' id='{number}' to='{HOST}'>{payload}</iq>"


async def ids(client, count: int) -> list[str | None]:
    return [(await client.next()).get("id") for _ in range(count)]


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


async def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    found = b""
    async with asyncio.timeout(10):
        while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
            found += data
    return found


async def send(sock: socket.socket, text: str | bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, text if isinstance(text, bytes) else text.encode())


class Spy:
    """Stands before a transport and notes what is written."""

    def __init__(self, transport) -> None:
        self.transport = transport
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.transport.write(data)

    def __getattr__(self, name: str):
        return getattr(self.transport, name)


async def test_these_tests_run_on_the_event_loop_of_the_server():
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


# -- transport ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_logs_in(station, tls):
    async with station() as server:
        client = await server.login(tls=tls)
        connection = await server.end_of(client)
        assert (connection.secure, connection.peer, connection.kind) == (tls, "127.0.0.1", "tcp")
        assert connection.stream.session.secure is tls
        await client.send(ask(1))
        assert await ids(client, 1) == ["1"]


@pytest.mark.parametrize("tls", [False, True])
async def test_bytes_may_come_one_by_one(station, tls):
    async with station() as server:
        client = await server.login(tls=tls)
        for byte in ask(1) + ask(2):
            await client.send(byte)
        assert await ids(client, 2) == ["1", "2"]


@pytest.mark.parametrize("tls", [False, True])
async def test_what_is_written_in_one_iteration_leaves_together(station, tls):
    async with station() as server:
        client = await server.login(tls=tls)
        connection = await server.end_of(client)
        spy = connection._transport = Spy(connection._transport)
        await client.send(ask(1) + ask(2) + ask(3))
        assert await ids(client, 3) == ["1", "2", "3"]
        assert len(spy.written) == 1


async def test_a_long_stanza_arrives_whole_in_tls(station):
    async with station() as server:
        client = await server.login(tls=True)
        body = "x" * 200_000
        await client.send(f"<message to='{client.full}' id='1'><body>{body}</body></message>")
        received = await client.next()
        assert received.findtext("{jabber:client}body") == body


async def test_starttls_and_direct_tls_share_the_port(station):
    async with station(listen="starttls_required = true") as server:
        client = await server.stream()
        await client.starttls()
        await client.authenticate(ROMEO)
        connection = await server.end_of(client)
        assert (connection.secure, sorted(connection.bindings())) == (True, ["tls-server-end-point"])
        direct = await server.stream(tls=True)
        assert "PLAIN" in direct.mechanisms
        assert direct.wire.tls is not None
        assert direct.wire.tls.selected_alpn_protocol() == "xmpp-client"


async def test_direct_tls_can_be_switched_off(station):
    async with station(listen="starttls_required = false\ndirect_tls = false") as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server.connect(tls=True)


async def test_a_listener_without_a_certificate_speaks_no_tls(station):
    async with station() as server:
        server.tls.use({})
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server.connect(tls=True)


async def test_a_handshake_that_fails_closes_the_connection(station, caplog):
    caplog.set_level("INFO")
    async with station() as server:
        sock = await server.socket()
        await send(sock, b"\x16\x03\x01\x00\x05hello")
        answer = await read_all(sock)
        assert b"<stream" not in answer
        assert "tls_failed" in [record.getMessage() for record in caplog.records]


async def test_plaintext_inside_of_tls_closes_the_connection(station):
    async with station() as server:
        client = await server.login(tls=True)
        connection = await server.end_of(client)
        connection.data_received(b"<message/>")
        await client.disconnected()


# -- STARTTLS with data in flight --------------------------------------------------------------------------------------


async def test_plaintext_behind_starttls_is_not_taken_for_the_inside_of_tls(station):
    """CVE-2011-0411 and its kin: what an attacker puts in front of the handshake must not be handled after it."""
    async with station() as server:
        client = await server.stream()
        injected = stream_header(HOST) + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHg=</auth>"
        await client.send(STARTTLS + injected)
        await client.receives(f"<proceed xmlns='{TLS}'/>")
        await client.wire.start_tls(client_context(), HOST)
        await client.open_stream()
        await client.authenticate(ROMEO)
        assert server.site.accounts().asked == 1


async def test_nor_is_an_element_that_was_begun_in_clear(station):
    async with station() as server:
        client = await server.stream()
        await client.send(f"{STARTTLS}<presence id='begun")
        await client.receives(f"<proceed xmlns='{TLS}'/>")
        await client.wire.start_tls(client_context(), HOST)
        await client.open_stream()
        await client.authenticate(ROMEO)
        await client.bind()


async def test_plaintext_that_comes_later_is_no_tls_and_ends_the_connection(station):
    async with station() as server:
        client = await server.stream()
        await client.send(STARTTLS)
        await client.receives(f"<proceed xmlns='{TLS}'/>")
        await client.send("<presence/>")
        assert b"<" not in await client.wire.raw()


async def test_plaintext_that_was_held_back_is_dropped_with_starttls(station):
    async with station() as server:
        client = await server.stream()
        connection = await server.end_of(client)
        connection.pause()
        connection.data_received(STARTTLS.encode())
        connection.resume()
        await client.receives(f"<proceed xmlns='{TLS}'/>")
        assert connection._held is None
        await client.wire.start_tls(client_context(), HOST)
        await client.open_stream()


# -- SASL with data in flight ------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_wait_for_success_is_not_understood_halfway(station):
    async with station() as server:
        client = await server.stream()
        auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlc2FtZQ==</auth>"
        await client.send(auth + "<message id='early'/><presence id='cut")
        await client.receives("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
        await client.open_stream()
        await client.bind()
        await client.send(ask(1))
        assert await ids(client, 1) == ["1"]


async def test_the_limits_of_an_authenticated_client_hold_from_success_on(station):
    async with station("[limits]\nstanza_size_unauthenticated = 2000\nstanza_size = 20000\n") as server:
        client = await server.stream()
        await client.send("<presence id='" + "x" * 3000 + "'/>")
        await client.stream_error("policy-violation")
        client = await server.login()
        await client.send(f"<iq type='get' id='1' to='{HOST}'><now xmlns='urn:example:gate' x='{'x' * 15000}'/></iq>")
        assert await ids(client, 1) == ["1"]
        await client.send(f"<iq type='get' id='2' to='{HOST}'><now xmlns='urn:example:gate' x='{'x' * 25000}'/></iq>")
        await client.stream_error("policy-violation")


# -- pause and resume --------------------------------------------------------------------------------------------------


async def test_a_paused_connection_reads_nothing(station):
    async with station() as server:
        client = await server.login()
        connection = await server.end_of(client)
        connection.pause()
        await client.send(ask(1))
        await client.send(ask(2))
        assert not await client.wire.heard(0.05)
        connection.resume()
        assert await ids(client, 2) == ["1", "2"]


async def test_what_had_been_read_already_comes_first_and_in_order(station):
    async with station() as server:
        client = await server.login()
        connection = await server.end_of(client)
        connection.pause()
        await client.send(ask(3))
        for number in (1, 2):
            connection.data_received(ask(number).encode())
        connection.resume()
        assert await ids(client, 3) == ["1", "2", "3"]


async def test_the_order_stays_when_the_session_has_to_wait_again(station):
    async with station("[limits]\npending_stanzas = 1\n") as server:
        client = await server.login()
        connection = await server.end_of(client)
        for number in range(1, 7):
            connection.data_received(ask(number, WAIT if number % 2 else NOW).encode())
        assert connection._paused
        await client.send(ask(7))
        server.gate.let_through()
        assert await ids(client, 7) == [str(number) for number in range(1, 8)]
        assert connection._held is None


async def test_pausing_twice_and_resuming_once_reads_on(station):
    async with station() as server:
        client = await server.login()
        connection = await server.end_of(client)
        connection.pause()
        connection.pause()
        connection.resume()
        connection.resume()
        await client.send(ask(1))
        assert await ids(client, 1) == ["1"]


async def test_a_connection_may_be_lost_while_data_is_held_back(station):
    async with station() as server:
        client = await server.login()
        connection = await server.end_of(client)
        connection.pause()
        connection.data_received(ask(1).encode())
        connection.abort()
        await server.until(lambda: not server.connections.count, "the connection is gone")
        connection.resume()
        assert server.gate.seen == [f"closed:{client.resource}:connection lost"]


# -- rate --------------------------------------------------------------------------------------------------------------


RATES = """[limits]
rate_unauthenticated = 1024
burst_unauthenticated = 8192
rate = 1024
burst = 65536
"""


async def throttled(server, connection) -> None:
    await server.until(lambda: connection._throttled, "the connection is throttled")


async def test_a_stranger_that_sends_too_much_is_not_read_until_its_rate_allows_it(station):
    async with station(RATES) as server:
        client = await server.stream()
        connection = await server.end_of(client)
        await client.send(" " * 11_000)
        await throttled(server, connection)
        await client.send("<message/>")
        for _ in range(2):
            server.tick()
            assert connection._throttled
        assert not await client.wire.heard(0.02)
        server.tick()
        await client.stream_error("not-authorized")


async def test_an_authenticated_client_has_another_rate(station):
    async with station(RATES) as server:
        client = await server.login()
        connection = await server.end_of(client)
        await client.send(" " * 20_000 + ask(1))
        assert await ids(client, 1) == ["1"]
        assert not connection._throttled
        await client.send(" " * 50_000)
        await throttled(server, connection)
        await client.send(ask(2))
        server.tick(10)
        assert await ids(client, 1) == ["2"]


async def test_waiting_long_gives_no_more_than_the_burst(station):
    async with station(RATES) as server:
        client = await server.stream()
        connection = await server.end_of(client)
        server.tick(50)
        await client.send(" " * 20_000)
        await throttled(server, connection)


async def test_there_may_be_no_limit_until_a_reload_sets_one(station):
    async with station(RATES.replace("rate = 1024", "rate = 0")) as server:
        client = await server.login()
        connection = await server.end_of(client)
        await client.send(" " * 500_000 + ask(1))
        assert await ids(client, 1) == ["1"]
        async with station(RATES) as other:
            server.connections.limits = other.connections.limits
            await client.send(" " * 200_000)
            await throttled(server, connection)


async def test_a_throttled_connection_that_is_paused_too_waits_for_both(station):
    async with station(RATES) as server:
        client = await server.login()
        connection = await server.end_of(client)
        await client.send(" " * 70_000)
        await throttled(server, connection)
        connection.pause()
        await client.send(ask(1))
        server.tick(20)
        assert not await client.wire.heard(0.02)
        connection.resume()
        assert await ids(client, 1) == ["1"]
        connection.pause()
        connection.throttled()
        connection.resume()
        await client.send(ask(2))
        assert not await client.wire.heard(0.02)
        assert connection.refill()
        assert await ids(client, 1) == ["2"]


# -- clients that do not read ------------------------------------------------------------------------------------------


async def deaf(server):
    """A client that does not read, and the server's end with its output held up."""
    sock = await server.socket(receive_buffer=4096)
    connection = await server.of(port_of(sock))
    connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not connection.stalled:
        connection.write(b" " * 20_000)
        connection.flush()
        await asyncio.sleep(0)
    return sock, connection


async def test_whoever_sends_much_waits_until_the_client_has_read(station):
    async with station(SMALL_BUFFER) as server:
        sock, connection = await deaf(server)
        waiting = [asyncio.ensure_future(connection.drained()) for _ in range(2)]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in waiting)
        while not all(task.done() for task in waiting):
            await asyncio.get_running_loop().sock_recv(sock, 65536)
        assert connection.stalled == 0
        await connection.drained()


async def test_nobody_waits_for_a_client_that_has_gone(station):
    async with station(SMALL_BUFFER) as server:
        _, connection = await deaf(server)
        waiting = asyncio.ensure_future(connection.drained())
        await asyncio.sleep(0)
        connection.abort()
        await asyncio.wait_for(waiting, 5)


async def test_nobody_waits_for_a_client_that_keeps_up(station):
    async with station(SMALL_BUFFER) as server:
        client = await server.stream()
        await (await server.end_of(client)).drained()


async def test_a_client_for_whom_too_much_is_waiting_is_disconnected(station, caplog):
    caplog.set_level("INFO")
    async with station(SMALL_BUFFER) as server:
        _, connection = await deaf(server)
        connection.write(LOTS)
        connection.write(LOTS)
        await server.until(lambda: not server.connections.count, "the connection is gone")
        assert "client_too_slow" in [record.getMessage() for record in caplog.records]


async def test_a_client_that_reads_nothing_for_too_long_is_disconnected(station):
    async with station(SMALL_BUFFER + "write_time = '20 s'\n") as server:
        await deaf(server)
        server.tick(19)
        await asyncio.sleep(0.01)
        assert server.connections.count == 1
        server.tick(20)
        await server.until(lambda: not server.connections.count, "the connection is gone")


async def test_a_closed_connection_does_not_wait_for_ever_for_its_client_to_read(station):
    async with station(SMALL_BUFFER) as server:
        _, connection = await deaf(server)
        connection.stream.close("test")
        server.tick(4)
        await asyncio.sleep(0.01)
        assert server.connections.count == 1
        server.tick()
        await server.until(lambda: not server.connections.count, "the connection is gone")


async def test_nor_does_one_that_the_client_has_closed(station):
    async with station(SMALL_BUFFER) as server:
        sock, connection = await deaf(server)
        sock.shutdown(socket.SHUT_WR)
        await server.until(connection._transport.is_closing, "the end has been noticed")
        server.tick(5)
        await server.until(lambda: not server.connections.count, "the connection is gone")


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_a_client_that_sends_and_closes_its_side_is_answered(station):
    async with station() as server:
        sock = await server.socket()
        await send(sock, stream_header(HOST))
        sock.shutdown(socket.SHUT_WR)
        assert b"</stream:features>" in await read_all(sock)


async def test_what_is_queued_leaves_before_the_connection_is_closed(station):
    async with station() as server:
        client = await server.login(tls=True)
        connection = await server.end_of(client)
        connection.write(b"<message id='1'/>")
        connection.close()
        connection.write(b"<message id='2'/>")
        connection.close()
        assert await ids(client, 1) == ["1"]
        await client.disconnected()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_lost_connection_leaves_a_session_that_can_be_resumed(station, tls):
    async with station() as server:
        client = await server.login(tls=tls)
        await client.send(f"<enable xmlns='{SM}' resume='true'/>")
        await client.next()
        client.drop()
        await server.until(lambda: len(server.server.away) == 1, "the session is away")
        await server.until(lambda: not server.connections.count, "the connection is gone")


async def test_the_end_of_tls_is_the_end_of_the_connection(station):
    async with station() as server:
        client = await server.login(tls=True)
        connection = await server.end_of(client)
        assert connection._tls is not None
        await client.wire.close()
        await server.until(lambda: not server.connections.count, "the connection is gone")
        assert server.site.host.sessions == {}


async def test_a_reset_connection_is_forgotten(station):
    async with station() as server:
        sock = await server.socket()
        connection = await server.of(port_of(sock))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await server.until(lambda: not server.connections.count, "the connection is gone")
        connection.write(b"into the void")
        connection.flush()
        assert connection.port in {0, port_of_connection(connection)}


def port_of_connection(connection) -> int:
    name = connection._transport.get_extra_info("peername")
    return int(name[1]) if name else 0


async def test_one_connection_that_can_not_write_does_not_keep_others_from_it(station, caplog):
    class Broken:
        def write(self, _data: bytes) -> None:
            raise RuntimeError("a bug")

    async with station() as server:
        first, second = await server.login(), await server.login()
        connection, other = await server.end_of(first), await server.end_of(second)
        broken = Spy(connection._transport)
        broken.write = Broken().write  # type: ignore[method-assign]  # a transport that fails
        connection._transport = broken
        connection.write(b"<message id='1'/>")
        other.write(b"<message id='2'/>")
        assert await ids(second, 1) == ["2"]
        assert "write_failed" in [record.getMessage() for record in caplog.records]
        await server.until(lambda: server.connections.count == 1, "the broken one is gone")


async def test_idle_time_is_counted_since_the_last_input(station):
    async with station() as server:
        client = await server.login()
        connection = await server.end_of(client)
        server.tick(7)
        assert connection.idle == 7
        await client.send(ask(1))
        await ids(client, 1)
        assert connection.idle == 0

"""Connections through a proxy: whose they are, and whom a header is believed."""

from __future__ import annotations

import pytest

from tests.support.client import client_context, stream_header
from tests.support.inproc import HOST
from tests.support.proxy import LOCAL, v1, v2

BEHIND_PROXY = "proxy_protocol = ['127.0.0.0/29']\nstarttls_required = false"
ROMEO, JULIET = "192.0.2.1", "192.0.2.2"
STRANGER = "127.0.0.99"


async def hung_up(client) -> bool:
    """Whether the server closes the connection without a word."""
    return await client.wire.raw() == b""


async def through_proxy(server, address: str, port: int = 56324):
    """An open stream of a client at that address."""
    client = await server.connect()
    await client.wire.write(v1(address, port))
    await client.open_stream()
    return client


def logged(caplog, event: str) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if record.getMessage() == event]


@pytest.mark.parametrize("header", [v1(ROMEO, 56324), v2(ROMEO, 56324)])
async def test_the_client_is_the_one_whom_the_proxy_names(station, header):
    async with station(listen=BEHIND_PROXY) as server:
        client = await server.connect()
        await client.wire.write(header)
        await client.open_stream()
        connection = await server.of(56324)
        assert (connection.peer, connection.port, connection.stream.peer) == (ROMEO, 56324, ROMEO)


async def test_header_and_stream_may_come_together_or_in_pieces(station):
    async with station(listen=BEHIND_PROXY) as server:
        together, pieces = await server.connect(), await server.connect()
        whole = v1(ROMEO, 56324) + stream_header(HOST).encode()
        await together.wire.write(whole)
        await together.receives_header()
        for part in (whole[:3], whole[3:30], whole[30:]):
            await pieces.wire.write(part)
            assert not await pieces.wire.heard(0.02) or part == whole[30:]
        await pieces.receives_header()


async def test_tls_begins_after_the_header(station):
    async with station(listen=BEHIND_PROXY) as server:
        client = await server.connect()
        await client.wire.write(v2(ROMEO, 56324))
        await client.wire.start_tls(client_context(), HOST)
        await client.open_stream()
        assert (await server.of(56324)).secure


async def test_connections_count_for_the_client(station):
    async with station("[limits]\nconnections_per_address = 1\n", BEHIND_PROXY) as server:
        first, second = await through_proxy(server, ROMEO, 1), await through_proxy(server, JULIET, 2)
        third = await server.connect()
        await third.wire.write(v1(ROMEO, 3) + stream_header(HOST).encode())
        assert await hung_up(third)
        assert server.server.metrics.connections_refused.value == 1
        await server.until(lambda: server.connections.count == 2, "the third connection is gone")
        first.drop()
        await server.until(lambda: server.connections.count == 1, "the first connection is gone")
        await through_proxy(server, ROMEO, 4)
        second.drop()
        await server.until(lambda: server.connections._by_address == {ROMEO: 1}, "only one address is left")


async def test_a_proxy_that_has_not_said_anything_yet_counts_for_nobody(station):
    async with station("[limits]\nconnections_per_address = 1\n", BEHIND_PROXY) as server:
        waiting = [await server.connect() for _ in range(3)]
        await server.until(lambda: server.connections.count == 3, "all have been accepted")
        assert server.connections._by_address == {}
        for client in waiting:
            client.drop()
        await server.until(lambda: not server.connections.count, "all connections are gone")


async def test_the_health_check_of_a_proxy_is_served_and_not_counted(station):
    async with station("[limits]\nconnections_per_address = 1\n", BEHIND_PROXY) as server:
        for _ in range(2):
            check = await server.connect()
            await check.wire.write(LOCAL)
            assert await check.open_stream()
        assert server.connections._by_address == {}


async def test_the_header_of_anybody_else_is_not_believed(station):
    async with station(listen=BEHIND_PROXY) as server:
        client = await server.connect(source=STRANGER)
        await client.wire.write(v1(ROMEO, 56324) + stream_header(HOST).encode())
        await client.receives_header()
        await client.stream_error()
        assert server.connections._by_address.keys() <= {STRANGER}


async def test_anybody_else_is_served_as_he_comes(station):
    async with station(listen=BEHIND_PROXY) as server:
        client = await server.connect(source=STRANGER)
        await client.open_stream()
        assert (await server.end_of(client)).peer == STRANGER


async def test_anybody_else_may_be_refused(station, caplog):
    caplog.set_level("INFO")
    async with station(listen=f"{BEHIND_PROXY}\nproxies_only = true") as server:
        assert await hung_up(await server.connect(source=STRANGER))
        assert logged(caplog, "connection_refused") == [{"ip": STRANGER, "reason": "it does not come from a proxy"}]
        assert server.server.metrics.connections_refused.value == 1
        await through_proxy(server, ROMEO)


@pytest.mark.parametrize("data", [stream_header(HOST).encode(), b"\x16\x03\x01\x00\x00", b"PROXY TCP4 me you 1 2\r\n"])
async def test_a_proxy_without_a_good_header_is_hung_up_on(station, caplog, data):
    async with station(listen=BEHIND_PROXY) as server:
        client = await server.connect()
        await client.wire.write(data)
        assert await hung_up(client)
        [fields] = logged(caplog, "proxy_header_refused")
        assert fields["ip"] == "127.0.0.1"


async def test_half_a_header_is_told_and_a_connection_without_anything_is_not(station, caplog):
    async with station(listen=BEHIND_PROXY) as server:
        half, nothing = await server.connect(), await server.connect()
        await half.wire.write(b"PROXY TCP4 ")
        await server.until(lambda: server.connections.count == 2, "both have been accepted")
        half.wire._writer.write_eof()
        nothing.wire._writer.write_eof()
        assert await hung_up(half)
        assert await hung_up(nothing)
        assert [fields["reason"] for fields in logged(caplog, "proxy_header_refused")] == ["the header is not complete"]


async def test_a_header_has_as_much_time_as_a_login(station, caplog):
    async with station("[limits]\nlogin_time = '3 s'\n", BEHIND_PROXY) as server:
        client = await server.connect()
        await client.wire.write(b"PROXY ")
        await server.until(lambda: server.connections.count == 1, "the connection is accepted")
        server.tick(3)
        assert await hung_up(client)
        assert [fields["reason"] for fields in logged(caplog, "proxy_header_refused")] == ["none has come in time"]


async def test_the_end_of_the_server_is_no_news_for_who_has_not_said_a_word(station, caplog):
    async with station(listen=BEHIND_PROXY) as server:
        client = await server.connect()
        await server.until(lambda: server.connections.count == 1, "the connection is accepted")
        await server.connections.close()
        assert await hung_up(client)
        assert not logged(caplog, "proxy_header_refused")


async def test_a_reload_may_name_other_proxies(station):
    async with station(listen=BEHIND_PROXY) as server:
        async with station(listen="proxy_protocol = ['127.0.0.99']\nstarttls_required = false") as other:
            server.listener.options = other.listener.options
        await server.stream()
        client = await server.connect(source=STRANGER)
        await client.wire.write(v1(ROMEO, 56324))
        await client.open_stream()
        assert (await server.of(56324)).peer == ROMEO

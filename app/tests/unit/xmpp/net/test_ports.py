"""The ports of a server, opened and changed by its configuration."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from monktalk.common.config import Schema, Settings, parse
from monktalk.xmpp.core.settings import LISTEN_C2S
from monktalk.xmpp.net.ports import Ports
from tests.support.client import stream_header
from tests.support.inproc import HOST

LOOPBACK, OTHER_ADDRESS = "127.0.0.1", "127.0.0.2"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what happens when all addresses are asked for is what is tested


def wanted(*places: tuple[str, int], **options: bool) -> tuple[Settings, ...]:
    """The sections of a configuration that listens there."""
    lines = [f"{key} = {str(value).lower()}\n" for key, value in options.items()]
    text = "".join(
        f"[[listen.c2s]]\naddress = '{address}'\nport = {port}\n{''.join(lines)}" for address, port in places
    )
    return parse(text, "test", Schema([LISTEN_C2S])).sections("listen", "c2s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def bound(address: str = LOOPBACK, port: int = 0) -> socket.socket:
    """A listening socket, as a service manager hands it over."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    return sock


async def features(port: int, address: str = LOOPBACK) -> str:
    """What the listener on that port has on offer; raises ConnectionRefusedError when nobody listens."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(stream_header(HOST).encode())
    async with asyncio.timeout(10):
        text = (await reader.readuntil(b"</stream:features>")).decode()
    writer.close()
    await writer.wait_closed()
    return text


@contextlib.asynccontextmanager
async def ports_of(server) -> AsyncIterator[Ports]:
    ports = Ports(server.connections, server.tls)
    try:
        yield ports
    finally:
        await ports.close()


async def test_every_section_is_a_listener(station):
    async with station() as server, ports_of(server) as ports:
        await ports.open(wanted((LOOPBACK, 0), (OTHER_ADDRESS, 0)))
        first, second = ports
        assert "<required/>" in await features(first.port)
        assert "<required/>" in await features(second.port, OTHER_ADDRESS)


async def test_a_port_that_can_not_be_had_is_told(station):
    async with station() as server, ports_of(server) as ports:
        with pytest.raises(OSError, match=f"port {server.listener.port}"):
            await ports.open(wanted((LOOPBACK, server.listener.port)))


# -- sockets of the service manager ------------------------------------------------------------------------------------


async def test_sockets_of_the_service_manager_are_found_by_their_port(station):
    async with station() as server, ports_of(server) as ports:
        sockets = [bound(), bound()]
        places = [(LOOPBACK, sock.getsockname()[1]) for sock in sockets]
        await ports.open(wanted(*reversed(places)), sockets)
        assert [listener.port for listener in ports] == [port for _, port in reversed(places)]
        for _, port in places:
            assert await features(port)


async def test_and_by_their_address_where_several_have_the_port(station):
    async with station() as server, ports_of(server) as ports:
        one = bound(LOOPBACK)
        port = one.getsockname()[1]
        other = bound(OTHER_ADDRESS, port)
        await ports.open(wanted((OTHER_ADDRESS, port), (LOOPBACK, port)), [one, other])
        for address in (LOOPBACK, OTHER_ADDRESS):
            assert await features(port, address)


async def test_an_address_may_be_left_to_the_service_manager(station):
    async with station() as server, ports_of(server) as ports:
        sock = bound(LOOPBACK)
        await ports.open(wanted((EVERYWHERE, sock.getsockname()[1])), [sock])
        assert await features(sock.getsockname()[1])


async def test_a_socket_that_nobody_wants_is_closed_and_told(station, caplog, tmp_path):
    async with station() as server, ports_of(server) as ports:
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(tmp_path / "socket"))
        extra = bound()
        port = extra.getsockname()[1]
        await ports.open(wanted((LOOPBACK, 0)), [unix, extra])
        with pytest.raises(ConnectionRefusedError):
            await features(port)
        assert [record.getMessage() for record in caplog.records] == ["socket_unused"] * 2
        assert (unix.fileno(), extra.fileno()) == (-1, -1)


# -- reload ------------------------------------------------------------------------------------------------------------


async def test_a_listener_that_stays_gets_its_new_options(station):
    async with station() as server, ports_of(server) as ports:
        port = free_port()
        await ports.open(wanted((LOOPBACK, port)))
        [listener] = ports
        await ports.change(wanted((LOOPBACK, port), starttls_required=False))
        assert list(ports) == [listener]
        assert "<required/>" not in await features(port)


async def test_listeners_on_free_ports_are_told_apart_by_their_order(station):
    """Two sections may be the same but for their options: a port of 0 is another one each time."""
    async with station() as server, ports_of(server) as ports:
        first = wanted((LOOPBACK, 0), starttls_required=True)
        second = wanted((LOOPBACK, 0), starttls_required=False)
        await ports.open((*first, *second))
        before = list(ports)
        await ports.change((*first, *second))
        assert list(ports) == before
        assert [listener.options.starttls_required for listener in ports] == [True, False]
        await ports.change(first)
        assert list(ports) == before[:1]


async def test_ports_come_and_go(station):
    async with station() as server, ports_of(server) as ports:
        old, kept, new = free_port(), free_port(), free_port()
        await ports.open(wanted((LOOPBACK, old), (LOOPBACK, kept)))
        await ports.change(wanted((LOOPBACK, new), (LOOPBACK, kept)))
        assert [listener.port for listener in ports] == [new, kept]
        assert await features(new)
        assert await features(kept)
        with pytest.raises(ConnectionRefusedError):
            await features(old)


async def test_a_port_moves_to_another_address(station):
    """Nobody can listen on 0.0.0.0 while 127.0.0.1 has the port, so the order matters."""
    async with station() as server, ports_of(server) as ports:
        port = free_port()
        await ports.open(wanted((LOOPBACK, port)))
        await ports.change(wanted((EVERYWHERE, port)))
        assert await features(port, OTHER_ADDRESS)
        await ports.change(wanted((LOOPBACK, port)))
        with pytest.raises(ConnectionRefusedError):
            await features(port, OTHER_ADDRESS)
        assert await features(port)


async def test_a_port_in_use_leaves_everything_as_it_was(station):
    async with station() as server, ports_of(server) as ports:
        moved, kept, new = free_port(), free_port(), free_port()
        taken = server.listener.port
        await ports.open(wanted((LOOPBACK, moved), (LOOPBACK, kept)))
        before = list(ports)
        places = [(EVERYWHERE, moved), (LOOPBACK, kept), (LOOPBACK, new), (LOOPBACK, taken)]
        with pytest.raises(OSError, match=f"port {taken}"):
            await ports.change(wanted(*places, starttls_required=False))
        assert list(ports) == before
        for port in (moved, kept):
            assert "<required/>" in await features(port)
        with pytest.raises(ConnectionRefusedError):
            await features(new)
        with pytest.raises(ConnectionRefusedError):
            await features(moved, OTHER_ADDRESS)


# -- sockets of a supervisor -------------------------------------------------------------------------------------------


async def test_sockets_of_a_supervisor_are_adopted_in_their_order(station):
    async with station() as server, ports_of(server) as ports:
        first, second = bound(), bound()
        places = [(LOOPBACK, sock.getsockname()[1]) for sock in (first, second)]
        await ports.adopt(wanted(*places), [first, second])
        assert [listener.port for listener in ports] == [port for _, port in places]
        for _, port in places:
            assert await features(port)


async def test_adopting_again_keeps_what_stays_with_its_new_options(station):
    async with station() as server, ports_of(server) as ports:
        kept, old, new = bound(), bound(), bound()
        again = kept.dup()  # what a reload sends is another descriptor
        at = {sock: (LOOPBACK, sock.getsockname()[1]) for sock in (kept, old, new)}
        await ports.adopt(wanted(at[kept], at[old]), [kept, old])
        [listener, _] = ports
        await ports.adopt(wanted(at[new], at[kept], starttls_required=False), [new, again])
        assert list(ports)[1] is listener
        assert again.fileno() == -1
        assert "<required/>" not in await features(at[kept][1])
        assert await features(at[new][1])
        with pytest.raises(ConnectionRefusedError):
            await features(at[old][1])

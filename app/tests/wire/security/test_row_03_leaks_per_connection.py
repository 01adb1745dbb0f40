"""Row 3: memory that stays behind when an unauthenticated connection is gone (CVE-2026-43506, CVE-2021-32918)."""

from __future__ import annotations

import time

import pytest

from tests.support.client import SASL, TLS, client_context, stream_header
from tests.support.memory import KIB, growth
from tests.support.program import wait_until
from tests.support.server import Server
from tests.support.wire import Wire

pytestmark = pytest.mark.one_worker("connections and their memory belong to one worker")


async def only_connect(server: Server) -> Wire:
    """Connect and say nothing."""
    return (await server.connect()).wire


async def half_a_header(server: Server) -> Wire:
    """Stop in the middle of the stream header."""
    client = await server.connect()
    await client.send(stream_header()[:60])
    return client.wire


async def header(server: Server) -> Wire:
    """Stop after the features."""
    return (await server.stream()).wire


async def half_a_stanza(server: Server) -> Wire:
    """Stop in the middle of an element."""
    client = await server.stream()
    await client.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AAAA")
    return client.wire


async def proceed(server: Server) -> Wire:
    """Stop before the TLS handshake."""
    client = await server.stream()
    await client.send(f"<starttls xmlns='{TLS}'/>")
    await client.receives(f"<proceed xmlns='{TLS}'/>")
    return client.wire


async def half_a_handshake(server: Server) -> Wire:
    """Stop in the middle of the TLS handshake."""
    client = await server.connect()
    await client.wire.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32)
    return client.wire


async def tls(server: Server) -> Wire:
    """Stop after the TLS handshake."""
    return (await server.connect("direct")).wire


async def tls_header(server: Server) -> Wire:
    """Stop after the features, over TLS."""
    return (await server.stream("direct")).wire


async def challenge(server: Server) -> Wire:
    """Stop in the middle of SCRAM."""
    client = await server.stream()
    answer = await client.auth("SCRAM-SHA-256", b"n,,n=nobody,r=abcdefghijk")
    assert answer.tag == f"{{{SASL}}}challenge"
    return client.wire


STAGES = [only_connect, half_a_header, header, half_a_stanza, proceed, half_a_handshake, tls, tls_header, challenge]


@pytest.mark.parametrize("stage", STAGES, ids=[stage.__name__ for stage in STAGES])
async def test_nothing_stays_behind(server, stage):
    async def come_and_go() -> None:
        wire = await stage(server)
        await wire.close()

    files = server.program.open_files()
    slope = await growth(server.program, come_and_go, warm_up=80, rounds=120)
    assert slope < 1 * KIB, f"{slope:.0f} bytes a connection"
    wait_until(lambda: server.program.open_files() <= files + 5, "the sockets are closed", timeout=5)


@pytest.mark.parametrize("traffic", [" ", "<message/>"[:3], "\n"], ids=["spaces", "letters", "newlines"])
async def test_the_time_to_log_in_does_not_depend_on_traffic(server_with, traffic):
    """Whoever keeps talking gets no more time than whoever is silent."""
    server = server_with({"limits": {"login_time": "1 s"}})
    client = await server.stream()
    began = time.monotonic()
    for letter in [*traffic, *["x" if traffic.startswith("<") else traffic] * 60]:
        try:
            await client.send(letter)
        except ConnectionError:
            break
        if await client.wire.heard(0.1):
            break
    await client.stream_error("connection-timeout")
    assert 0.8 < time.monotonic() - began < 5


async def test_logging_in_does_not_stop_the_clock_before_binding(server_with, account):
    server = server_with({"limits": {"login_time": "1 s"}})
    client = await server.authenticated(account("romeo"))
    await client.stream_error("connection-timeout")


async def test_silence_in_a_handshake_ends_too(server_with):
    server = server_with({"limits": {"login_time": "1 s"}})
    wire = await half_a_handshake(server)
    while await wire.raw():
        pass


async def test_a_finished_handshake_in_between_changes_nothing(server_with):
    server = server_with({"limits": {"login_time": "1 s"}})
    client = await server.connect()
    await client.open_stream()
    await client.send(f"<starttls xmlns='{TLS}'/>")
    await client.receives(f"<proceed xmlns='{TLS}'/>")
    await client.wire.start_tls(client_context(), "localhost")
    await client.open_stream()
    await client.stream_error("connection-timeout")

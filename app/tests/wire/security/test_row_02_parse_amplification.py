"""Row 2: XML that is small on the wire and big in the parser, before login (CVE-2026-43507)."""

from __future__ import annotations

import pytest

from tests.support.client import Client, stream_header
from tests.support.memory import KIB, MIB, growth

pytestmark = pytest.mark.one_worker("XML is read by the worker that has the connection")

LIMIT = 10 * KIB  # limits.stanza_size_unauthenticated of the default configuration

DEEP = b"<a>" * 100_000
ATTRIBUTES = b"<a " + b" ".join(b"a%d=''" % n for n in range(100_000)) + b"/>"
NAMESPACES = b"<a " + b" ".join(b"xmlns:n%d='u:%d'" % (n, n) for n in range(100_000)) + b"/>"
LONG_NAME = b"<" + b"a" * 1_000_000 + b"/>"
LONG_ATTRIBUTE_NAME = b"<a " + b"a" * 1_000_000 + b"=''/>"
LONG_TEXT = b"<a>" + b"x" * 1_000_000 + b"</a>"
LONG_WHITESPACE_IN_A_TAG = b"<a " + b" " * 1_000_000 + b"/>"
ATTACKS = {
    "deep nesting": DEEP,
    "attributes": ATTRIBUTES,
    "namespaces": NAMESPACES,
    "long name": LONG_NAME,
    "long attribute name": LONG_ATTRIBUTE_NAME,
    "long text": LONG_TEXT,
    "long tag of nothing": LONG_WHITESPACE_IN_A_TAG,
}


async def send_until_closed(client: Client, data: bytes) -> int:
    """Send piece by piece until the server has had enough; returns how much it took before it said so."""
    sent = 0
    while sent < len(data):
        try:
            await client.wire.write(data[sent : sent + 1024])
        except ConnectionError:
            break
        sent += 1024
        if await client.wire.heard():
            break
    return sent


@pytest.mark.parametrize("data", ATTACKS.values(), ids=ATTACKS.keys())
async def test_in_a_stream(server, data):
    client = await server.stream()
    sent = await send_until_closed(client, data)
    await client.stream_error("policy-violation", "unsupported-stanza-type")
    assert sent <= LIMIT + 64 * KIB, "closed as soon as the limit is reached; the rest was under way"


@pytest.mark.parametrize("data", ATTACKS.values(), ids=ATTACKS.keys())
async def test_in_the_header(server, data):
    client = await server.connect()
    await send_until_closed(client, b"<?xml version='1.0'?>" + data)
    await client.receives_header()
    await client.stream_error("policy-violation", "bad-format", "invalid-namespace")


@pytest.mark.parametrize("what", ["attributes", "namespaces"])
async def test_many_attributes_of_the_header(server, what):
    name = "xmlns:n%d" if what == "namespaces" else "a%d"
    client = await server.connect()
    await client.send(stream_header(**{name % number: "x" for number in range(300)}))
    await client.receives_header()
    await client.stream_error("policy-violation")


async def test_nesting_within_the_size(server):
    """One level more than allowed is refused although it is small."""
    client = await server.stream()
    await client.send("<a>" * 100)
    await client.stream_error("policy-violation")


async def test_the_limits_of_logged_in_clients(server, account):
    for xml in ("<message>" + "<a>" * 100, "<message " + " ".join(f"a{n}=''" for n in range(100)) + "/>"):
        romeo = await server.login(account("romeo"))
        await romeo.send(xml)
        await romeo.stream_error("policy-violation")


async def test_memory_stays_flat(server):
    async def attack() -> None:
        for data in (DEEP[:9000], ATTRIBUTES[:9000], NAMESPACES[:9000], LONG_NAME[:9000]):
            client = await server.stream()
            await client.wire.write(data)
            await client.wire.close()

    before = server.program.rss()
    assert await growth(server.program, attack, warm_up=40, rounds=40) < 16 * KIB
    assert server.program.rss() - before < 20 * MIB


async def test_held_open_connections_cost_no_more_than_the_limit(server):
    before = server.program.rss()
    for _ in range(100):
        client = await server.stream()
        await client.wire.write(b"<a b='" + b"x" * (LIMIT - 100))
    assert server.program.rss() - before < 100 * (LIMIT * 3 + 32 * KIB)

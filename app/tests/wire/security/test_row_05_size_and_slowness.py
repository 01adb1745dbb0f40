"""Row 5: big stanzas, and stanzas that are dripped so that the parser works in squares (CVE-2023-52425)."""

from __future__ import annotations

import pytest

from tests.support.client import Client
from tests.support.memory import KIB, MIB
from tests.support.program import Program

pytestmark = pytest.mark.one_worker("XML is read by the worker that has the connection")

PIECE = 10


@pytest.mark.parametrize("transport", ["clear", "direct"])
async def test_too_big_is_noticed_while_it_comes(server, account, transport):
    """Nobody waits for the end of the stanza."""
    romeo = await server.login(account("romeo"), transport=transport)
    before = server.program.rss()
    await romeo.send(f"<message to='{romeo.bare}'><body>")
    sent = 0
    while sent < 64 * MIB and not await romeo.wire.heard():
        try:
            await romeo.send("x" * 16 * KIB)
        except ConnectionError:
            break
        sent += 16 * KIB
    assert sent < 16 * MIB
    await romeo.stream_error("policy-violation")
    assert server.program.rss() - before < 16 * MIB


async def test_too_big_in_an_attribute(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<message to='{romeo.bare}' x='{'x' * 300 * KIB}'/>")
    await romeo.stream_error("policy-violation")


async def test_the_limit_counts_for_each_stanza(server, account):
    """Many stanzas of allowed size in one go are fine."""
    romeo = await server.online(account("romeo"))
    for number in range(8):
        await romeo.send(f"<message to='{romeo.full}' id='{number}'><body>{'x' * 100 * KIB}</body></message>")
    for number in range(8):
        assert (await romeo.next()).get("id") == str(number)


async def drip(client: Client, program: Program, size: int) -> float:
    """Send a stanza with an attribute of that size in small pieces; returns the server's CPU seconds for it."""
    stanza = f"<iq type='get' to='{client.host}' id='drip' x='{'x' * size}'><ping xmlns='urn:xmpp:ping'/></iq>".encode()
    before = program.cpu_seconds()
    for start in range(0, len(stanza), PIECE):
        await client.wire.write(stanza[start : start + PIECE])
    answer = await client.next(patience=60)
    assert answer.get("id") == "drip"
    return program.cpu_seconds() - before


async def test_dripped_attributes_cost_linear_time(server_with, account):
    """200 KB cost twice of what 100 KB cost, not four times; and little, measured in seconds."""
    server = server_with({"limits": {"stanza_size": "256 KiB", "rate": 0}})
    romeo = await server.login(account("romeo"))
    await drip(romeo, server.program, 10_000)
    half = min([await drip(romeo, server.program, 100_000) for _ in range(2)])
    whole = min([await drip(romeo, server.program, 200_000) for _ in range(2)])
    assert whole < 3 * half + 0.05, f"{half:.2f} s for 100 KB, {whole:.2f} s for 200 KB"
    assert whole < 2.5, f"{whole:.2f} s CPU"


@pytest.mark.parametrize(
    "stanza",
    [
        "<iq type='get' id='s' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>",
        '<iq type="get" id="s" to="localhost"><ping xmlns="urn:xmpp:ping"></ping></iq>',
        "<iq type='get' id='s' to='localhost' x='a > b'><ping xmlns='urn:xmpp:ping'/></iq >",
        "<iq\n type = 'get' id='s'\tto='localhost' ><ping xmlns='urn:xmpp:ping' /></iq\n>",
        "<iq type='get' id='s' to='localhost'><ping xmlns='urn:xmpp:ping'>&amp;&#65;<![CDATA[ <&> ]]></ping></iq>",
        "<iq type='get' id='s' to='localhost' x='&quot;é🎭'><ping xmlns='urn:xmpp:ping'>é🎭</ping></iq>",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7])
async def test_each_stanza_is_handled_with_its_last_byte(server, account, stanza, size):
    """However it is cut: the answer comes although nothing else is sent."""
    romeo = await server.login(account("romeo"))
    data = stanza.encode()
    for start in range(0, len(data), size):
        await romeo.wire.write(data[start : start + size])
    assert (await romeo.next()).get("id") == "s"


async def test_an_empty_stanza_is_handled_with_its_last_byte(server, account):
    romeo = await server.login(account("romeo"))
    for byte in b"<presence/>":
        await romeo.wire.write(bytes([byte]))
    assert (await romeo.next()).get("from") == romeo.full

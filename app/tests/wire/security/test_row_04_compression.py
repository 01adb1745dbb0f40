"""Row 4: zlib bombs (CVE-2014-2744, CVE-2014-2829). Stream compression does not exist here."""

from __future__ import annotations

import zlib

import pytest

from tests.support.matching import STREAM

pytestmark = pytest.mark.one_worker("compression is a matter of one connection")

COMPRESS = "http://jabber.org/protocol/compress"
REQUEST = f"<compress xmlns='{COMPRESS}'><method>zlib</method></compress>"


@pytest.mark.parametrize("transport", ["clear", "starttls", "direct"])
async def test_never_on_offer(server, account, transport):
    client = await server.stream(transport)
    assert not any("compress" in node.tag for node in client.features.iter())
    await client.authenticate(account("romeo"))
    assert not any("compress" in node.tag for node in client.features.iter())


async def refused(client) -> None:
    """A failure of the compression namespace, or the end of the stream."""
    answer = await client.next()
    assert answer.tag in (f"{{{COMPRESS}}}failure", f"{{{STREAM}}}error")


async def test_refused_before_authentication(server):
    client = await server.stream()
    await client.send(REQUEST)
    await refused(client)


async def test_refused_before_binding(server, account):
    client = await server.authenticated(account("romeo"))
    await client.send(REQUEST)
    await refused(client)


async def test_refused_after_binding(server, account):
    client = await server.login(account("romeo"))
    await client.send(REQUEST)
    await refused(client)


async def test_a_bomb_behind_the_request_is_not_inflated(server):
    before = server.program.rss()
    client = await server.stream()
    await client.wire.write(REQUEST.encode() + zlib.compress(b" " * 50_000_000))
    await refused(client)
    assert server.program.rss() - before < 10 * 1024 * 1024

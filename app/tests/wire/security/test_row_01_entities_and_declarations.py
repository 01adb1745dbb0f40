"""Row 1: entity expansion (billion laughs), DTDs, processing instructions and comments in streams.

CVE-2011-2205, CVE-2011-1753, CVE-2022-0217 and their kind. All of it is ``restricted-xml``, and costs no memory.
"""

from __future__ import annotations

import pytest

from tests.support.client import stream_header
from tests.support.memory import KIB, MIB, growth

pytestmark = pytest.mark.one_worker("XML is read by the worker that has the connection")

LAUGHS = (
    "<!DOCTYPE lolz [<!ENTITY l0 'lol'>"
    + "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))
    + "]>"
)
EXTERNAL = "<!DOCTYPE x [<!ENTITY secret SYSTEM 'file:///etc/passwd'>]>"
PARAMETER = "<!DOCTYPE x [<!ENTITY % remote SYSTEM 'http://127.0.0.1:1/x.dtd'> %remote;]>"
HEADER = stream_header().removeprefix("<?xml version='1.0'?>")

IN_FRONT = {
    "billion laughs": LAUGHS,
    "external entity": EXTERNAL,
    "parameter entity": PARAMETER,
    "empty document type": "<!DOCTYPE stream>",
    "comment": "<!-- hello -->",
    "processing instruction": "<?php system('id') ?>",
}
INSIDE = {
    **IN_FRONT,
    "unfinished comment": "<!-- hello",
    "unfinished document type": "<!DOCTYPE x [",
    "undefined entity": "<message><body>&l9;</body></message>",
    "undefined entity in an attribute": "<message to='&l9;'/>",
    "comment in a stanza": "<message><body>a<!-- hello -->b</body></message>",
    "processing instruction in a stanza": "<message><?x?></message>",
    "document type in a stanza": f"<message>{EXTERNAL}<body>&secret;</body></message>",
}


@pytest.mark.parametrize("xml", IN_FRONT.values(), ids=IN_FRONT.keys())
@pytest.mark.parametrize("declaration", ["", "<?xml version='1.0'?>"], ids=["bare", "with a declaration"])
async def test_in_front_of_the_header(server, xml, declaration):
    client = await server.connect()
    await client.send(f"{declaration}{xml}{HEADER}<message><body>&l9;&secret;</body></message>")
    await client.receives_header()
    await client.stream_error("restricted-xml")


@pytest.mark.parametrize("xml", INSIDE.values(), ids=INSIDE.keys())
async def test_before_authentication(server, xml):
    client = await server.stream()
    await client.send(xml)
    await client.stream_error("restricted-xml")


@pytest.mark.parametrize("xml", INSIDE.values(), ids=INSIDE.keys())
async def test_after_authentication(server, account, xml):
    romeo = await server.login(account("romeo"))
    await romeo.send(xml)
    await romeo.stream_error("restricted-xml")


async def test_in_pieces(server):
    """The same when the declaration comes byte by byte."""
    client = await server.stream()
    for byte in b"<!DOCTYPE stream>":
        if not await client.wire.heard():
            await client.wire.write(bytes([byte]))
    await client.stream_error("restricted-xml")


@pytest.mark.parametrize("xml", ["<?xml version='1.0'?>", "<![CDATA[x]]>"], ids=["XML declaration", "CDATA section"])
async def test_what_has_no_business_between_stanzas(server, account, xml):
    romeo = await server.login(account("romeo"))
    await romeo.send(xml)
    await romeo.stream_error()


async def test_memory_stays_flat(server):
    async def attack() -> None:
        client = await server.connect()
        await client.send(f"{LAUGHS}{HEADER}<message><body>&l9;</body></message>")
        await client.receives_header()
        await client.stream_error("restricted-xml")
        await client.wire.close()

    before = server.program.rss()
    assert await growth(server.program, attack, warm_up=50, rounds=60) < 4 * KIB
    assert server.program.rss() - before < 20 * MIB

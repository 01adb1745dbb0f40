"""The server's own entity capabilities (XEP-0115)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.modules.caps import Caps
from monktalk.xmpp.modules.disco import Disco
from monktalk.xmpp.modules.entity_time import EntityTime
from monktalk.xmpp.protocol import caps
from monktalk.xmpp.protocol import namespaces as ns
from tests.support.inproc import HOST, condition, configuration, payload, site

MODULES = {"caps": Caps, "disco": Disco, "time": EntityTime}
CONTACTS = f"[contacts]\nabuse = ['mailto:abuse@{HOST}']\n"


@pytest.fixture
async def server():
    async with site(MODULES, CONTACTS) as running:
        yield running


def announced(server):
    """``<c/>`` in the features of a stream that has authenticated, or None."""
    client = server.connect()
    client.open()
    client.stream.authenticated("romeo", b"")
    client.raw()
    client.open()
    return client.features().find(f"{{{ns.CAPS}}}c")


async def node_info(client, node: str):
    return await client.iq("get", f"<query xmlns='{ns.DISCO_INFO}' node='{node}'/>", to=HOST)


async def test_the_hash_is_that_of_the_answer(server):
    announcement = announced(server)
    assert (announcement.get("hash"), announcement.get("node")) == ("sha-1", f"https://{HOST}/")
    romeo = server.login("romeo")
    plain = payload(await romeo.iq("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to=HOST))
    assert caps.verify(plain, announcement.get("ver"), "sha-1") is not None
    named = payload(await node_info(romeo, f"https://{HOST}/#{announcement.get('ver')}"))
    assert named.get("node") == f"https://{HOST}/#{announcement.get('ver')}"
    assert caps.verify(named, announcement.get("ver"), "sha-1") is not None


async def test_it_is_not_announced_before_login(server):
    client = server.connect()
    client.open()
    assert client.features().find(f"{{{ns.CAPS}}}c") is None


async def test_the_hash_follows_the_modules(server):
    before = announced(server).get("ver")
    server.host.apply(configuration(MODULES, CONTACTS + "[modules.time]\nenabled = false\n"))
    await reload_modules(server.host, MODULES)
    after = announced(server).get("ver")
    assert before != after
    romeo = server.login("romeo")
    assert condition(await node_info(romeo, f"https://{HOST}/#{before}")) == "item-not-found/cancel"
    assert payload(await node_info(romeo, f"https://{HOST}/#{after}")) is not None


async def test_unloaded(server):
    server.host.apply(configuration(MODULES, "[modules.caps]\nenabled = false\n"))
    await reload_modules(server.host, MODULES)
    assert announced(server) is None


async def test_node_can_be_configured():
    async with site(MODULES, "[modules.caps]\nnode = 'https://example.org/?a=1&b=2'\n") as server:
        assert announced(server).get("node") == "https://example.org/?a=1&b=2"


async def test_a_name_that_can_not_be_hashed_costs_the_announcement_only(caplog):
    async with site(MODULES, "[modules.disco]\nname = 'a<b'\n") as server:
        assert announced(server) is None
        query = payload(await server.login("romeo").iq("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to=HOST))
        assert query[0].get("name") == "a<b"
    assert "no_caps" in caplog.text

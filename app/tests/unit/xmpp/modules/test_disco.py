"""Service discovery of the host and of accounts (XEP-0030, XEP-0128, XEP-0157)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.disco import Disco
from monktalk.xmpp.modules.entity_time import EntityTime
from monktalk.xmpp.modules.ping import Ping
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.disco import Identity, Item
from monktalk.xmpp.protocol.xmltree import to_bytes
from tests.support.inproc import HOST, condition, configuration, payload, site

INFO = f"<query xmlns='{ns.DISCO_INFO}'/>"
ITEMS = f"<query xmlns='{ns.DISCO_ITEMS}'/>"


class Rooms(Module):
    """A service with an item, a node and a form."""

    name = "rooms"
    features = ("urn:example:rooms",)

    @HostHooks.disco_items.handler()
    def add_item(self, items, requester):
        items.append(Item(f"rooms.{self.host.domain}", f"for {requester.local}"))

    @HostHooks.disco_node.handler()
    def fill_in(self, query):
        if query.node != "list":
            return False
        query.info.identities.append(Identity("hierarchy", "leaf"))
        query.items.append(Item(self.host.domain, query.account or "host", "item"))
        return True


MODULES = {"disco": Disco, "ping": Ping, "roster": RosterModule, "rooms": Rooms, "time": EntityTime}
CONFIGURATION = f"""
[modules.disco]
name = "The House of Capulet"
items = ["upload.{HOST}"]
[contacts]
abuse = ["mailto:abuse@{HOST}", "xmpp:abuse@{HOST}"]
admin = ["mailto:admin@{HOST}"]
"""


@pytest.fixture
async def server():
    async with site(MODULES, CONFIGURATION) as running:
        yield running


def features(query) -> set[str]:
    return {node.get("var") for node in query.findall(f"{{{ns.DISCO_INFO}}}feature")}


def identities(query) -> list[tuple[str | None, ...]]:
    found = query.findall(f"{{{ns.DISCO_INFO}}}identity")
    return [(node.get("category"), node.get("type"), node.get("name")) for node in found]


async def test_host(server):
    query = payload(await server.login("romeo").iq("get", INFO, to=HOST))
    assert identities(query) == [("server", "im", "The House of Capulet")]
    assert {ns.DISCO_INFO, ns.DISCO_ITEMS, ns.PING, ns.ROSTER, ns.TIME, "urn:example:rooms"} == features(query)


async def test_contact_addresses(server):
    query = payload(await server.login("romeo").iq("get", INFO, to=HOST))
    form = query.find(f"{{{ns.DATA_FORMS}}}x")
    assert form is not None
    fields = {field.get("var"): [value.text for value in field] for field in form.findall(f"{{{ns.DATA_FORMS}}}field")}
    assert fields == {
        "FORM_TYPE": [ns.SERVER_INFO],
        "abuse-addresses": [f"mailto:abuse@{HOST}", f"xmpp:abuse@{HOST}"],
        "admin-addresses": [f"mailto:admin@{HOST}"],
    }


async def test_no_form_without_contact_addresses():
    async with site({"disco": Disco}) as server:
        query = payload(await server.login("romeo").iq("get", INFO, to=HOST))
        assert query.find(f"{{{ns.DATA_FORMS}}}x") is None


async def test_a_module_that_is_unloaded_takes_its_features_along(server):
    romeo = server.login("romeo")
    assert ns.TIME in features(payload(await romeo.iq("get", INFO, to=HOST)))
    text = CONFIGURATION.replace("House", "Home") + "[modules.time]\nenabled = false\n"
    server.host.apply(configuration(MODULES, text))
    await reload_modules(server.host, MODULES)
    query = payload(await romeo.iq("get", INFO, to=HOST))
    assert ns.TIME not in features(query)
    assert identities(query) == [("server", "im", "The Home of Capulet")]


async def test_items_of_the_host(server):
    query = payload(await server.login("romeo").iq("get", ITEMS, to=HOST))
    assert [(item.get("jid"), item.get("name")) for item in query] == [
        (f"upload.{HOST}", None),
        (f"rooms.{HOST}", "for romeo"),
    ]


async def test_own_account(server):
    romeo = server.login("romeo")
    for to in (None, f"romeo@{HOST}"):
        query = payload(await romeo.iq("get", INFO, to=to))
        assert identities(query) == [("account", "registered", None)]
        assert features(query) == {ns.DISCO_INFO, ns.DISCO_ITEMS, ns.PING}
        assert len(payload(await romeo.iq("get", ITEMS, to=to))) == 0


async def test_nodes(server):
    romeo = server.login("romeo")
    for to, owner in ((HOST, "host"), (f"romeo@{HOST}", "romeo")):
        info = payload(await romeo.iq("get", INFO.replace("/>", " node='list'/>"), to=to))
        assert (info.get("node"), identities(info)) == ("list", [("hierarchy", "leaf", None)])
        items = payload(await romeo.iq("get", ITEMS.replace("/>", " node='list'/>"), to=to))
        assert [(item.get("name"), item.get("node")) for item in items] == [(owner, "item")]
        for query in (INFO, ITEMS):
            answer = await romeo.iq("get", query.replace("/>", " node='unknown'/>"), to=to)
            assert condition(answer) == "item-not-found/cancel"


@pytest.mark.parametrize(
    "query", [INFO, ITEMS, INFO.replace("/>", " node='list'/>"), ITEMS.replace("/>", " node='x'/>")]
)
async def test_strangers_learn_nothing_about_accounts(server, query):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await RosterModule.of(server.host).set_item("juliet", f"romeo@{HOST}", subscription="to")
    answers = []
    for name in (juliet.jid.local, "nobody"):
        answer = await romeo.iq("get", query, to=f"{name}@{HOST}")
        assert condition(answer) == "service-unavailable/cancel"
        answers.append(to_bytes(answer).replace(name.encode(), b"?").replace(answer.get("id").encode(), b"?"))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("subscription", ["from", "both"])
async def test_subscribers_may_ask(server, subscription):
    romeo = server.login("romeo")
    server.login("juliet")
    await RosterModule.of(server.host).set_item("juliet", f"romeo@{HOST}", subscription=subscription)
    query = payload(await romeo.iq("get", INFO, to=f"juliet@{HOST}"))
    assert identities(query) == [("account", "registered", None)]
    assert len(payload(await romeo.iq("get", ITEMS, to=f"juliet@{HOST}"))) == 0
    unknown = await romeo.iq("get", INFO.replace("/>", " node='unknown'/>"), to=f"juliet@{HOST}")
    assert condition(unknown) == "item-not-found/cancel"


async def test_storage_that_is_away(server):
    romeo = server.login("romeo")
    server.storage.set_available(False)
    answer = await romeo.iq("get", INFO, to=f"juliet@{HOST}")
    assert condition(answer) == "resource-constraint/wait"

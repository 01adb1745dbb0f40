"""Unique and stable stanza ids (XEP-0359)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.modules.stanza_id import StanzaIds
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.protocol.xmltree import from_bytes, to_bytes
from tests.support.inproc import HOST, configuration, site

MODULES = {"presence": Presence, "roster": RosterModule, "stanza_id": StanzaIds}
JULIET = f"juliet@{HOST}"
ID = f"{{{ns.STANZA_ID}}}stanza-id"


@pytest.fixture
async def server():
    async with site(MODULES) as running:
        yield running


async def delivered(server, xml: str):
    """What Juliet gets of a message of Romeo's."""
    romeo, juliet = server.login("romeo"), await server.online("juliet", "balcony")
    romeo.send(xml)
    found = juliet.stanzas()
    assert len(found) == 1
    return found[0]


async def test_a_message_gets_an_id(server):
    message = await delivered(server, f"<message to='{JULIET}' type='chat' id='m'><body>a &amp; b</body></message>")
    (mark,) = message.findall(ID)
    assert mark.get("by") == JULIET
    assert len(mark.get("id")) >= 16
    assert (message.get("id"), message.findtext("{jabber:client}body")) == ("m", "a & b")


async def test_every_recipient_of_the_account_sees_the_same_id(server):
    romeo, phone, laptop = server.login("romeo"), await server.online("juliet"), await server.online("juliet")
    phone.raw()
    romeo.send(f"<message to='{JULIET}' type='chat'><body>hi</body></message>")
    ids = [client.stanzas()[0].find(ID).get("id") for client in (phone, laptop)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    "inner",
    ["<composing xmlns='http://jabber.org/protocol/chatstates'/>", "<thread>t</thread>"],
)
async def test_none_for_what_nobody_will_refer_to(server, inner):
    message = await delivered(server, f"<message to='{JULIET}' type='chat'>{inner}</message>")
    assert message.find(ID) is None


async def test_a_receipt_gets_one(server):
    receipt = "<received xmlns='urn:xmpp:receipts' id='1'/>"
    message = await delivered(server, f"<message to='{JULIET}' type='chat'>{receipt}</message>")
    assert message.find(ID) is not None


@pytest.mark.parametrize("by", [JULIET, f"JULIET@{HOST}/x", HOST])
async def test_forged_ids_are_taken_away(server, by):
    forged = f"<stanza-id xmlns='{ns.STANZA_ID}' by='{by}' id='forged'/>"
    honest = (
        f"<stanza-id xmlns='{ns.STANZA_ID}' by='room@rooms.example' id='1'/><origin-id xmlns='{ns.STANZA_ID}' id='2'/>"
    )
    message = await delivered(
        server, f"<message to='{JULIET}' type='chat' xml:lang='it'>{forged}<body>ciao</body>{honest}</message>"
    )
    marks = message.findall(ID)
    assert [mark.get("by") for mark in marks] == ["room@rooms.example", JULIET]
    assert "forged" not in [mark.get("id") for mark in marks]
    assert message.find(f"{{{ns.STANZA_ID}}}origin-id").get("id") == "2"
    assert message.get("from", "").startswith(f"romeo@{HOST}/")
    assert message.get("{http://www.w3.org/XML/1998/namespace}lang") == "it"


async def test_a_forged_id_is_taken_away_also_where_none_is_added(server):
    forged = f"<stanza-id xmlns='{ns.STANZA_ID}' by='{JULIET}' id='forged'/>"
    message = await delivered(server, f"<message to='{JULIET}' type='chat'>{forged}</message>")
    assert message.find(ID) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"<message to='a'><body>x</body></message>",
        b"<message to='a'><body>x</body></message >",
        b"<message to='a' xmlns='jabber:client'><body>&lt;/message></body></message\n>",
    ],
)
async def test_the_bytes_stay_well_formed(server, raw):
    module = server.host.modules["stanza_id"]
    stanza = module.stamp(Stanza("message", {"to": "a"}, raw, ["jabber:client}body"]), "juliet")
    assert to_bytes(from_bytes(stanza.raw)[0]) == to_bytes(from_bytes(raw)[0])
    assert [child.tag[1:] for child in stanza.tree()] == list(stanza.payloads)


async def test_ids_are_unique_and_in_order(server):
    module = server.host.modules["stanza_id"]
    ids = []
    for _ in range(5_000):
        stanza = module.stamp(Stanza("message", {}, b"<message><body/></message>", ["jabber:client}body"]), "juliet")
        ids.append(stanza.tree().find(ID).get("id"))
    assert ids == sorted(set(ids))


async def test_ids_can_not_be_guessed(server):
    """Two that come one after the other differ in their random part."""
    module = server.host.modules["stanza_id"]
    found = set()
    for _ in range(100):
        stanza = module.stamp(Stanza("message", {}, b"<message><body/></message>", ["jabber:client}body"]), "juliet")
        found.add(stanza.tree().find(ID).get("id")[-8:])
    assert len(found) == 100


async def test_unloaded(server):
    server.host.apply(configuration(MODULES, "[modules.stanza_id]\nenabled = false\n"))
    await reload_modules(server.host, MODULES)
    message = await delivered(server, f"<message to='{JULIET}' type='chat'><body>hi</body></message>")
    assert message.find(ID) is None

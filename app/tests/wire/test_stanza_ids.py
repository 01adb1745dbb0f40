"""Unique and stable stanza ids (XEP-0359)."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tests.support.stanzas import payload_of

SID = "urn:xmpp:sid:0"


def ids(message: ET.Element) -> list[tuple[str, str]]:
    """The stanza ids of a message: by whom, and the id."""
    return [(node.get("by", ""), node.get("id", "")) for node in message.findall(f"{{{SID}}}stanza-id")]


async def test_messages_get_an_id_of_the_recipients_server(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    seen: set[str] = set()
    for _ in range(3):
        await romeo.send(f"<message to='{juliet.bare}' type='chat' id='same'><body>hi</body></message>")
        found = ids(await juliet.next())
        assert [by for by, _ in found] == [juliet.bare]
        seen.update(stanza_id for _, stanza_id in found)
    assert len(seen) == 3


async def test_forged_ids_are_stripped(server, account):
    """XEP-0359, 6: an id that claims to be by us, and is not, goes away; those of others stay."""
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    forged = f"<stanza-id xmlns='{SID}' by='{juliet.bare}' id='forged'/>"
    foreign = f"<stanza-id xmlns='{SID}' by='room@conference.example' id='foreign'/>"
    await romeo.send(f"<message to='{juliet.bare}' type='chat'><body>hi</body>{forged}{foreign}</message>")
    found = ids(await juliet.next())
    assert ("room@conference.example", "foreign") in found
    assert [by for by, stanza_id in found if stanza_id == "forged"] == []
    assert len([by for by, _ in found if by == juliet.bare]) == 1


async def test_origin_ids_are_kept(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(
        f"<message to='{juliet.bare}' type='chat'><body>hi</body><origin-id xmlns='{SID}' id='mine'/></message>"
    )
    assert (await juliet.next()).find(f"{{{SID}}}origin-id").get("id") == "mine"


async def test_the_id_survives_offline_storage(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await romeo.send(f"<message to='{juliet.jid}' type='chat'><body>hi</body></message>")
    await romeo.settled()
    online = await server.online(juliet)
    assert [by for by, _ in ids(await online.next())] == [juliet.jid]


async def test_accounts_announce_it(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get("<query xmlns='http://jabber.org/protocol/disco#info'/>", to=romeo.bare)
    assert SID in {node.get("var") for node in payload_of(answer)}

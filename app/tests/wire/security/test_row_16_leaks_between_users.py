"""Row 16: what one account learns of another one, within a host and across hosts."""

from __future__ import annotations

import pytest

from tests.support.matching import show

SECRET = "violet-canary"
QUERIES = {
    "roster": "<query xmlns='jabber:iq:roster'/>",
    "private storage": "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>",
    "last activity": "<query xmlns='jabber:iq:last'/>",
    "items": "<query xmlns='http://jabber.org/protocol/disco#items'/>",
    "info": "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    "registration": "<query xmlns='jabber:iq:register'/>",
    "commands": "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>",
}
ASKERS = {"same host": "localhost", "other host": "other.example", "isolated host": "isolated.example"}


async def victim(server, account):
    """An account with something to hide in every store."""
    juliet = await server.login(account("juliet"), SECRET)
    await juliet.set(
        f"<query xmlns='jabber:iq:roster'><item jid='{SECRET}@b.example' name='{SECRET}'>"
        f"<group>{SECRET}</group></item></query>"
    )
    await juliet.set(
        f"<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'><c name='{SECRET}'/></storage></query>"
    )
    await juliet.available(f"<status>{SECRET}</status>")
    await juliet.drained()
    return juliet


@pytest.mark.parametrize("host", ASKERS.values(), ids=ASKERS.keys())
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
async def test_queries_of_strangers(server, account, query, host):
    juliet = await victim(server, account)
    stranger = await server.login(account("tybalt", host=host))
    answer = await stranger.get(query, to=juliet.bare)
    assert answer.get("type") == "error"
    assert SECRET not in show(answer)
    await juliet.receives_nothing()


@pytest.mark.parametrize("host", ASKERS.values(), ids=ASKERS.keys())
async def test_presence_of_strangers(server, account, host):
    juliet = await victim(server, account)
    stranger = await server.online(account("tybalt", host=host))
    await stranger.send(f"<presence to='{juliet.bare}' type='probe'/><presence to='{juliet.bare}' type='subscribe'/>")
    for node in await stranger.drained():
        assert SECRET not in show(node)


async def test_cards_are_public_but_not_across_isolation(server, account):
    """XEP-0054 makes vCards public; an isolated host's users don't see them, nor they its users'."""
    juliet = await server.login(account("juliet"))
    inside = await server.login(account("rosaline", host="isolated.example"))
    card = f"<vCard xmlns='vcard-temp'><FN>{SECRET}</FN></vCard>"
    await juliet.set(card)
    await inside.set(card)
    assert SECRET in show(
        await (await server.login(account("tybalt"))).get("<vCard xmlns='vcard-temp'/>", to=juliet.bare)
    )
    assert SECRET not in show(await inside.get("<vCard xmlns='vcard-temp'/>", to=juliet.bare))
    assert SECRET not in show(await juliet.get("<vCard xmlns='vcard-temp'/>", to=inside.bare))


@pytest.mark.parametrize("host", ASKERS.values(), ids=ASKERS.keys())
@pytest.mark.parametrize(
    "payload",
    [
        "<query xmlns='jabber:iq:roster'><item jid='x@y.example'/></query>",
        "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>",
        "<vCard xmlns='vcard-temp'><FN>forged</FN></vCard>",
        "<query xmlns='jabber:iq:register'><remove/></query>",
    ],
    ids=["roster", "private storage", "vCard", "registration"],
)
async def test_changes_by_strangers(server, account, payload, host):
    juliet = await victim(server, account)
    stranger = await server.login(account("tybalt", host=host))
    assert (await stranger.set(payload, to=juliet.bare)).get("type") == "error"
    assert SECRET in show(await juliet.roster())
    kept = await juliet.get("<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>")
    assert SECRET in show(kept)
    assert "forged" not in show(await juliet.get("<vCard xmlns='vcard-temp'/>"))


async def test_nobody_learns_the_resource_of_a_stranger(server, account):
    """Errors to a full JID don't depend on whether that resource is there, for what the server answers itself."""
    juliet = await victim(server, account)
    stranger = await server.login(account("tybalt"))
    for kind in ("", " type='unavailable'"):
        await stranger.send(f"<presence to='{juliet.bare}/elsewhere'{kind}/>")
    await stranger.receives_nothing()

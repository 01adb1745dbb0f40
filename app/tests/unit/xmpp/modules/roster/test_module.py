"""Conversations about rosters (RFC 6121 section 2)."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import Item, RosterModule
from monktalk.xmpp.protocol.errors import StanzaError
from tests.support.inproc import HOST, OTHER_HOST, InprocClient, condition, payload, site

ROSTER = "jabber:iq:roster"
JULIET = f"juliet@{HOST}"
NURSE = f"nurse@{HOST}"
MODULES = {"presence": Presence, "roster": RosterModule}


@pytest.fixture
async def server():
    async with site(MODULES, "[modules.roster]\nmax_items = 5\n") as running:
        yield running


def rosters(server, domain: str = HOST) -> RosterModule:
    return RosterModule.of(server.server.hosts[domain])


async def fetched(client: InprocClient, version: str | None = None):
    ver = f" ver='{version}'" if version is not None else ""
    return await client.iq("get", f"<query xmlns='{ROSTER}'{ver}/>")


async def set_item(client: InprocClient, inner: str, *, to: str | None = None):
    return await client.iq("set", f"<query xmlns='{ROSTER}'>{inner}</query>", to=to)


def pushes(nodes) -> list[tuple[str | None, str | None, str | None]]:
    """Address, subscription and version of each roster push among the stanzas."""
    found = []
    for node in nodes:
        if node.tag == "{jabber:client}iq" and node.get("type") == "set":
            (item,) = node[0]
            found.append((item.get("jid"), item.get("subscription"), node[0].get("ver")))
    return found


async def test_features(server):
    client = server.connect()
    client.open()
    assert not any("features" in child.tag for child in client.features())
    client.stream.authenticated("romeo", b"")
    client.open()
    offered = {child.tag for child in client.features()}
    assert {"{urn:xmpp:features:rosterver}ver", "{urn:xmpp:features:pre-approval}sub"} <= offered


async def test_a_new_account_has_an_empty_roster(server):
    query = payload(await fetched(server.login("romeo")))
    assert (query.tag, query.get("ver"), len(query)) == (f"{{{ROSTER}}}query", "0", 0)


async def test_versions(server):
    romeo = server.login("romeo")
    assert (await set_item(romeo, f"<item jid='{JULIET}' name='Juliet'/>")).get("type") == "result"
    version = payload(await fetched(romeo, "")).get("ver")
    assert len(await fetched(romeo, version)) == 0, "nothing has changed since"
    await set_item(romeo, f"<item jid='{NURSE}'/>")
    newer = payload(await fetched(romeo, version))
    assert [item.get("jid") for item in newer] == [JULIET, NURSE]
    assert newer.get("ver") != version


async def test_a_cached_roster_is_answered_without_waiting(server):
    romeo = server.login("romeo")
    await fetched(romeo)
    romeo.send(f"<iq type='get' id='now'><query xmlns='{ROSTER}'/></iq>")
    assert [node.get("id") for node in romeo.stanzas()] == ["now"]


async def test_pushes_go_to_interested_resources(server):
    home, work, deaf = (server.login("romeo", resource) for resource in ("home", "work", "deaf"))
    await fetched(home)
    await fetched(work)
    answer = await set_item(deaf, f"<item jid='{JULIET}'/>")
    assert answer.get("type") == "result"
    version = payload(await fetched(home, "")).get("ver")
    assert pushes(await work.arrived()) == [(JULIET, "none", version)]
    assert await deaf.arrived() == []


async def test_a_push_never_comes_before_the_roster(server):
    """The roster is being read when it changes: the answer has the change, or a push follows it."""
    home, work = server.login("romeo", "home"), server.login("romeo", "work")
    home.send(f"<iq type='get' id='r'><query xmlns='{ROSTER}'/></iq>")
    work.send(f"<iq type='set' id='s'><query xmlns='{ROSTER}'><item jid='{JULIET}'/></query></iq>")
    first, *following = await home.arrived()
    assert first.get("id") == "r"
    assert [item.get("jid") for item in first[0]] == [JULIET] or [jid for jid, _, _ in pushes(following)] == [JULIET]


async def test_each_push_has_its_own_id(server):
    romeo = server.login("romeo")
    await fetched(romeo)
    for number in range(3):
        romeo.send(f"<iq type='set' id='s{number}'><query xmlns='{ROSTER}'><item jid='{JULIET}'/></query></iq>")
    identifiers = [node.get("id") for node in await romeo.arrived() if node.get("type") == "set"]
    assert len(set(identifiers)) == 3


async def test_remove(server):
    romeo = server.login("romeo")
    await fetched(romeo)
    assert condition(await set_item(romeo, f"<item jid='{JULIET}' subscription='remove'/>")) == "item-not-found/cancel"
    await set_item(romeo, f"<item jid='{JULIET}'/>")
    romeo.send(
        f"<iq type='set' id='s'><query xmlns='{ROSTER}'><item jid='{JULIET}' subscription='remove'/></query></iq>"
    )
    nodes = await romeo.arrived()
    assert [(jid, kind) for jid, kind, _ in pushes(nodes)] == [(JULIET, "remove")]
    assert nodes[-1].get("type") == "result"
    assert len(payload(await fetched(romeo))) == 0


async def test_as_many_contacts_as_allowed(server):
    romeo = server.login("romeo")
    for number in range(5):
        assert (await set_item(romeo, f"<item jid='friend{number}@{HOST}'/>")).get("type") == "result"
    assert condition(await set_item(romeo, f"<item jid='{JULIET}'/>")) == "resource-constraint/cancel"
    romeo.send(f"<presence to='{JULIET}' type='subscribe'/>")
    (refusal,) = await romeo.arrived()
    assert (condition(refusal), refusal.get("from")) == ("resource-constraint/cancel", JULIET)
    assert (await set_item(romeo, f"<item jid='friend1@{HOST}' name='One'/>")).get("type") == "result"
    assert len(payload(await fetched(romeo))) == 5


async def test_as_much_text_as_allowed():
    async with site(MODULES, "[modules.roster]\nmax_size = 4096\n") as server:
        romeo = server.login("romeo")
        long = "x" * 1000
        for number in range(3):
            assert (await set_item(romeo, f"<item jid='f{number}@{HOST}' name='{long}'/>")).get("type") == "result"
        grouped = f"<item jid='f3@{HOST}' name='{long}'><group>{long}</group></item>"
        assert condition(await set_item(romeo, grouped)) == "resource-constraint/cancel"
        assert (await set_item(romeo, f"<item jid='f2@{HOST}'/>")).get("type") == "result"
        assert (await set_item(romeo, grouped)).get("type") == "result"


@pytest.mark.parametrize("user", ["juliet", "nobody"])
async def test_the_roster_of_somebody_else(server, user):
    server.login("juliet")
    romeo = server.login("romeo")
    for kind in ("get", "set"):
        answer = await romeo.iq(kind, f"<query xmlns='{ROSTER}'><item jid='a@b'/></query>", to=f"{user}@{HOST}")
        assert condition(answer) == "forbidden/auth"
    assert (await rosters(server).get_roster(user)).items == {}


async def test_forged_pushes_are_not_delivered(server):
    romeo, juliet = server.login("romeo", "orchard"), server.login("juliet", "balcony")
    for sender in (romeo, server.login("juliet", "other"), server.login("juliet", host=OTHER_HOST)):
        forged = f"<query xmlns='{ROSTER}'><item jid='paris@{HOST}' subscription='both'/></query>"
        assert condition(await sender.iq("set", forged, to=juliet.jid.full)) == "service-unavailable/cancel"
        sender.send(f"<iq type='get' id='p' to='{juliet.jid.full}'><ping xmlns='urn:xmpp:ping'/></iq>")
    kinds = [(node.get("type"), node[0].tag) for node in await juliet.arrived()]
    assert kinds == [("get", "{urn:xmpp:ping}ping")] * 3, "other requests go through"


async def test_the_storage_is_away(server):
    romeo = server.login("romeo")
    server.storage.set_available(False)
    assert condition(await fetched(romeo)) == "resource-constraint/wait"
    assert condition(await set_item(romeo, f"<item jid='{JULIET}'/>")) == "resource-constraint/wait"
    assert not romeo.session.interested
    server.storage.set_available(True)
    assert len(payload(await fetched(romeo))) == 0


# ------------------------------------------------------------------------------------------------ administration


async def test_administrators_set_items(server):
    romeo = server.login("romeo")
    await fetched(romeo)
    module = rosters(server)
    assert await module.set_item("romeo", JULIET, name="Juliet", subscription="both") == Item("both", name="Juliet")
    assert [(jid, kind) for jid, kind, _ in pushes(await romeo.arrived())] == [(JULIET, "both")]
    assert await module.set_item("romeo", JULIET, groups=["Friends"]) == Item(
        "both", name="Juliet", groups=("Friends",)
    )
    assert await module.shows_presence_to("romeo", JULIET)
    assert await module.shows_presence_to("romeo", f"romeo@{HOST}")
    assert not await module.shows_presence_to("romeo", NURSE)
    assert await module.push_all("romeo") == 1
    assert await module.remove_item("romeo", JULIET)
    assert not await module.remove_item("romeo", JULIET)
    assert (await module.get_roster("romeo")).items == {}
    kinds = [kind for _, kind, _ in pushes(await romeo.arrived())]
    assert kinds == ["both", "both", "remove"]


async def test_administrators_settle_open_requests(server):
    romeo, juliet = server.login("romeo"), server.login("juliet")
    romeo.send(f"<presence to='{JULIET}' type='subscribe'/>")
    juliet.send(f"<presence to='{romeo.jid.bare}' type='subscribe'/>")
    await server.settled()
    item = await rosters(server).set_item("romeo", JULIET, subscription="both")
    assert item == Item("both")
    assert (await rosters(server).get_roster("romeo")).requests == {}


async def test_administrators_mistakes(server):
    with pytest.raises(ValueError, match="'remove' is no subscription"):
        await rosters(server).set_item("romeo", JULIET, subscription="remove")
    with pytest.raises(ValueError, match="himself"):
        await rosters(server).set_item("romeo", f"romeo@{HOST}")
    for number in range(5):
        await rosters(server).set_item("romeo", f"friend{number}@{HOST}")
    with pytest.raises(StanzaError):
        await rosters(server).set_item("romeo", JULIET)


async def test_a_lowered_limit_leaves_rosters_as_they_are(server):
    module = rosters(server)
    await asyncio.gather(*(module.set_item("romeo", f"friend{number}@{HOST}") for number in range(5)))
    values = dict(vars(module.settings))
    section = values.pop("_section")
    module.reload(type(module.settings)(section, {**values, "max_items": 2}))
    await module.set_item("romeo", f"friend3@{HOST}", name="Three")
    with pytest.raises(StanzaError):
        await module.set_item("romeo", JULIET)
    assert len((await module.get_roster("romeo")).items) == 5


async def test_an_account_is_removed(server):
    """Its roster is deleted, and those who were in it are told."""
    friends = {name: server.login(name) for name in ("both", "asked", "asking")}
    both, asked, asking = friends.values()
    await rosters(server).set_item("romeo", both.jid.bare, subscription="both")
    await rosters(server).set_item("both", f"romeo@{HOST}", subscription="both")
    romeo = await server.online("romeo")
    romeo.send(f"<presence to='{asked.jid.bare}' type='subscribe'/>")
    asking.send(f"<presence to='{romeo.jid.bare}' type='subscribe'/>")
    await server.settled()
    for friend in friends.values():
        await fetched(friend)
        await friend.available()
    await server.host.hooks.account_removed("romeo")
    heard = {name: [node.get("type") for node in await friend.arrived()] for name, friend in friends.items()}
    assert heard["both"] == ["unavailable", "unsubscribe", "set", "unsubscribed", "set"]
    assert heard["asked"] == ["unsubscribe"], "he had not answered, so there is no item to push"
    assert heard["asking"] == ["unsubscribed", "set"]
    module = rosters(server)
    assert (await module.get_roster("romeo")).items == {}
    assert not await module.has_roster("romeo")
    for name in friends:
        roster = await module.get_roster(name)
        assert roster.requests == {}
        assert set(roster.items.values()) <= {Item()}

"""Conversations about presence: broadcast, changes, directed presence, and the end (RFC 6121 section 4)."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.presence import module as presence_module
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from tests.support.inproc import HOST, OTHER_HOST, condition, site
from tests.support.presence import ISOLATED, MODULES, befriend, rosters, seen, story


class Witness(Module):
    """Adds to outgoing presence, notes which sessions have become available, and counts reads of the storage."""

    name = "witness"

    def __init__(self, host, settings):
        super().__init__(host, settings)
        self.available = []
        self.added = b"<x xmlns='urn:witness'/>"

    @HostHooks.outgoing_presence.handler()
    def add(self, stanza, session):
        if b"secret" in stanza.raw:
            return None
        if "urn:witness}x" in stanza.payloads:
            stanza = stanza.without_payloads(["urn:witness}x"])
        return stanza.with_payload(self.added, "urn:witness}x")

    @HostHooks.session_available.handler()
    async def note(self, session):
        self.available.append(session.jid.resource)
        session.send(b"<message><body>stored</body></message>")


@pytest.fixture
async def server():
    async with site(MODULES, "[limits]\ndirected_presence = 3\n") as running:
        yield running


@pytest.fixture
async def witnessed():
    async with site({**MODULES, "witness": Witness}) as running:
        yield running


async def friends(server, *, host=OTHER_HOST):
    """Two friends, bound and not available."""
    romeo, juliet = server.login("romeo", "orchard"), server.login("juliet", "balcony", host=host)
    await befriend(server, romeo, juliet)
    return romeo, juliet


# ------------------------------------------------------------------------------------------------------ broadcast


@pytest.mark.parametrize("host", [HOST, OTHER_HOST])
async def test_initial_presence(server, host):
    romeo, juliet = await friends(server, host=host)
    await juliet.available("<show>dnd</show>")
    romeo.send("<presence id='1' xml:lang='it'><show>chat</show></presence>")
    own, hers = await romeo.arrived()
    assert (own.get("from"), own.get("to"), own.get("id")) == (romeo.jid.full, romeo.jid.bare, "1")
    assert (hers.get("from"), hers.get("to")) == (juliet.jid.full, romeo.jid.full)
    assert hers.findtext("{jabber:client}show") == "dnd"
    (his,) = juliet.stanzas()
    assert (his.get("from"), his.get("to"), his.get("id")) == (romeo.jid.full, juliet.jid.bare, "1")
    assert his.get("{http://www.w3.org/XML/1998/namespace}lang") == "it"


async def test_a_broadcast_is_the_same_bytes_for_all(server):
    """Nothing is parsed or written anew: what the client wrote is there to the byte."""
    romeo, juliet = await friends(server)
    await juliet.available()
    inner = "<show>away</show><c  xmlns='urn:c'  ver = \"1\"></c>"
    romeo.send(f'<presence   id="x" >{inner}</presence>')
    await server.settled()
    (raw,) = juliet.raw()
    assert raw.endswith(f'   id="x" >{inner}</presence>'.encode())


async def test_changes_are_broadcast_and_nothing_else(server):
    romeo, juliet = await friends(server)
    await juliet.available()
    await romeo.available()
    juliet.raw()
    romeo.send("<presence><show>xa</show><priority>5</priority></presence>")
    assert seen(await romeo.arrived()) == [(romeo.jid.full, None)]
    assert seen(juliet.stanzas()) == [(romeo.jid.full, None)]
    assert romeo.session.priority == 5
    assert b"xa" in romeo.session.presence.raw


async def test_resources_of_one_account_see_each_other(server):
    one, silent = await server.online("romeo", "one"), server.login("romeo", "silent")
    other = server.login("romeo", "other")
    assert seen(await other.available()) == [(other.jid.full, None), (one.jid.full, None)]
    assert seen(one.stanzas()) == [(other.jid.full, None)]
    assert silent.stanzas() == []
    other.send("<presence type='unavailable'><status>bye</status></presence>")
    (farewell,) = await one.arrived()
    assert (farewell.get("from"), farewell.findtext("{jabber:client}status")) == (other.jid.full, "bye")
    assert seen(other.stanzas()) == [(other.jid.full, "unavailable")]


@pytest.mark.parametrize(("subscription", "he_sees", "she_sees"), [("to", True, False), ("from", False, True)])
async def test_one_sided_subscriptions(server, subscription, he_sees, she_sees):
    romeo, juliet = server.login("romeo"), server.login("juliet")
    await befriend(server, romeo, juliet, subscription)
    await juliet.available()
    nodes = seen(await romeo.available())
    assert ((juliet.jid.full, None) in nodes) is he_sees
    assert ((romeo.jid.full, None) in seen(juliet.stanzas())) is she_sees
    juliet.send("<presence><show>away</show></presence>")
    assert bool(seen(await romeo.arrived())) is he_sees


async def test_isolated_hosts_see_nothing_of_each_other():
    async with site(MODULES, ISOLATED) as server:
        romeo, juliet = await friends(server)
        await juliet.available()
        assert seen(await romeo.available()) == [(romeo.jid.full, None)]
        assert juliet.stanzas() == []


async def test_rosters_that_disagree(server):
    """RFC 6121, 4.3.2: the probe is answered with unsubscribed, which sets the user's roster right."""
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await rosters(server).set_item("romeo", juliet.jid.bare, subscription="both")
    await romeo.iq("get", "<query xmlns='jabber:iq:roster'/>")
    assert story(await romeo.available()) == ["available", "unsubscribed", "push from"]


async def test_invalid_priorities(server):
    romeo, juliet = await friends(server)
    await juliet.available()
    romeo.send("<presence id='p'><priority>128</priority></presence>")
    (answer,) = await romeo.arrived()
    assert (condition(answer), answer.get("id")) == ("bad-request/modify", "p")
    assert (romeo.session.priority, juliet.stanzas()) == (None, [])


@pytest.mark.parametrize("kind", ["available", "invisible", "", "Unavailable"])
async def test_unknown_types(server, kind):
    romeo = server.login("romeo")
    for address in ("", f" to='juliet@{HOST}'"):
        romeo.send(f"<presence type='{kind}'{address}/>")
        assert condition((await romeo.arrived())[0]) == "bad-request/modify"


# ---------------------------------------------------------------------------------------------------- other modules


async def test_modules_may_change_what_is_broadcast(witnessed):
    romeo, juliet = await friends(witnessed)
    await juliet.available()
    await romeo.available("<show>away</show>")
    his = juliet.stanzas()[-1]
    assert [child.tag for child in his] == ["{jabber:client}show", "{urn:witness}x"]
    witness = witnessed.host.modules["witness"]
    witness.added = b"<x xmlns='urn:witness'>new</x>"
    romeo.raw()
    await presence_module.Presence.refresh(witnessed.host.modules["presence"], "romeo")
    (his,) = juliet.stanzas()
    assert [child.text for child in his] == ["away", "new"]
    assert seen(romeo.stanzas()) == [(romeo.jid.full, None)]
    assert b"new" in romeo.session.presence.raw


async def test_modules_may_swallow_presence(witnessed):
    romeo, juliet = await friends(witnessed)
    await juliet.available()
    romeo.send(
        f"<presence><status>secret</status></presence><presence to='{juliet.jid}'><status>secret</status></presence>"
    )
    assert await romeo.arrived() == []
    assert juliet.stanzas() == []
    assert romeo.session.directed is None


async def test_sessions_become_available_for_messages(witnessed):
    romeo = witnessed.login("romeo", "orchard")
    available = witnessed.host.modules["witness"].available
    expected = []
    for inner, ready in [
        ("<priority>-1</priority>", False),
        ("<priority>-5</priority>", False),
        ("<priority>0</priority>", True),
        ("<priority>3</priority>", False),
        ("<priority>-1</priority>", False),
        ("", True),
    ]:
        romeo.send(f"<presence>{inner}</presence>")
        assert story(await romeo.arrived()) == ["available", *(["message"] if ready else [])]
        expected += ["orchard"] if ready else []
        assert available == expected
    romeo.send("<presence type='unavailable'/>")
    romeo.send("<presence/>")
    assert story(await romeo.arrived()) == ["unavailable", "available", "message"]


async def test_what_follows_waits_for_the_stored_messages(witnessed):
    romeo = witnessed.login("romeo")
    romeo.send("<presence/><presence><show>away</show></presence>")
    assert story(await romeo.arrived()) == ["available", "message", "available"]


# ------------------------------------------------------------------------------------------------------- the end


async def test_unavailable(server):
    romeo, juliet = await friends(server)
    await juliet.available()
    await romeo.available()
    juliet.raw()
    romeo.send("<presence type='unavailable'><status>gone</status></presence>")
    await server.settled()
    (his,) = juliet.stanzas()
    assert (his.get("from"), his.get("to"), his.findtext("{jabber:client}status")) == (
        romeo.jid.full,
        juliet.jid.bare,
        "gone",
    )
    assert romeo.session.priority is None
    assert romeo.session.presence is None
    romeo.drop()
    await server.settled()
    assert juliet.stanzas() == []


async def test_unavailable_without_having_been_available(server):
    romeo, juliet = await friends(server)
    await juliet.available()
    romeo.send("<presence type='unavailable'/>")
    romeo.drop()
    assert await juliet.arrived() == []


@pytest.mark.parametrize("cached", [True, False])
async def test_the_end_of_a_session(server, cached):
    romeo, juliet = await friends(server)
    other = await server.online("romeo", "other")
    await juliet.available()
    await romeo.available()
    juliet.raw(), other.raw()
    if not cached:
        server.storage.invalidate_all()
    jid = romeo.jid
    romeo.drop()
    assert seen(await juliet.arrived()) == [(jid.full, "unavailable")]
    assert seen(other.stanzas()) == [(jid.full, "unavailable")]


async def test_the_end_of_a_session_while_the_storage_is_away(server, monkeypatch):
    monkeypatch.setattr(presence_module, "FAREWELL_RETRIES", (0.01,) * 200)
    romeo, juliet = await friends(server)
    await juliet.available()
    await romeo.available()
    juliet.raw()
    server.storage.invalidate_all()
    server.storage.set_available(False)
    jid = romeo.jid
    romeo.drop()
    server.storage.set_available(True)
    assert seen(await juliet.arrived()) == [(jid.full, "unavailable")]


async def test_a_late_farewell_does_not_hide_the_successor(server, monkeypatch):
    romeo, juliet = await friends(server)
    await juliet.available()
    await romeo.available()
    juliet.raw()
    module = rosters(server)
    read, failed = module.get_roster, asyncio.Event()

    async def fail_once(user):
        if failed.is_set():
            return await read(user)
        failed.set()
        raise StorageUnavailable("away for a moment")

    monkeypatch.setattr(presence_module, "FAREWELL_RETRIES", (0.05,))
    monkeypatch.setattr(module, "get_roster", fail_once)
    server.storage.invalidate_all()
    romeo.drop()
    await failed.wait()
    again = server.login("romeo", "orchard")
    again.send("<presence/>")
    assert seen(await juliet.arrived()) == [(again.jid.full, None)]


async def test_the_storage_never_comes_back(server, monkeypatch, caplog):
    monkeypatch.setattr(presence_module, "FAREWELL_RETRIES", (0.0, 0.0))
    romeo, juliet = await friends(server)
    await juliet.available()
    await romeo.available()
    other, stranger = await server.online("romeo", "other"), await server.online("stranger")
    romeo.send(f"<presence to='{stranger.jid}'/>")
    server.storage.invalidate_all()
    server.storage.set_available(False)
    jid = romeo.jid
    romeo.drop()
    await server.settled()
    assert "subscribers_not_told" in caplog.text
    assert seen(other.stanzas())[-1] == (jid.full, "unavailable"), "those who need no storage are told"
    assert seen(stranger.stanzas())[-1] == (jid.full, "unavailable")


async def test_a_session_that_ends_while_its_roster_is_read_never_appears(server):
    romeo, juliet = await friends(server)
    await juliet.available()
    server.storage.invalidate_all()
    romeo.send("<presence/>")
    romeo.session.end("ended from another side")
    assert await juliet.arrived() == []


async def test_the_storage_is_away(server):
    romeo, juliet = await friends(server)
    await juliet.available()
    server.storage.invalidate_all()
    server.storage.set_available(False)
    romeo.send("<presence id='p'/>")
    (answer,) = await romeo.arrived()
    assert (condition(answer), answer.get("id")) == ("resource-constraint/wait", "p")
    assert romeo.session.priority is None
    server.storage.set_available(True)
    assert seen(await romeo.available()) == [(romeo.jid.full, None), (juliet.jid.full, None)]


# --------------------------------------------------------------------------------------------------------- directed


@pytest.mark.parametrize("how", ["unavailable", "drop"])
@pytest.mark.parametrize("available", [True, False])
@pytest.mark.parametrize("address", ["full", "bare"])
async def test_directed_presence_ends_with_the_session(server, address, available, how):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    if available:
        await romeo.available()
    to, jid = getattr(juliet.jid, address), romeo.jid
    romeo.send(f"<presence to='{to}'><show>chat</show></presence>")
    (hers,) = await juliet.arrived()
    assert (hers.get("from"), hers.get("to")) == (jid.full, to)
    romeo.send("<presence><show>away</show></presence>" if available else " ")
    assert await juliet.arrived() == [], "changes are for subscribers"
    if how == "drop":
        romeo.drop()
    else:
        romeo.send("<presence type='unavailable'/>")
    (farewell,) = await juliet.arrived()
    assert (farewell.get("from"), farewell.get("to"), farewell.get("type")) == (jid.full, to, "unavailable")
    if how == "unavailable":
        romeo.drop()
        assert await juliet.arrived() == [], "told once"


async def test_directed_unavailable_ends_it(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    romeo.send(f"<presence to='{juliet.jid}'/><presence to='{juliet.jid}' type='unavailable'/>")
    assert story(await juliet.arrived()) == ["available", "unavailable"]
    assert not romeo.session.directed
    romeo.drop()
    assert await juliet.arrived() == []


async def test_subscribers_need_no_remembering(server):
    romeo, juliet = await friends(server)
    await juliet.available()
    await romeo.available()
    juliet.raw()
    romeo.send(f"<presence to='{juliet.jid.bare}'/><presence to='{romeo.jid.bare}'/>")
    assert story(await juliet.arrived()) == ["available"]
    assert not romeo.session.directed
    romeo.drop()
    assert story(await juliet.arrived()) == ["unavailable"]


async def test_directed_presence_is_bounded(server):
    romeo = server.login("romeo")
    for number in range(3):
        romeo.send(f"<presence to='user{number}@{HOST}'/>")
    romeo.send(f"<presence to='user1@{HOST}'/>")
    assert await romeo.arrived() == []
    romeo.send(f"<presence to='user3@{HOST}'/>")
    assert condition((await romeo.arrived())[0]) == "resource-constraint/wait"
    romeo.send(f"<presence to='user1@{HOST}' type='unavailable'/><presence to='user3@{HOST}'/>")
    assert await romeo.arrived() == []
    assert len(romeo.session.directed) == 3


async def test_directed_presence_that_goes_nowhere(server):
    romeo = server.login("romeo")
    romeo.send(f"<presence to='nobody@{HOST}'/><presence to='nobody@{HOST}/x'/><presence to='{HOST}'/>")
    assert await romeo.arrived() == []
    romeo.drop()
    romeo = server.login("romeo")
    romeo.send("<presence to='juliet@unknown.example'/>")
    assert condition((await romeo.arrived())[0]) == "remote-server-not-found/cancel"
    assert not romeo.session.directed


async def test_errors_reach_the_resource_they_are_for(server):
    romeo, juliet = await server.online("romeo"), await server.online("juliet")
    juliet.send(f"<presence to='{romeo.jid}' type='error'/><presence to='{romeo.jid.bare}' type='error'/>")
    juliet.send("<presence type='error'/><presence to='a@unknown.example' type='error'/>")
    assert seen(await romeo.arrived()) == [(juliet.jid.full, "error")]
    assert juliet.stanzas() == []


async def test_directed_presence_keeps_its_place_behind_subscription_stanzas(server):
    """What one user sends another arrives in order, although the first stanza has to wait for the storage."""
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await romeo.iq("get", "<query xmlns='jabber:iq:roster'/>")
    server.storage.invalidate_all()
    romeo.send(
        f"<presence to='{juliet.jid.bare}' type='subscribe'/><presence to='{juliet.jid}'/>"
        f"<presence to='{juliet.jid}' type='unavailable'/>"
    )
    assert story(await juliet.arrived()) == ["subscribe", "available", "unavailable"]


# ------------------------------------------------------------------------------------------------------------- cost


async def test_a_login_costs_as_much_as_there_are_contacts_online(server, monkeypatch):
    """A hundred contacts, three of them online, and their rosters at hand: three stanzas each way, one read."""
    names = [f"friend{number}" for number in range(100)]
    romeo = server.login("romeo")
    online = [await server.online(name) for name in names[:3]]
    for name in names:
        contact = f"{name}@{HOST}"
        await rosters(server).set_item("romeo", contact, subscription="both")
        await rosters(server).set_item(name, romeo.jid.bare, subscription="both")
    server.storage.invalidate_all()
    for client in online:
        await client.iq("get", "<query xmlns='jabber:iq:roster'/>")
    backend = server.storage._backend
    read = Mock(side_effect=backend.read)
    monkeypatch.setattr(backend, "read", read)
    routed = server.server.metrics.presences.value
    nodes = await romeo.available()
    assert [call.args[1][1] for call in read.call_args_list] == ["romeo"]
    assert server.server.metrics.presences.value == routed + 6
    assert len(seen(nodes)) == 4
    assert RosterModule.of(server.host).peek("friend50") is None


async def test_an_idle_session_holds_one_stanza_and_no_containers(server):
    romeo = await server.online("romeo", inner="<priority>1</priority><c xmlns='urn:caps'/>")
    session = romeo.session
    assert session.presence._tree is None
    assert session.directed is None
    assert session.extra is None

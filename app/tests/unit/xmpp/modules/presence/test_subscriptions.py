"""Conversations about subscriptions (RFC 6121 section 3)."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.modules.presence.module import STRANGER_TIME
from monktalk.xmpp.modules.roster import Item
from monktalk.xmpp.modules.roster.store import TABLE
from monktalk.xmpp.modules.roster.value import CODEC
from tests.support.inproc import HOST, OTHER_HOST, condition, site
from tests.support.presence import (
    ISOLATED,
    MODULES,
    befriend,
    interested,
    item,
    roster,
    rosters,
    seen,
    story,
)


@pytest.fixture
async def server():
    async with site(MODULES, "[modules.presence]\nmax_pending = 3\n") as running:
        yield running


def ask(client, to, kind="subscribe", inner=""):
    client.send(f"<presence to='{to}' type='{kind}'>{inner}</presence>")


async def test_request_approval_and_presence(server):
    """RFC 6121, 3.1, in the order that it demands."""
    romeo, juliet = await server.online("romeo"), await server.online("juliet")
    await interested(romeo)
    await interested(juliet)

    ask(romeo, juliet.jid.bare, inner="<status>please</status>")
    assert story(await romeo.arrived()) == ["push none+subscribe"]
    (request,) = juliet.stanzas()
    assert (request.get("from"), request.get("to")) == (romeo.jid.bare, juliet.jid.bare)
    assert request.findtext("{jabber:client}status") == "please"

    ask(juliet, romeo.jid.bare, "subscribed")
    assert story(await juliet.arrived()) == ["push from"]
    assert story(romeo.stanzas()) == ["subscribed", "push to", "available"]

    ask(juliet, romeo.jid.bare)
    await server.settled()
    assert story(romeo.stanzas()) == ["subscribe"]
    ask(romeo, juliet.jid.bare, "subscribed")
    await server.settled()
    assert story(romeo.stanzas()) == ["push both"]
    assert story(juliet.stanzas()) == ["push from+subscribe", "subscribed", "push both", "available"]


async def test_cancellation(server):
    """RFC 6121, 3.2: unavailable while still subscribed, then unsubscribed, then the push."""
    romeo, juliet = await interested(await server.online("romeo")), await interested(await server.online("juliet"))
    await befriend(server, romeo, juliet)
    romeo.raw(), juliet.raw()
    ask(romeo, juliet.jid.bare, "unsubscribed")
    assert story(await romeo.arrived()) == ["push to"]
    assert story(juliet.stanzas()) == ["unavailable", "unsubscribed", "push from"]


async def test_unsubscribing(server):
    """RFC 6121, 3.3: the contact is told, pushed the change, and his presence ends for the user."""
    romeo, juliet = await interested(await server.online("romeo")), await interested(await server.online("juliet"))
    await befriend(server, romeo, juliet)
    romeo.raw(), juliet.raw()
    ask(romeo, juliet.jid.bare, "unsubscribe")
    nodes = await romeo.arrived()
    assert story(nodes) == ["push from", "unavailable"]
    assert seen(nodes) == [(juliet.jid.full, "unavailable")]
    assert story(juliet.stanzas()) == ["unsubscribe", "push to"]


async def test_every_resource_shows_and_hides(server):
    romeo = await server.online("romeo")
    home, work = await server.online("juliet", "home"), await server.online("juliet", "work")
    server.login("juliet", "invisible")
    ask(romeo, home.jid.bare)
    await server.settled()
    ask(home, romeo.jid.bare, "subscribed")
    assert sorted(seen(await romeo.arrived()), key=str) == [(home.jid.full, None), (work.jid.full, None)]
    await interested(romeo)
    ask(work, romeo.jid.bare, "unsubscribed")
    nodes = await romeo.arrived()
    assert seen(nodes)[:2] == [(home.jid.full, "unavailable"), (work.jid.full, "unavailable")]
    assert seen(nodes)[2:] == [(home.jid.bare, "unsubscribed")]


async def test_requests_go_to_available_resources_answers_to_interested_ones(server):
    romeo, asked_for = server.login("romeo", "quiet"), server.login("romeo", "listening")
    await interested(asked_for)
    juliet, silent = await server.online("juliet", "here"), server.login("juliet", "silent")
    await interested(silent)
    ask(romeo, juliet.jid.bare)
    await server.settled()
    assert story(juliet.stanzas()) == ["subscribe"]
    assert story(silent.stanzas()) == []
    ask(juliet, romeo.jid.bare, "subscribed")
    await server.settled()
    assert story(asked_for.stanzas()) == ["push none+subscribe", "subscribed", "push to"]
    assert story(romeo.stanzas()) == []
    assert story(silent.stanzas()) == ["push from"]


async def test_a_request_waits_until_it_is_answered(server):
    romeo = await server.online("romeo")
    juliet = server.login("juliet")
    ask(romeo, juliet.jid.bare, inner="<status>please</status>")
    assert await juliet.arrived() == []
    for resource in ("one", "two"):
        client = server.login("juliet", resource)
        (request,) = [node for node in await client.available() if node.get("type") == "subscribe"]
        assert (request.get("from"), request.get("to")) == (romeo.jid.bare, juliet.jid.bare)
        assert request.findtext("{jabber:client}status") == "please"
        client.send("<presence><show>away</show></presence>")
        assert story(await client.arrived()) == ["available"], "asked once, not with every change"
    ask(client, romeo.jid.bare, "unsubscribed")
    await romeo.arrived()
    assert story(await server.login("juliet", "three").available()).count("subscribe") == 0


async def test_a_request_that_is_repeated_is_not_delivered_again(server):
    romeo, juliet = await server.online("romeo"), await server.online("juliet")
    for _ in range(2):
        ask(romeo, juliet.jid.bare)
    assert story(await juliet.arrived()) == ["subscribe"]


async def test_a_request_is_answered_at_once_where_there_is_a_subscription(server):
    """The user's roster has lost it, the contact's has not."""
    romeo, juliet = await interested(await server.online("romeo")), await interested(await server.online("juliet"))
    await rosters(server).set_item("juliet", romeo.jid.bare, subscription="from")
    juliet.raw()
    ask(romeo, juliet.jid.bare)
    assert story(await romeo.arrived()) == ["push none+subscribe", "subscribed", "push to", "available"]
    assert juliet.stanzas() == []


async def test_no_more_than_so_many_requests_wait(server):
    juliet = server.login("juliet")
    for number in range(5):
        ask(server.login(f"user{number}"), juliet.jid.bare)
        await server.settled()
    assert set((await roster(server, juliet)).requests) == {f"user{number}@{HOST}" for number in range(3)}
    assert story(await juliet.available()).count("subscribe") == 3
    ask(server.login("late"), juliet.jid.bare)
    assert story(await juliet.arrived()) == ["subscribe"]


async def test_requests_at_the_same_time_are_all_kept(server):
    """Ten users ask, one of them twice and one withdraws: nothing is lost, and each user's stanzas keep their order."""
    async with site(MODULES) as running:
        juliet = running.login("juliet")
        askers = [running.login(f"user{number}") for number in range(10)]
        for asker in askers:
            ask(asker, juliet.jid.bare)
        ask(askers[3], juliet.jid.bare)
        ask(askers[7], juliet.jid.bare, "unsubscribe")
        await running.settled()
        waiting = set((await roster(running, juliet)).requests)
        assert waiting == {asker.jid.bare for asker in askers} - {askers[7].jid.bare}


async def test_both_approve_each_other_at_the_same_time(server):
    romeo, juliet = await server.online("romeo"), await server.online("juliet")
    for one, other in ((romeo, juliet), (juliet, romeo)):
        ask(one, other.jid.bare)
    await server.settled()
    for one, other in ((romeo, juliet), (juliet, romeo)):
        ask(one, other.jid.bare, "subscribed")
    await server.settled()
    assert await item(server, romeo, juliet) == await item(server, juliet, romeo) == Item("both")


async def test_a_stanza_is_handled_with_all_its_consequences_before_the_next(server):
    """Whoever has an answer to what he sent later knows that the contact's roster is up to date."""
    romeo, juliet = server.login("romeo"), server.login("juliet")
    ask(romeo, juliet.jid.bare)
    romeo.send("<iq type='get' id='after'><query xmlns='jabber:iq:roster'/></iq>")
    written = romeo.link.write
    kept = []

    def look(data):
        if b"id='after'" in data:
            kept.append(rosters(server).peek("juliet"))
        written(data)

    romeo.link.write = look
    await server.settled()
    (then,) = kept
    assert then is not None
    assert set(then.requests) == {romeo.jid.bare}


# --------------------------------------------------------------------------------------------------- pre-approval


async def test_pre_approval(server):
    romeo, juliet = await server.online("romeo"), await interested(await server.online("juliet"))
    await interested(romeo)
    ask(juliet, romeo.jid.bare, "subscribed")
    (pushed,) = await juliet.arrived()
    assert pushed[0][0].get("approved") == "true"
    assert await romeo.arrived() == []
    ask(romeo, juliet.jid.bare)
    assert story(await romeo.arrived()) == ["push none+subscribe", "subscribed", "push to", "available"]
    assert story(juliet.stanzas()) == ["push from"]
    assert await item(server, juliet, romeo) == Item("from", approved=True)


async def test_an_answered_probe_does_not_take_pre_approval_back(server):
    """RFC 6121, 4.3.2: rosters disagree, the contact's server says unsubscribed."""
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await rosters(server).set_item("romeo", juliet.jid.bare, subscription="to")
    ask(romeo, juliet.jid.bare, "subscribed")
    await server.settled()
    await romeo.available()
    assert await item(server, romeo, juliet) == Item("none", approved=True)


# ------------------------------------------------------------------------------------------- who cannot be asked


async def test_how_long_the_contact_s_server_takes_says_nothing_to_strangers(server):
    """What the user sends next is handled after the same time, whether there is such an account or not."""
    romeo = await server.online("romeo")
    stuck, answered = asyncio.Event(), asyncio.Event()
    server.accounts().exists = lambda user: stuck.wait()
    written = romeo.link.write

    def look(data):
        written(data)
        if b"id='next'" in data:
            answered.set()

    romeo.link.write = look
    loop = asyncio.get_running_loop()
    began = loop.time()
    ask(romeo, f"juliet@{HOST}")
    romeo.send("<iq type='get' id='next'><query xmlns='jabber:iq:roster'/></iq>")
    async with asyncio.timeout(5):
        await answered.wait()
    assert loop.time() - began >= STRANGER_TIME - 0.005
    stuck.set()


async def test_among_friends_the_next_stanza_waits_for_the_contact_s_roster(server):
    romeo, juliet = server.login("romeo"), server.login("juliet")
    await befriend(server, romeo, juliet)
    began = asyncio.get_running_loop().time()
    ask(romeo, juliet.jid.bare, "unsubscribed")
    await server.settled()
    assert asyncio.get_running_loop().time() - began < STRANGER_TIME
    assert await item(server, juliet, romeo) == Item("from")


async def test_absent_accounts_are_silent_and_leave_nothing(server):
    romeo = await server.online("romeo")
    ask(romeo, f"nobody@{HOST}")
    assert await romeo.arrived() == []
    assert await item(server, romeo, f"nobody@{HOST}") == Item(ask=True)
    assert not await rosters(server).has_roster("nobody")


async def test_while_the_authentication_service_is_away_requests_are_kept(server):
    romeo = await server.online("romeo")
    server.accounts().passwords["juliet"] = "secret"
    server.accounts().available = False
    ask(romeo, f"juliet@{HOST}")
    await server.settled()
    assert story(await server.login("juliet").available()).count("subscribe") == 1


async def test_the_host_refuses(server):
    romeo = await interested(await server.online("romeo"))
    ask(romeo, HOST)
    assert story(await romeo.arrived()) == ["push none+subscribe", "unsubscribed", "push none"]
    ask(romeo, HOST, "subscribed")
    ask(romeo, HOST, "unsubscribe")
    assert "error" not in story(await romeo.arrived())


@pytest.mark.parametrize("kind", ["subscribe", "subscribed", "unsubscribe", "unsubscribed"])
async def test_oneself(server, kind):
    romeo = await server.online("romeo")
    ask(romeo, romeo.jid.bare, kind)
    (answer,) = await romeo.arrived()
    assert condition(answer) == "not-allowed/cancel"
    assert (await roster(server, romeo)).items == {}


@pytest.mark.parametrize("kind", ["subscribe", "subscribed", "unsubscribe", "unsubscribed"])
async def test_nobody(server, kind):
    romeo = await server.online("romeo")
    romeo.send(f"<presence type='{kind}'/>")
    assert condition((await romeo.arrived())[0]) == "bad-request/modify"


async def test_unknown_domains(server):
    romeo = await interested(await server.online("romeo"))
    ask(romeo, "juliet@unknown.example")
    (answer,) = await romeo.arrived()
    assert (condition(answer), answer.get("from")) == ("remote-server-not-found/cancel", "juliet@unknown.example")
    assert (await roster(server, romeo)).items == {}
    await rosters(server).set_item("romeo", "juliet@unknown.example", subscription="both")
    ask(romeo, "juliet@unknown.example", "unsubscribed")
    ask(romeo, "juliet@unknown.example", "unsubscribe")
    assert story(await romeo.arrived()) == ["push both", "push to", "push none"]


async def test_across_hosts(server):
    romeo, juliet = await interested(await server.online("romeo")), await server.online("juliet", host=OTHER_HOST)
    ask(romeo, juliet.jid.bare)
    await server.settled()
    ask(juliet, romeo.jid.bare, "subscribed")
    nodes = await romeo.arrived()
    assert seen(nodes) == [(juliet.jid.bare, "subscribed"), (juliet.jid.full, None)]
    assert (await item(server, romeo, juliet), await item(server, juliet, romeo)) == (Item("to"), Item("from"))


async def test_not_across_isolated_hosts():
    async with site(MODULES, ISOLATED) as server:
        romeo, juliet = await server.online("romeo"), await server.online("juliet", host=OTHER_HOST)
        for one, other in ((romeo, juliet), (juliet, romeo)):
            ask(one, other.jid.bare)
            (answer,) = await one.arrived()
            assert condition(answer) == "remote-server-not-found/cancel"
            assert other.stanzas() == []


# ------------------------------------------------------------------------------------------------------ trouble


async def test_the_storage_is_away(server):
    romeo, juliet = await server.online("romeo"), await server.online("juliet")
    server.storage.set_available(False)
    ask(romeo, juliet.jid.bare)
    (answer,) = await romeo.arrived()
    assert condition(answer) == "resource-constraint/wait"
    assert juliet.stanzas() == []
    server.storage.set_available(True)
    ask(romeo, juliet.jid.bare)
    assert story(await juliet.arrived()) == ["subscribe"]


async def test_the_storage_fails_for_the_contact(server):
    """The client that has asked is told, although the stanza went out from the bare JID."""
    romeo, juliet = server.login("romeo"), server.login("juliet")
    values = server.storage.keyvalue(TABLE, CODEC, 1)
    put = values.put

    async def put_unless_juliet(host, owner, key, value, expected):
        if owner == "juliet":
            server.storage.set_available(False)
        return await put(host, owner, key, value, expected)

    values.put = put_unless_juliet
    ask(romeo, juliet.jid.bare)
    (answer,) = await romeo.arrived()
    assert (condition(answer), answer.get("from")) == ("resource-constraint/wait", juliet.jid.bare)


async def test_removing_a_contact_ends_everything(server):
    """RFC 6121, 2.5.2."""
    romeo, juliet = await interested(await server.online("romeo")), await interested(await server.online("juliet"))
    await befriend(server, romeo, juliet)
    romeo.raw(), juliet.raw()
    removed = f"<query xmlns='jabber:iq:roster'><item jid='{juliet.jid.bare}' subscription='remove'/></query>"
    romeo.send(f"<iq type='set' id='s'>{removed}</iq>")
    nodes = await romeo.arrived()
    assert story(nodes) == ["push remove", "unavailable", "iq"]
    assert story(juliet.stanzas()) == ["unavailable", "unsubscribe", "push to", "unsubscribed", "push none"]
    assert await item(server, juliet, romeo) == Item()


async def test_removing_one_who_waits_for_an_answer_denies_him(server):
    romeo, juliet = server.login("romeo"), await interested(server.login("juliet"))
    ask(juliet, romeo.jid.bare)
    await server.settled()
    await rosters(server).set_item("romeo", juliet.jid.bare, name="Juliet")
    juliet.raw()
    assert await rosters(server).remove_item("romeo", juliet.jid.bare)
    assert story(await juliet.arrived()) == ["unsubscribed", "push none"]
    assert (await roster(server, romeo)).requests == {}


async def test_what_another_worker_has_dealt_with_is_told_to_the_sessions_here(server):
    """A stanza was taken for a user who had no home, and has one by now."""
    romeo, juliet = await server.online("romeo"), await interested(await server.online("juliet"))
    told = server.host.hooks.note
    request = f"<presence from='{romeo.jid.bare}' to='{juliet.jid.bare}' type='subscribe'/>".encode()
    assert told("juliet", "presence.received", ("subscribe", romeo.jid.bare, request, False, False))
    assert seen(await juliet.arrived()) == [(romeo.jid.bare, "subscribe")]
    assert told("juliet", "presence.received", ("subscribe", romeo.jid.bare, b"", True, False))
    assert seen(await romeo.arrived()) == [(juliet.jid.full, None)]
    assert told("juliet", "presence.received", ("unsubscribe", romeo.jid.bare, b"", False, True))
    assert seen(await romeo.arrived()) == [(juliet.jid.full, "unavailable")]

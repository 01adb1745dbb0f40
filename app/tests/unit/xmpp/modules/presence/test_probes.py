"""Conversations about probes (RFC 6121 section 4.3)."""

from __future__ import annotations

import pytest

from tests.support.inproc import HOST, OTHER_HOST, site
from tests.support.presence import ISOLATED, MODULES, befriend, rosters, seen


@pytest.fixture
async def server():
    async with site(MODULES) as running:
        yield running


def probe(client, to):
    client.send(f"<presence to='{to}' type='probe'/>")


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("host", [HOST, OTHER_HOST])
async def test_a_subscriber_gets_the_presence_of_every_available_resource(server, host, cached):
    romeo, juliet = server.login("romeo"), await server.online("juliet", "one", "<show>away</show>", host=host)
    other = await server.online("juliet", "two", host=host)
    server.login("juliet", "silent", host=host)
    await befriend(server, romeo, juliet, "to")
    if not cached:
        server.storage.invalidate_all()
    juliet.raw()
    probe(romeo, juliet.jid.bare)
    nodes = await romeo.arrived()
    assert seen(nodes) == [(juliet.jid.full, None), (other.jid.full, None)]
    assert {node.get("to") for node in nodes} == {romeo.jid.full}
    assert nodes[0].findtext("{jabber:client}show") == "away"
    assert juliet.stanzas() == [], "the contact does not hear of it"
    probe(romeo, other.jid.full)
    assert seen(await romeo.arrived()) == [(other.jid.full, None)]


async def test_a_subscriber_is_told_that_the_contact_is_away(server):
    romeo, juliet = server.login("romeo"), server.login("juliet")
    await befriend(server, romeo, juliet, "to")
    probe(romeo, juliet.jid.bare)
    probe(romeo, juliet.jid.full)
    probe(romeo, f"{juliet.jid.bare}/tomb")
    assert seen(await romeo.arrived()) == [
        (juliet.jid.bare, "unavailable"),
        (juliet.jid.full, "unavailable"),
        (f"{juliet.jid.bare}/tomb", "unavailable"),
    ]


@pytest.mark.parametrize("resource", ["", "/balcony"])
async def test_strangers_learn_nothing(server, resource):
    """Whether the account is absent, offline, connected, or online: the same bytes, but for the name in them."""
    await server.online("online", "balcony")
    server.login("connected", "balcony")
    server.accounts().passwords["offline"] = "secret"
    await rosters(server).set_item("popular", f"nurse@{HOST}", subscription="both")
    romeo = server.login("romeo")
    answers = set()
    for name in ("online", "connected", "offline", "popular", "absent"):
        for _ in range(2):
            probe(romeo, f"{name}@{HOST}{resource}")
            await server.settled()
            (raw,) = romeo.raw()
            answers.add(raw.replace(name.encode(), b"NAME"))
    expected = f"<presence from='NAME@{HOST}' to='{romeo.jid.full}' type='unsubscribed'/>"
    assert answers == {expected.encode()}


async def test_strangers_are_answered_without_looking(server):
    """Reading the roster of the one who is asked for would take another time for accounts that are not online."""
    await server.online("online")
    romeo = await server.online("romeo")
    server.storage.invalidate_all()
    await rosters(server).get_roster("romeo")
    for name in ("online", "absent"):
        probe(romeo, f"{name}@{HOST}")
        assert seen(romeo.stanzas()) == [(f"{name}@{HOST}", "unsubscribed")], "at once"
        assert rosters(server).peek(name) is None


async def test_what_a_friend_sends_next_is_answered_after_the_probe(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await befriend(server, romeo, juliet, "to")
    server.storage.invalidate_all()
    probe(romeo, juliet.jid.bare)
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>")
    assert [node.tag.partition("}")[2] for node in await romeo.arrived()] == ["presence", "iq"]


async def test_rosters_that_disagree(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await rosters(server).set_item("romeo", juliet.jid.bare, subscription="to")
    probe(romeo, juliet.jid.bare)
    assert seen(await romeo.arrived()) == [(juliet.jid.bare, "unsubscribed")]


async def test_one_who_waits_for_an_answer_is_a_stranger_and_goes_on_waiting(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    romeo.send(f"<presence to='{juliet.jid.bare}' type='subscribe'/>")
    await server.settled()
    probe(romeo, juliet.jid.bare)
    assert seen(await romeo.arrived()) == [(juliet.jid.bare, "unsubscribed")]
    assert (await rosters(server).get_roster("romeo")).items[juliet.jid.bare].ask


async def test_one_who_was_sent_directed_presence_hears_of_that_resource(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet", "one")
    await server.online("juliet", "two")
    juliet.send(f"<presence to='{romeo.jid.full}'/>")
    await romeo.arrived()
    probe(romeo, juliet.jid.bare)
    assert seen(await romeo.arrived()) == [(juliet.jid.full, None)]


async def test_oneself(server):
    home, work = server.login("romeo", "home"), server.login("romeo", "work")
    probe(work, home.jid.bare)
    assert seen(await work.arrived()) == [(home.jid.bare, "unavailable")]
    await home.available()
    probe(work, home.jid.bare)
    assert seen(await work.arrived()) == [(home.jid.full, None)]


async def test_hosts_and_unknown_domains(server):
    romeo = server.login("romeo")
    probe(romeo, HOST)
    probe(romeo, OTHER_HOST)
    probe(romeo, "unknown.example")
    assert seen(await romeo.arrived()) == [
        (HOST, "unsubscribed"),
        (OTHER_HOST, "unsubscribed"),
        ("unknown.example", "error"),
    ]


async def test_nobody(server):
    romeo = server.login("romeo")
    romeo.send("<presence type='probe'/>")
    assert seen(await romeo.arrived()) == [(None, "error")]


async def test_isolated_hosts():
    async with site(MODULES, ISOLATED) as server:
        romeo, juliet = server.login("romeo"), await server.online("juliet", host=OTHER_HOST)
        await befriend(server, romeo, juliet)
        probe(romeo, juliet.jid.bare)
        assert seen(await romeo.arrived()) == [(juliet.jid.bare, "error")]


async def test_initial_presence_probes_contacts_whose_rosters_are_not_at_hand(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await befriend(server, romeo, juliet)
    server.storage.invalidate_all()
    await rosters(server).get_roster("romeo")
    assert seen(await romeo.available()) == [(romeo.jid.full, None), (juliet.jid.full, None)]


async def test_the_storage_is_away(server, caplog):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    await befriend(server, romeo, juliet)
    server.storage.invalidate_all()
    await rosters(server).get_roster("romeo")
    server.storage.set_available(False)
    assert seen(await romeo.available()) == [(romeo.jid.full, None)], "his own presence works from the cache"
    assert "probe_not_answered" in caplog.text
    probe(romeo, juliet.jid.bare)
    (answer,) = await romeo.arrived()
    assert answer.get("type") == "error"

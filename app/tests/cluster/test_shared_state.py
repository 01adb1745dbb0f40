"""What is written at one worker is what others read, at once and without loss."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.client import befriend
from tests.support.roster import Item, items_of, receives_push, set_item
from tests.support.stanzas import payload_of

pytestmark = pytest.mark.integration


async def test_a_change_of_the_roster_is_pushed_to_clients_at_all_workers(cluster, account):
    juliet = account("juliet")
    first, second = await cluster.at(0).login(juliet), await cluster.at(1).login(juliet)
    for client in (first, second):
        await client.roster()
    await set_item(second, "romeo@example.org", name="Romeo")
    for client in (first, second):
        jid, item, _ = await receives_push(client)
        assert (jid, item) == ("romeo@example.org", Item(name="Romeo"))


async def test_a_roster_is_remembered_by_no_worker_when_another_has_changed_it(cluster, account):
    juliet = account("juliet")
    for number in range(4):
        client = await cluster.at(number % 2).login(juliet)
        known = items_of(await client.roster())
        assert sorted(known) == [f"friend{earlier}@example.org" for earlier in range(number)]
        await set_item(client, f"friend{number}@example.org")
        await client.end()
        await _gone(cluster.at(number % 2), client)


async def _gone(server, client):
    """The session has ended, so that the next client finds another home."""
    async with asyncio.timeout(10):
        while f"session_closed jid={client.full}" not in server.log:
            await asyncio.sleep(0.01)


async def test_a_card_is_remembered_by_no_worker_when_another_has_changed_it(cluster, account):
    juliet, romeo = await cluster.at(0).login(account("juliet")), await cluster.at(1).login(account("romeo"))
    nurse = await cluster.at(0).login(account("nurse"))
    for name in ("Juliet", "Juliet C."):
        await juliet.set(f"<vCard xmlns='vcard-temp'><FN>{name}</FN></vCard>")
        for reader in (romeo, nurse):
            card = payload_of(await reader.get("<vCard xmlns='vcard-temp'/>", to=juliet.bare))
            assert card.findtext("{vcard-temp}FN") == name
    # Once more when she is away: then the readers' own workers answer.
    await juliet.end()
    await _gone(cluster.at(0), juliet)
    for reader in (romeo, nurse):
        card = payload_of(await reader.get("<vCard xmlns='vcard-temp'/>", to=juliet.bare))
        assert card.findtext("{vcard-temp}FN") == "Juliet C."


async def test_workers_that_write_one_roster_at_once_lose_nothing(cluster, account):
    """Requests for a user who is away are kept by the workers of those who ask."""
    juliet = account("juliet")
    suitors = [await cluster.at(number % 2).login(account("suitor")) for number in range(20)]
    await asyncio.gather(*(suitor.send(f"<presence to='{juliet.jid}' type='subscribe'/>") for suitor in suitors))
    for suitor in suitors:
        await suitor.settled()
    online = await cluster.at(0).online(juliet)
    asked = {node.get("from") for node in await online.drained() if node.get("type") == "subscribe"}
    assert asked == {suitor.bare for suitor in suitors}


async def test_a_subscription_changes_both_rosters_and_shows_presence(cluster, account):
    romeo, juliet = await cluster.at(0).login(account("romeo")), await cluster.at(1).login(account("juliet"))
    await befriend(romeo, juliet)
    assert items_of(await romeo.roster())[juliet.bare].subscription == "both"
    assert items_of(await juliet.roster())[romeo.bare].subscription == "both"
    await romeo.available()
    await juliet.available("<status>here</status>")
    await romeo.receives(f"<presence from='{juliet.full}' to='{romeo.bare}'><status>here</status></presence>")
    await juliet.receives(f"<presence from='{romeo.full}' to='{juliet.full}'/>")


async def test_a_stranger_s_probe_is_refused_wherever_the_user_is(cluster, auth_absent, account):
    tybalt = await cluster.at(0).login(account("tybalt"))
    elsewhere, here = await cluster.at(1).online(account("juliet")), await cluster.at(0).online(account("juliet"))
    away = account("juliet").jid
    for jid in (elsewhere.bare, here.bare, away, auth_absent):
        await tybalt.send(f"<presence to='{jid}' type='probe'/>")
        await tybalt.receives(f"<presence from='{jid}' to='{tybalt.full}' type='unsubscribed'/>")


@pytest.fixture
def auth_absent(cluster_auth):
    """The address of nobody."""
    return cluster_auth.absent().jid

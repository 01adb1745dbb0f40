"""The bus is away for a while, or in two parts: nothing stays wrong when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from tests.support.cable import Cable
from tests.support.client import befriend
from tests.support.nats import NatsServer
from tests.support.polling import eventually
from tests.support.sm import enable, managed, message, resume

pytestmark = pytest.mark.integration


async def stanza_of(client, name, **attributes):
    """The next stanza of that kind with those attributes, whatever comes before."""
    async with asyncio.timeout(20):
        while True:
            node = await client.next(20)
            if node.tag == f"{{jabber:client}}{name}" and all(node.get(key) == attributes[key] for key in attributes):
                return node


@pytest.fixture
def cluster(cluster_with):
    return cluster_with()


async def test_what_is_sent_while_it_is_away_arrives_when_it_is_back(cluster, account):
    romeo, juliet = await cluster.at(0).login(account("romeo")), await cluster.at(1).login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.available()
    await juliet.available()
    await juliet.drained()
    cluster.cluster.nats.stop()
    await romeo.send(message("while it is away", juliet.full))
    await romeo.answered()
    cluster.cluster.nats.start()
    late = await stanza_of(juliet, "message")
    assert late.findtext("{jabber:client}body") == "while it is away"
    await romeo.send(message("as usual", juliet.full))
    assert (await stanza_of(juliet, "message")).findtext("{jabber:client}body") == "as usual"
    await juliet.send("<presence><show>away</show></presence>")
    while (await stanza_of(romeo, "presence", **{"from": juliet.full})).findtext("{jabber:client}show") != "away":
        pass


async def test_a_request_for_a_subscription_is_not_forgotten(cluster, account):
    romeo, juliet = await cluster.at(0).login(account("romeo")), await cluster.at(1).online(account("juliet"))
    await juliet.roster()
    cluster.cluster.nats.stop()
    await romeo.send(f"<presence to='{juliet.bare}' type='subscribe'/>")
    await romeo.answered()
    cluster.cluster.nats.start()
    await stanza_of(juliet, "presence", **{"from": romeo.bare, "type": "subscribe"})
    await romeo.roster()
    await juliet.send(f"<presence to='{romeo.bare}' type='subscribed'/>")
    await stanza_of(romeo, "presence", **{"from": juliet.bare, "type": "subscribed"})


async def test_a_relayed_client_comes_anew_when_something_of_it_was_lost(cluster, account):
    juliet = account("juliet")
    home = await cluster.at(0).online(juliet)
    relayed = await cluster.at(1).online(juliet)
    await home.receives(f"<presence from='{relayed.full}' to='{relayed.bare}'/>")
    cluster.cluster.nats.stop()
    async with asyncio.timeout(10):
        await relayed.receives(f"<presence from='{home.full}' to='{relayed.full}'/>")
        while not await relayed.wire.heard(0.1):
            await relayed.send(message("lost?", home.full))
    await relayed.stream_error("system-shutdown")
    cluster.cluster.nats.start()
    await stanza_of(home, "presence", **{"from": relayed.full, "type": "unavailable"})
    again = await cluster.at(1).online(juliet)
    await stanza_of(home, "presence", **{"from": again.full})


@pytest.fixture
def halves(tmp_path):
    """Two servers of NATS, and the cable between them."""
    one = NatsServer(tmp_path, "one")
    cable = Cable(one.route)
    yield (one, NatsServer(tmp_path, "two", routes=(cable.port,))), cable
    cable.close()


@pytest.fixture
async def divided(cluster_with, halves):
    """A cluster whose workers are clients of different servers of NATS, and the cable between them."""
    buses, cable = halves
    cluster = cluster_with(buses=buses)
    await _together(cluster)
    return cluster, cable


async def _together(cluster):
    """The workers know each other."""
    async with asyncio.timeout(20):
        while not all("worker_joined" in cluster.at(number).program.log_text() for number in range(2)):
            await asyncio.sleep(0.05)


async def _apart(cluster):
    """The workers have missed each other."""
    async with asyncio.timeout(20):
        while not all("worker_gone" in cluster.at(number).log for number in range(2)):
            await asyncio.sleep(0.05)


async def test_of_two_homes_one_is_left(divided, account):
    """Each half has taken the sessions of the other for those of the dead; in the end clients at both meet again."""
    cluster, cable = divided
    juliet = account("juliet")
    older = await cluster.at(0).online(juliet)
    await eventually(lambda: _written(cluster.cluster, juliet.user), bool, "the session is written down")
    cable.cut()
    await _apart(cluster)
    await cluster.at(1).online(juliet)
    cable.mend()
    await older.stream_error("system-shutdown")
    await eventually(lambda: _meet(cluster, juliet), bool, "clients at both workers see each other", 30)
    romeo = await cluster.at(0).login(account("romeo"))
    clients = await _meet(cluster, juliet)
    assert clients
    await romeo.send(message("hi", juliet.jid))
    for client in clients:
        assert (await stanza_of(client, "message")).findtext("{jabber:client}body") == "hi"


async def _meet(cluster, account):
    """Two clients of a user, each at its worker, if they see each other; None while the homes are in dispute."""
    try:
        one, other = [await cluster.at(number).online(account) for number in range(2)]
        await stanza_of(one, "presence", **{"from": other.full})
        await stanza_of(other, "presence", **{"from": one.full})
    except (AssertionError, TimeoutError):
        return None
    return one, other


async def _written(programs, user):
    with contextlib.closing(sqlite3.connect(programs.database)) as database:
        return database.execute("select count(*) from sessions where username = ?", (user,)).fetchone()[0]


async def test_a_session_of_the_younger_home_goes_on_at_the_older_one(divided, account):
    cluster, cable = divided
    juliet = account("juliet")
    older = await cluster.at(0).online(juliet, priority=-1)
    cable.cut()
    younger = await cluster.at(1).login(juliet)
    token = await enable(younger)
    await younger.available()
    cable.mend()
    await younger.stream_error("system-shutdown")
    again = await resume(cluster.at(1), younger, token, 1)
    romeo = await cluster.at(1).login(account("romeo"))
    await romeo.send(message("hi", younger.full))
    assert (await stanza_of(again, "message")).findtext("{jabber:client}body") == "hi"
    await older.settled()


async def test_a_short_division_is_noticed_too(divided, account):
    """A new home says once more that it is one, later than others are missed."""
    cluster, cable = divided
    juliet = account("juliet")
    older = await cluster.at(0).online(juliet)
    cable.cut()
    younger = await cluster.at(1).online(juliet)
    cable.mend()
    await younger.stream_error("system-shutdown")
    await older.settled()


async def test_workers_that_come_back_one_after_the_other_are_not_taken_for_dead(cluster, account):
    """The bus was away for a moment: all sessions go on, whoever is the first to be back."""
    romeo, _ = await managed(cluster.at(0), account, "romeo")
    juliet, _ = await managed(cluster.at(1), account)
    for number in range(3):
        cluster.cluster.nats.stop()
        cluster.cluster.nats.start()
        for sender, recipient in ((romeo, juliet), (juliet, romeo)):
            await sender.send(message(str(number), recipient.full))
        for client in (romeo, juliet):
            assert (await stanza_of(client, "message")).findtext("{jabber:client}body") == str(number)
    for client in (romeo, juliet):
        await client.settled()
    assert "session_superseded" not in cluster.log
    assert "sessions_adopted" not in cluster.log

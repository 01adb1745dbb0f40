"""Workers end, in good order or killed: what clients at them and at others see. See also :mod:`test_continuity`."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from tests.support.client import befriend
from tests.support.polling import eventually
from tests.support.sm import message

pytestmark = pytest.mark.integration

END = {"stopped": lambda worker: worker.stop(), "killed": lambda worker: worker.kill()}


@pytest.fixture
def cluster(cluster_with):
    return cluster_with()


@pytest.fixture(params=["stopped", "killed"])
def ends(cluster, request):
    """``ends(number)``: that worker ends."""
    return lambda number: END[request.param](cluster.cluster.workers[number])


async def sees(client, sender, kind):
    """The client receives that presence, whatever comes before."""
    async with asyncio.timeout(15):
        while True:
            node = await client.next(15)
            if node.tag.endswith("}presence") and (node.get("from"), node.get("type")) == (sender, kind):
                return


async def _written(programs, user):
    with contextlib.closing(sqlite3.connect(programs.database)) as database:
        return database.execute("select count(*) from sessions where username = ?", (user,)).fetchone()[0]


async def test_the_home_of_a_relayed_client_ends(cluster, account, ends):
    juliet = account("juliet")
    await cluster.at(0).login(juliet)
    relayed = await cluster.at(1).online(juliet)
    ends(0)
    await relayed.stream_error("system-shutdown")
    again = await cluster.at(1).online(juliet)
    romeo = await cluster.at(1).login(account("romeo"))
    await romeo.send(message("hi", again.bare))
    await again.receives(message("hi", again.bare, romeo.full))


async def test_the_worker_with_the_connection_of_a_relayed_client_ends(cluster, account, ends):
    juliet = account("juliet")
    home = await cluster.at(0).online(juliet)
    relayed = await cluster.at(1).online(juliet)
    ends(1)
    await sees(home, relayed.full, "unavailable")
    again = await cluster.at(0).online(juliet)
    await sees(home, again.full, None)


async def test_contacts_see_a_user_go_with_his_worker_and_come_back(cluster, account, ends):
    romeo, juliet = await cluster.at(0).login(account("romeo")), await cluster.at(1).login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.available()
    await juliet.available()
    await sees(romeo, juliet.full, None)
    await eventually(lambda: _written(cluster.cluster, juliet.user), bool, "the session is written down")
    ends(1)
    await sees(romeo, juliet.full, "unavailable")
    again = await cluster.at(0).online(juliet.account)
    await sees(romeo, again.full, None)
    await romeo.send(message("hi", again.full))
    while not (node := await again.next()).tag.endswith("}message"):
        pass
    assert node.findtext("{jabber:client}body") == "hi"

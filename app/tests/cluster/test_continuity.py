"""Nothing acknowledged is lost, and nothing comes twice, when workers end: in good order, or killed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from tests.support.client import befriend
from tests.support.cluster import Cluster
from tests.support.matching import SM
from tests.support.polling import eventually
from tests.support.server import Server
from tests.support.sm import bodies, enable, managed, message, resume

pytestmark = pytest.mark.integration

STORED = f"<r xmlns='{SM}'/>"


@pytest.fixture
def broken(tmp_path, cluster_auth):
    """Two workers that the test may break."""
    cluster = Cluster(tmp_path, cluster_auth).start()
    yield cluster
    cluster.stop()


class Views:
    """The workers, each as a server of its own: what a test waits for must not depend on one that is dead."""

    def __init__(self, cluster):
        self._servers = [Server(worker) for worker in cluster.workers]

    def at(self, number):
        return self._servers[number]

    async def close(self):
        for server in self._servers:
            await server.close()


@pytest.fixture
async def server(broken):
    views = Views(broken)
    yield views
    await views.close()


async def acknowledged(client, count):
    """The server has acknowledged so many stanzas."""
    client.skips_acks = False
    await client.send(STORED)
    while True:
        node = await client.next()
        if node.tag == f"{{{SM}}}a" and int(node.get("h")) >= count:
            client.skips_acks = True
            return


async def texts(client, count):
    """The bodies of the next messages; what is asked meanwhile is answered."""
    found = []
    while len(found) < count:
        node = await client.next()
        if node.tag.endswith("}message"):
            found.append(node.findtext("{jabber:client}body"))
    return found


async def test_a_killed_worker_loses_nothing_that_was_acknowledged(server, broken, account):
    romeo, _ = await managed(server.at(0), account, "romeo")
    juliet, token = await managed(server.at(1), account)
    await acknowledged(juliet, 1)
    for number in range(5):
        await romeo.send(message(str(number), juliet.full))
    await acknowledged(romeo, 6)
    assert await texts(juliet, 5) == list("01234")
    broken.workers[1].kill()
    await romeo.send(message("5", juliet.full))
    await acknowledged(romeo, 7)
    again = await resume(server.at(0), juliet, token, 1 + 3)
    assert await texts(again, 3) == ["3", "4", "5"]
    await again.send(message("back", romeo.full))
    assert await texts(romeo, 1) == ["back"]
    await again.settled()
    assert bodies(await again.drained()) == []


async def test_the_sender_s_worker_is_killed(server, broken, account):
    romeo, token = await managed(server.at(0), account, "romeo")
    await acknowledged(romeo, 1)
    juliet, _ = await managed(server.at(1), account)
    for number in range(3):
        await romeo.send(message(str(number), juliet.full))
    await acknowledged(romeo, 4)
    await romeo.send(message("3", juliet.full))
    assert await texts(juliet, 4) == list("0123")
    broken.workers[0].kill()
    again = await resume(server.at(1), romeo, token, 1)
    assert again.handled >= 4
    for number in range(again.handled - 1, 6):
        await again.send(message(str(number), juliet.full))
    assert await texts(juliet, 2) == ["4", "5"]
    await again.settled()
    await juliet.settled()
    assert bodies(await juliet.drained()) == []


async def test_a_worker_that_is_stopped_leaves_its_sessions_to_the_others(server, broken, account):
    romeo, _ = await managed(server.at(0), account, "romeo")
    juliet, token = await managed(server.at(1), account)
    await acknowledged(juliet, 1)
    await befriend(romeo, juliet)
    await romeo.drained()
    await romeo.send(message("before", juliet.full))
    await texts(juliet, 1)
    assert broken.workers[1].stop() == 0
    await romeo.send(message("after", juliet.full))
    again = await resume(server.at(0), juliet, token, 2)
    received = await texts(again, 1)
    assert received in (["before"], ["after"])
    assert not [node for node in await romeo.drained() if node.get("type") == "unavailable"]


async def test_contacts_hear_of_the_end_of_sessions_that_can_not_be_resumed(server, broken, account):
    romeo, juliet = await server.at(0).login(account("romeo")), await server.at(1).login(account("juliet"))
    await befriend(romeo, juliet)
    await juliet.available()
    await romeo.available()
    await asyncio.wait_for(_seen(romeo, juliet.full, None), 10)
    await eventually(lambda: _written(broken, juliet.user), bool, "the session is written down")
    broken.workers[1].kill()
    await asyncio.wait_for(_seen(romeo, juliet.full, "unavailable"), 10)


async def _written(cluster, user):
    with contextlib.closing(sqlite3.connect(cluster.database)) as database:
        return database.execute("select count(*) from sessions where username = ?", (user,)).fetchone()[0]


async def _seen(client, sender, kind):
    while True:
        node = await client.next()
        if node.tag.endswith("}presence") and node.get("from") == sender and node.get("type") == kind:
            return


async def test_who_never_comes_back_to_his_session_gets_what_waits_in_the_next_one(server, broken, account):
    romeo, _ = await managed(server.at(0), account, "romeo")
    juliet, _ = await managed(server.at(1), account)
    await romeo.send(message("hello", juliet.full))
    await acknowledged(romeo, 2)
    broken.workers[1].kill()
    fresh = await server.at(0).login(juliet.account, juliet.full.partition("/")[2])
    await enable(fresh)
    await fresh.available()
    assert await texts(fresh, 1) == ["hello"]

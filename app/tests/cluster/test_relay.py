"""A second client of a user, whose connection ends at another worker than the one where the user's sessions are."""

from __future__ import annotations

import pytest

from tests.support.sm import bodies, enable, message, resume

pytestmark = pytest.mark.integration

KIB = 1024
LARGEST = "x" * (255 * KIB)
"""A body that makes the largest stanza that is taken, with its tags."""

TIGHT = {
    "limits": {"write_buffer": "64 KiB", "write_time": "1 s", "rate": 0},
    "stream_management": {"queue": 20, "queue_size": "256 KiB"},
}


@pytest.fixture
async def juliet(cluster, account):
    """An account with a session that is not available, at the first worker: that is the home."""
    return (await cluster.at(0).login(account("juliet"), "home")).account


async def test_the_resource_of_a_relayed_client_is_taken_over(cluster, juliet):
    older = await cluster.at(1).online(juliet, "balcony")
    newer = await cluster.at(0).online(juliet, "balcony")
    await older.stream_error("conflict")
    await newer.settled()


async def test_a_relayed_client_takes_a_resource_over(cluster, juliet):
    older = await cluster.at(0).online(juliet, "balcony")
    newer = await cluster.at(1).online(juliet, "balcony")
    await older.stream_error("conflict")
    await newer.settled()


async def test_own_resources_see_each_other_come_and_go(cluster, juliet):
    first = await cluster.at(0).online(juliet)
    second = await cluster.at(1).online(juliet)
    await first.receives(f"<presence from='{second.full}' to='{second.bare}'/>")
    await second.receives(f"<presence from='{first.full}' to='{second.full}'/>")
    second.drop()
    await first.receives(f"<presence from='{second.full}' to='{second.bare}' type='unavailable'/>")


@pytest.mark.parametrize("worker", [0, 1])
async def test_a_session_is_resumed_at_any_worker(cluster, account, juliet, worker):
    romeo = await cluster.at(1).login(account("romeo"))
    lost = await cluster.at(1).login(juliet)
    token = await enable(lost)
    await lost.available()
    lost.drop()
    await romeo.send(message("one", lost.full))
    again = await resume(cluster.at(worker), lost, token, 1)
    await romeo.send(message("two", lost.full))
    await again.receives(message("one", lost.full, romeo.full))
    await again.receives(message("two", lost.full, romeo.full))
    await again.send(message("three", romeo.full))
    await romeo.receives(message("three", romeo.full, lost.full))


async def test_a_connection_that_is_replaced_by_resumption_is_closed(cluster, juliet):
    old = await cluster.at(1).login(juliet)
    token = await enable(old)
    again = await resume(cluster.at(0), old, token, 0)
    await old.stream_error("conflict")
    await again.settled()


async def test_the_largest_stanza_goes_all_the_way(cluster, account, juliet):
    sender = await cluster.at(1).login(juliet)
    romeo = account("romeo")
    await cluster.at(1).login(romeo)
    recipient = await cluster.at(0).online(romeo)
    await sender.send(message(LARGEST, recipient.full))
    received = await recipient.next()
    assert (received.get("from"), received.findtext("{jabber:client}body")) == (sender.full, LARGEST)


async def test_a_stanza_that_is_too_large_ends_the_stream(cluster, juliet):
    client = await cluster.at(1).login(juliet)
    await client.send(message("x" * (300 * KIB), client.full))
    await client.stream_error("policy-violation")


async def test_what_is_sent_before_the_end_is_delivered(cluster, account, juliet):
    romeo = await cluster.at(0).online(account("romeo"))
    client = await cluster.at(1).login(juliet)
    await client.send(message("farewell", romeo.full))
    await client.end()
    await romeo.receives(message("farewell", romeo.full, client.full))


async def test_a_large_mailbox_does_not_overrun_a_relayed_client(cluster_with, account):
    cluster = cluster_with(TIGHT)
    romeo, juliet = await cluster.at(0).login(account("romeo")), account("juliet")
    for number in range(60):
        await romeo.send(message(f"{number}:{'x' * 50 * KIB}", juliet.jid))
    await romeo.settled()
    await cluster.at(0).login(juliet)
    client = await cluster.at(1).login(juliet)
    await client.send("<presence/>")
    found = []
    while len(found) < 60:
        node = await client.next()
        if node.tag.endswith("}message"):
            found.append(int(node.findtext("{jabber:client}body").partition(":")[0]))
    assert found == list(range(60))


async def test_a_relayed_client_that_does_not_read_is_cut_off(cluster_with, account):
    """What waits for it is bounded; others, and the user's other sessions, are served."""
    cluster = cluster_with(TIGHT)
    juliet = account("juliet")
    home = await cluster.at(0).online(juliet, priority=-1)
    deaf = await cluster.at(1).online(juliet)
    await home.receives(f"<presence from='{deaf.full}' to='{deaf.bare}'/>")
    romeo = await cluster.at(0).login(account("romeo"))
    for _ in range(600):
        await romeo.send(f"<message to='{deaf.full}' type='headline'><body>{'x' * 50 * KIB}</body></message>")
        if await home.wire.heard():
            break
    await home.receives(f"<presence from='{deaf.full}' to='{deaf.bare}' type='unavailable'/>")
    await romeo.send(message("still here", home.full))
    await home.receives(message("still here", home.full, romeo.full))
    assert bodies(await romeo.drained()) == []

"""A mailbox that is larger than what a connection or a session may hold is delivered piece by piece (XEP-0160)."""

from __future__ import annotations

import pytest

KIB = 1024
LIMITS = {
    "limits": {"write_buffer": "64 KiB", "rate": 0},
    "stream_management": {"queue": 20, "queue_size": "256 KiB"},
}


async def fill(server, account, messages: int, size: int):
    """An account for which that many messages wait, each with a body of so many bytes and its number in front."""
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    for number in range(messages):
        await romeo.send(f"<message to='{juliet.jid}' type='chat'><body>{number}:{'x' * size}</body></message>")
    await romeo.settled()
    return juliet


async def numbers(client, messages: int) -> list[int]:
    """The numbers of the next messages, in the order in which they come. Acknowledges them as clients do."""
    found: list[int] = []
    handled = 0
    while len(found) < messages:
        node = await client.next()
        if node.tag.endswith("}message"):
            found.append(int((node.findtext("{jabber:client}body") or "").partition(":")[0]))
        if node.tag.endswith("}r"):
            await client.send(f"<a xmlns='urn:xmpp:sm:3' h='{handled}'/>")
        else:
            handled += 1
    return found


@pytest.mark.parametrize("managed", [False, True], ids=["without stream management", "with stream management"])
async def test_a_large_mailbox(server_with, account, managed):
    server = server_with(LIMITS)
    juliet = await fill(server, account, 60, 50 * KIB)
    client = await server.login(juliet)
    if managed:
        client.skips_acks = False
        await client.send("<enable xmlns='urn:xmpp:sm:3'/>")
        await client.receives("<enabled xmlns='urn:xmpp:sm:3'/>")
    await client.send("<presence/>")
    assert await numbers(client, 60) == list(range(60))
    again = await server.online(juliet)
    assert [node for node in await again.drained() if node.tag.endswith("}message")] == []


async def test_a_client_that_goes_away_in_the_middle_loses_nothing(server_with, account):
    server = server_with(LIMITS)
    juliet = await fill(server, account, 60, 50 * KIB)
    client = await server.login(juliet)
    await client.send("<presence/>")
    await numbers(client, 3)
    client.drop()
    again = await server.login(juliet)
    await again.send("<presence/>")
    found = await numbers(again, 1)
    assert found[0] > 0, "what was surely taken does not come again"
    found += await numbers(again, 60 - found[0] - 1)
    assert found == list(range(found[0], 60))

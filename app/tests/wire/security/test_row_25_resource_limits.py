"""Row 25: nobody uses more than his share (XEP-0205). Limits of single features are in their own files."""

from __future__ import annotations

import time

import pytest

from tests.support.client import BIND, Client
from tests.support.matching import STREAM
from tests.support.memory import KIB, MIB
from tests.support.stanzas import condition_of
from tests.support.wire import ConnectionEnd


async def is_served(client: Client) -> bool:
    """Whether the server opens a stream, or hangs up (with or without an explanation)."""
    try:
        await client.send(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='localhost' version='1.0' "
            f"xmlns:stream='{STREAM}'>"
        )
    except ConnectionError:
        return False
    while not isinstance(event := await client.wire.event(), ConnectionEnd):
        if getattr(event, "tag", "") == f"{{{STREAM}}}features":
            return True
    return False


@pytest.mark.one_worker("each worker counts its own connections")
async def test_connections_from_one_address(server_with):
    server = server_with({"limits": {"connections_per_address": 5}})
    clients = [await server.connect(source="127.0.0.21") for _ in range(5)]
    assert all([await is_served(client) for client in clients])
    assert not await is_served(await server.connect(source="127.0.0.21"))
    assert await is_served(await server.connect(source="127.9.0.22")), "others are served"
    await clients[0].wire.close()
    deadline = time.monotonic() + 5
    while not await is_served(await server.connect(source="127.0.0.21")):
        assert time.monotonic() < deadline, "a place that was given up can be taken again"


@pytest.mark.one_worker("each worker counts its own connections")
async def test_connections_at_all(server_with):
    server = server_with({"limits": {"connections": 6}})
    clients = [await server.connect(source=f"127.{number}.0.1") for number in range(1, 7)]
    assert all([await is_served(client) for client in clients])
    assert not await is_served(await server.connect(source="127.99.0.1"))


async def test_sessions_of_an_account(server_with, account):
    server = server_with({"limits": {"sessions_per_account": 2}})
    romeo = account("romeo")
    for _ in range(2):
        await server.login(romeo)
    third = await server.authenticated(romeo)
    assert condition_of(await third.set(f"<bind xmlns='{BIND}'/>")) == "resource-constraint"


@pytest.mark.one_worker("a limit of one connection")
async def test_login_attempts_of_a_stream(server_with, account):
    server = server_with({"limits": {"auth_attempts": 1}})
    client = await server.stream()
    await client.sasl(account("romeo"), password="wrong")
    await client.stream_error("policy-violation")


@pytest.mark.one_worker("a limit of one connection")
async def test_a_client_that_sends_too_fast_is_slowed_down(server_with, account):
    """Bytes above the rate wait, except those that have been read already; nothing is lost."""
    server = server_with({"limits": {"rate": "256 KiB", "burst": "256 KiB"}})
    romeo = await server.online(account("romeo"))
    began = time.monotonic()
    for number in range(10):
        await romeo.send(f"<message to='{romeo.full}' id='{number}'><body>{'x' * 100 * KIB}</body></message>")
    for number in range(10):
        assert (await romeo.next()).get("id") == str(number)
    assert 1.0 < time.monotonic() - began < 9


@pytest.mark.one_worker("a limit of one connection")
async def test_one_fast_client_does_not_slow_down_others(server_with, account):
    server = server_with({"limits": {"rate": "64 KiB", "burst": "64 KiB"}})
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    for _ in range(20):
        await romeo.send(f"<message to='{romeo.full}'><body>{'x' * 10 * KIB}</body></message>")
    began = time.monotonic()
    for _ in range(5):
        await juliet.settled()
    assert time.monotonic() - began < 1


async def test_a_client_that_does_not_read(server_with, account):
    """What waits for it is bounded, then it is cut off; the sender goes on."""
    server = server_with({"limits": {"write_buffer": "64 KiB", "write_time": "1 s"}})
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    other = await server.online(account("nurse"))
    await romeo.send(f"<presence to='{juliet.full}'/>")
    await juliet.send(f"<presence to='{romeo.full}'/>")
    await romeo.receives(f"<presence from='{juliet.full}' to='{romeo.full}'/>")
    before = server.program.rss()
    ended = False
    for _ in range(600):
        await romeo.send(f"<message to='{juliet.full}' type='headline'><body>{'x' * 50 * KIB}</body></message>")
        if await romeo.wire.heard():
            node = await romeo.next()
            assert (node.get("from"), node.get("type")) == (juliet.full, "unavailable")
            ended = True
            break
    if not ended:
        await romeo.receives(f"<presence type='unavailable' from='{juliet.full}' to='{romeo.full}'>{{more}}</presence>")
    assert server.program.rss() - before < 32 * MIB
    await romeo.send(f"<message to='{other.full}'><body>still here</body></message>")
    await other.receives(f"<message from='{romeo.full}' to='{other.full}'><body>still here</body></message>")


async def test_many_requests_at_once_are_answered_in_order(server, account):
    """Requests that wait for storage don't pile up without bound: the client is not read meanwhile."""
    romeo = await server.login(account("romeo"))
    for number in range(500):
        item = f"<item jid='f{number % 50}@b.example'/>"
        await romeo.send(f"<iq type='set' id='r{number}'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
    for number in range(500):
        assert (await romeo.next()).get("id") == f"r{number}"


async def test_directed_presence_is_remembered_within_bounds(server_with, account):
    server = server_with({"limits": {"directed_presence": 50}})
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<presence to='{juliet.full}'/>")
    await juliet.receives(f"<presence from='{romeo.full}' to='{juliet.full}'/>")
    for number in range(200):
        await romeo.send(f"<presence to='nobody{number}@localhost' id='p{number}'/>")
    refused = [node for node in await romeo.drained() if node.get("type") == "error"]
    assert len(refused) >= 150
    assert condition_of(refused[0]) in ("policy-violation", "resource-constraint")
    await romeo.end()
    await juliet.receives(f"<presence type='unavailable' from='{romeo.full}' to='{juliet.full}'>{{more}}</presence>")


async def test_offline_storage_is_bounded_for_each_account(server_with, account):
    server = server_with({"modules": {"offline": {"max_messages": 3}}})
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    for number in range(50):
        await romeo.send(f"<message to='{juliet.jid}' type='chat'><body>{number}</body></message>")
    await romeo.settled()
    online = await server.online(juliet)
    assert len([node for node in await online.drained() if node.tag.endswith("}message")]) == 3


async def test_sessions_that_wait_count_too(server_with, account):
    """A client that connects, enables resumption and vanishes, again and again, holds no more than its share."""
    server = server_with({"limits": {"sessions_per_account": 2}})
    romeo = account("romeo")
    before = server.program.rss()
    for _ in range(60):
        client = await server.login(romeo)
        await client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        await client.next()
        client.drop()
    assert server.program.rss() - before < 8 * MIB

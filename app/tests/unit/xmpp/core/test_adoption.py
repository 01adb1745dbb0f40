"""Sessions of former workers, on a server that is alone: what they have left is in its storage."""

from __future__ import annotations

import msgpack
import pytest

from monktalk.xmpp.modules.offline import Offline
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.storage.interfaces import Delivered
from tests.support.inproc import HOST, site

SM = "urn:xmpp:sm:3"
TOKEN = "token-of-a-former-worker"
DURABLE = '[messages]\nguarantee = "durable"\n'
STATE = {
    "presence": b"<presence from='juliet@capulet.example/balcony'/>",
    "priority": 0,
    "interested": False,
    "directed": [],
    "lang": None,
    "peer": "192.0.2.7",
    "secure": True,
    "bound_at": 1.0,
    "sm": True,
    "extra": {},
}


@pytest.fixture
async def server():
    modules = {each.name: each for each in (RosterModule, Presence, Offline)}
    async with site(modules, DURABLE) as running:
        await running.settled()
        yield running


def stanza(text):
    return f"<message from='romeo@{HOST}/orchard' to='juliet@{HOST}' type='chat'><body>{text}</body></message>".encode()


async def leave(server, *texts, resumable=True, owner="former"):
    """What a worker leaves that has died: a session, and messages that it was about to send. Returns its id."""
    store = server.storage
    state = msgpack.packb(STATE)
    id_ = await store.sessions.open(TOKEN, HOST, "juliet", "balcony", owner, resumable, state)
    for number, text in enumerate(texts, 1):
        stored = await store.offline.deliver(HOST, "juliet", stanza(text), 1.0, [(id_, number)], "romeo", number)
        assert stored is Delivered.STORED
    return id_


async def adopt(server):
    await server.server.adoption.adopt(server.host, "juliet")
    await server.settled()


async def resume(server, h):
    """Juliet's client resumes her session, having had ``h`` stanzas."""
    client = server.connect()
    client.open()
    client.stream.authenticated("juliet", b"")
    client.open()
    client.send(f"<resume xmlns='{SM}' previd='{TOKEN}' h='{h}'/>")
    return client


def bodies(client):
    return [node.findtext("{jabber:client}body") for node in client.stanzas() if node.tag == "{jabber:client}message"]


async def numbers(server):
    """The messages of the session as whoever adopts it next would get them."""
    (adopted,) = await server.storage.sessions.adopt(HOST, "juliet", "next owner")
    return [(message.out_seq, message.stanza) for message in adopted.messages]


async def test_the_client_gets_what_it_has_not_had(server):
    await leave(server, "one", "two", "three")
    await adopt(server)
    client = await resume(server, 1)
    await server.settled()
    assert bodies(client) == ["two", "three"]


async def test_what_it_has_had_is_known_to_the_next_worker(server):
    await leave(server, "one", "two", "three")
    await adopt(server)
    await resume(server, 2)
    await server.settled()
    assert await numbers(server) == [(3, stanza("three"))]


async def test_a_message_that_comes_while_stanzas_are_numbered_comes_once_and_is_numbered_as_in_the_stream(
    server, monkeypatch
):
    """It comes when the storage has numbered the others, and the session does not know that yet."""
    await leave(server, "one", "two")
    await adopt(server)
    store, romeo = server.storage.offline, server.login("romeo", "orchard")
    renumber = store.renumber

    async def number_and_send(*arguments):
        done = await renumber(*arguments)
        romeo.send(f"<message to='juliet@{HOST}' type='chat'><body>three</body></message>")
        return done

    monkeypatch.setattr(store, "renumber", number_and_send)
    client = await resume(server, 1)
    await server.settled()
    assert bodies(client) == ["two", "three"]
    assert [number for number, _ in await numbers(server)] == [2, 3]


async def test_two_connections_that_resume_at_once_have_one_session(server, monkeypatch):
    await leave(server, "one", "two")
    await adopt(server)
    first, second = await resume(server, 1), await resume(server, 1)
    await server.settled()
    assert bodies(second) == ["two"]
    assert first.link.closed
    assert len(server.host.user_sessions("juliet")) == 1


async def test_a_session_that_can_not_be_resumed_ends_and_its_messages_wait_for_the_next_one(server):
    await leave(server, "one", resumable=False)
    await adopt(server)
    assert server.host.user_sessions("juliet") == []
    assert await server.storage.offline.count(HOST, "juliet") == 1
    client = server.login("juliet", "chamber")
    client.send("<presence/>")
    await server.settled()
    assert bodies(client) == ["one"]


async def test_a_former_owner_writes_nothing_any_more(server):
    id_ = await leave(server, "one")
    await adopt(server)
    assert await server.storage.sessions.handled(id_, 5) is False
    late = await server.storage.offline.deliver(HOST, "juliet", stanza("late"), 1.0, [(id_, 2)], "romeo", 2)
    assert late is Delivered.SUPERSEDED


async def test_what_a_sender_repeats_at_the_next_worker_comes_once(server):
    await leave(server, "one")
    await adopt(server)
    again = await server.storage.offline.append(HOST, "juliet", stanza("one"), 1.0, None, 100, "romeo", 1)
    client = await resume(server, 0)
    await server.settled()
    assert again is True
    assert bodies(client) == ["one"]


async def test_a_start_takes_over_what_former_starts_have_left():
    """A server that is alone has no other workers: whatever owner is in the storage is a former one."""
    modules = {each.name: each for each in (RosterModule, Presence, Offline)}
    async with site(modules, DURABLE) as running:
        await leave(running, "one", owner="long gone")
        running.server.adoption._sweep()
        await running.settled()
        (session,) = running.host.user_sessions("juliet")
        assert session.link is None
        assert session.jid.resource == "balcony"

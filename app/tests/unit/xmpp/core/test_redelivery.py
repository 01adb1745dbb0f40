"""What becomes of stanzas that an ended session has not acknowledged."""

from __future__ import annotations

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from tests.support.gate import Gate
from tests.support.inproc import HOST, condition, site

SM = "urn:xmpp:sm:3"


@pytest.fixture
async def server():
    async with site({"gate": Gate}) as running:
        yield running


async def managed(server, user: str, resource: str):
    """An available session with stream management."""
    client = await server.online(user, resource)
    client.send(f"<enable xmlns='{SM}' resume='true'/>")
    client.raw()
    return client


def message(to: str, number: str, kind: str = "chat") -> str:
    return f"<message to='{to}' type='{kind}' id='{number}'><body>hi</body></message>"


def ids(client) -> list[str | None]:
    return [node.get("id") for node in client.stanzas() if node.tag == "{jabber:client}message"]


def undelivered(server) -> list[str]:
    return [event for event in server.host.modules["gate"].seen if event.startswith("undelivered")]


async def test_what_was_acknowledged_is_not_delivered_again(server):
    keeper, romeo = await managed(server, "keeper", "desk"), server.login("romeo")
    for number in ("1", "2", "3"):
        romeo.send(message(f"keeper@{HOST}", number))
    keeper.send(f"<a xmlns='{SM}' h='2'/>")
    keeper.session.end("test")
    assert undelivered(server) == ["undelivered:keeper:3"]


async def test_messages_to_the_resource_go_to_the_other_sessions(server):
    desk, phone = await managed(server, "juliet", "desk"), await server.online("juliet", "phone")
    hidden, negative = server.login("juliet", "hidden"), await server.online("juliet", "negative")
    negative.session.priority = -1
    server.login("romeo").send(message(f"juliet@{HOST}/desk", "1"))
    desk.session.end("test")
    assert (ids(phone), ids(hidden), ids(negative)) == (["1"], [], [])


async def test_what_all_sessions_have_had_is_not_delivered_twice(server):
    desk, phone = await managed(server, "juliet", "desk"), await server.online("juliet", "phone")
    server.login("romeo").send(message(f"juliet@{HOST}", "1"))
    assert ids(phone) == ["1"]
    desk.session.end("test")
    assert ids(phone) == []


async def test_a_session_that_came_later_gets_what_it_missed(server):
    desk, romeo = await managed(server, "juliet", "desk"), server.login("romeo")
    romeo.send(message(f"juliet@{HOST}", "1"))
    phone = await server.online("juliet", "phone")
    server.host.takes_messages(phone.session)
    romeo.send(message(f"juliet@{HOST}", "2"))
    assert ids(phone) == ["2"]
    desk.session.end("test")
    assert ids(phone) == ["1"]


@pytest.mark.parametrize(
    ("stanza", "told"),
    [
        (message(f"juliet@{HOST}/desk", "1", "headline"), None),
        (message(f"juliet@{HOST}/desk", "1", "error"), None),
        (message(f"juliet@{HOST}/desk", "1", "groupchat"), "recipient-unavailable/wait"),
        (message(f"juliet@{HOST}/desk", "1"), "service-unavailable/cancel"),
        (
            f"<iq type='get' id='1' to='juliet@{HOST}/desk'><x xmlns='urn:example:x'/></iq>",
            "service-unavailable/cancel",
        ),
        (f"<iq type='result' id='1' to='juliet@{HOST}/desk'/>", None),
        (f"<presence id='1' to='juliet@{HOST}/desk'/>", None),
    ],
)
async def test_senders_hear_of_what_nobody_takes(server, stanza, told):
    desk, romeo = await managed(server, "juliet", "desk"), server.login("romeo")
    server.host.deliver(stamped(romeo, stanza))
    assert len(desk.session.sm.queue) == 1
    desk.session.end("test")
    answers = romeo.stanzas()
    assert [condition(answer) for answer in answers] == ([told] if told else [])


def stamped(client, raw: str):
    """The stanza as the router hands it on."""
    stanza = Stanza.from_bytes(raw.encode()).with_attributes(from_=client.jid.full)
    stanza.sender, stanza.recipient = client.jid, JID.parse(stanza.attributes["to"])
    return stanza


async def test_a_sender_hears_when_the_storage_is_away(server):
    def away(_stanza, _user) -> bool:
        raise StorageUnavailable("away")

    keeper, romeo = await managed(server, "keeper", "desk"), server.login("romeo")
    server.host.hooks.undelivered_message.add(away, -1)
    for number in ("1", "2"):
        romeo.send(message(f"keeper@{HOST}", number))
    keeper.session.end("test")
    assert [(node.get("id"), condition(node)) for node in romeo.stanzas()] == [
        ("1", "resource-constraint/wait"),
        ("2", "resource-constraint/wait"),
    ]

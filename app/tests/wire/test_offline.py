"""Offline messages (XEP-0160, XEP-0203)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.client import Client, befriend
from tests.support.matching import show
from tests.support.stanzas import condition_of

DELAY = "{urn:xmpp:delay}delay"
HINTS = "urn:xmpp:hints"
STATES = "http://jabber.org/protocol/chatstates"


def bodies(nodes) -> list[str]:
    """The bodies of the messages among the stanzas."""
    return [node.findtext("{jabber:client}body") or "" for node in nodes if node.tag.endswith("}message")]


async def send_all(sender: Client, to: str, texts, kind: str = "chat") -> None:
    """Send messages; the server has handled them afterwards."""
    for text in texts:
        await sender.send(f"<message to='{to}' type='{kind}'><body>{text}</body></message>")
    await sender.settled()


async def test_order_and_once_only(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    texts = [str(number) for number in range(30)]
    await send_all(romeo, juliet.jid, texts)
    first = await server.online(juliet)
    assert bodies(await first.drained()) == texts
    await first.end()
    second = await server.online(juliet)
    assert bodies(await second.drained()) == []


async def test_delay_stamp(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # the stamp is rounded
    await romeo.send(f"<message to='{juliet.jid}' type='chat' id='m'><body>hi</body></message>")
    await romeo.settled()
    after = datetime.now(UTC) + timedelta(milliseconds=1)
    online = await server.online(juliet)
    message = await online.next()
    assert (message.get("from"), message.get("to"), message.get("id")) == (romeo.full, juliet.jid, "m")
    delay = message.find(DELAY)
    assert delay is not None, show(message)
    assert delay.get("from") == "localhost"
    assert delay.get("stamp").endswith("Z"), "XEP-0082: UTC"
    stamp = datetime.fromisoformat(delay.get("stamp"))
    assert before <= stamp <= after, "when it was sent, not when it was delivered"


@pytest.mark.one_worker("restarts one program; a cluster's are in app/tests/cluster")
async def test_messages_survive_a_restart(server_with, account):
    server = server_with({"general": {"loglevel": "warning"}})
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await send_all(romeo, juliet.jid, ["one", "two"])
    await romeo.end()
    assert server.program.stop() == 0
    server = server_with({"general": {"loglevel": "warning"}})
    online = await server.online(juliet)
    assert bodies(await online.drained()) == ["one", "two"]


async def test_delivered_with_available_presence_only(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await send_all(romeo, juliet.jid, ["hi"])
    negative = await server.login(juliet)
    await negative.receives_nothing()
    await negative.available(priority=-1)
    await negative.receives_nothing()
    await negative.available(priority=0)
    assert bodies(await negative.drained()) == ["hi"]


async def test_delivered_to_one_resource(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await send_all(romeo, juliet.jid, ["hi"])
    first, second = await server.online(juliet), await server.online(juliet)
    assert bodies(await first.drained()) == ["hi"]
    assert bodies(await second.drained()) == []


async def test_two_resources_at_the_same_time(server, account):
    """Both become available at once: each message reaches one of them, once."""
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    texts = [str(number) for number in range(40)]
    await send_all(romeo, juliet.jid, texts)
    clients = [await server.login(juliet) for _ in range(3)]
    for client in clients:
        await client.send("<presence/>")
    received = [text for client in clients for text in bodies(await client.drained())]
    assert sorted(received, key=int) == texts


async def test_new_messages_come_behind_the_stored_ones(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    texts = [str(number) for number in range(20)]
    await send_all(romeo, juliet.jid, texts)
    online = await server.login(juliet)
    await online.send("<presence/>")
    await send_all(romeo, juliet.jid, ["last"])
    await online.settled()
    assert bodies(await online.drained()) == [*texts, "last"]


async def test_none_gets_stuck_while_the_recipient_comes(server, account):
    """Messages that are being stored in the very moment reach the session too, each once and in order."""
    romeo = await server.login(account("romeo"))
    for number in range(16):
        juliet = await server.login(account("juliet"))
        texts = [str(text) for text in range(8)]
        for text in texts:
            if int(text) == number % len(texts):
                await juliet.send("<presence/>")
            await romeo.send(f"<message to='{juliet.bare}' type='chat'><body>{text}</body></message>")
        received: list[str] = []
        while len(received) < len(texts):
            received += bodies([await juliet.next()])
        await romeo.settled()
        assert received + bodies(await juliet.drained()) == texts


async def test_payloads_are_kept(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    payload = "<request xmlns='urn:xmpp:receipts'/><x xmlns='urn:example:x' a='&lt;'><y/>text</x><thread>t</thread>"
    await romeo.send(
        f"<message to='{juliet.jid}' type='chat' id='m' xml:lang='it'><body>ciao</body>{payload}</message>"
    )
    await romeo.settled()
    online = await server.online(juliet)
    message = await online.receives(
        f"<message from='{romeo.full}' to='{juliet.jid}' type='chat' id='m'><body>ciao</body>{payload}"
        f"<delay xmlns='urn:xmpp:delay' from='localhost' stamp='{{any}}'>{{more}}</delay></message>"
    )
    assert message.get("{http://www.w3.org/XML/1998/namespace}lang") == "it"


@pytest.mark.parametrize(
    ("message", "stored"),
    [
        ("<message to='{to}' type='normal'><body>x</body></message>", True),
        ("<message to='{to}'><body>x</body></message>", True),
        ("<message to='{to}' type='chat'><body>x</body></message>", True),
        ("<message to='{to}' type='chat'><subject>x</subject></message>", False),
        ("<message to='{to}' type='normal'><subject>x</subject></message>", True),
        ("<message to='{to}' type='headline'><body>x</body></message>", False),
        ("<message to='{to}' type='groupchat'><body>x</body></message>", False),
        ("<message to='{to}' type='error'><body>x</body></message>", False),
        ("<message to='{to}' type='chat'><composing xmlns='" + STATES + "'/></message>", False),
        ("<message to='{to}' type='chat'><body>x</body><active xmlns='" + STATES + "'/></message>", True),
        ("<message to='{to}' type='chat'><body>x</body><no-store xmlns='" + HINTS + "'/></message>", False),
        ("<message to='{to}' type='chat'><body>x</body><no-permanent-store xmlns='" + HINTS + "'/></message>", True),
        ("<message to='{to}' type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>", True),
        ("<message to='{to}' type='chat'><x xmlns='urn:example:x'/><store xmlns='" + HINTS + "'/></message>", True),
        (
            "<message to='{to}' type='chat'><composing xmlns='"
            + STATES
            + "'/><store xmlns='"
            + HINTS
            + "'/></message>",
            True,
        ),
    ],
    ids=[
        "normal",
        "no type",
        "chat",
        "chat with a subject only",
        "normal with a subject only",
        "headline",
        "groupchat",
        "error",
        "chat state alone",
        "chat state and a body",
        "hint no-store",
        "hint no-permanent-store",
        "receipt",
        "hint store",
        "hint store with a chat state",
    ],
)
async def test_what_is_stored(server, account, message, stored):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await romeo.send(message.replace("{to}", juliet.jid))
    await romeo.settled()
    online = await server.online(juliet)
    found = [node for node in await online.drained() if node.tag.endswith("}message")]
    assert len(found) == int(stored)


async def test_a_full_store_refuses_friends(server_with, account):
    """Whoever may see the recipient's presence is told; strangers can't find out (RFC 6121, 8.5.2.2)."""
    server = server_with({"modules": {"offline": {"max_messages": 3}}})
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    recipient = juliet.account
    await juliet.end()
    await send_all(romeo, recipient.jid, ["1", "2", "3"])
    await romeo.receives_nothing()
    await romeo.send(f"<message to='{recipient.jid}' type='chat' id='m4'><body>4</body></message>")
    answer = await romeo.next()
    assert answer.get("id") == "m4"
    assert condition_of(answer) == "service-unavailable"
    online = await server.online(recipient)
    assert bodies(await online.drained()) == ["1", "2", "3"]
    await online.end()
    await send_all(romeo, recipient.jid, ["5"])
    online = await server.online(recipient)
    assert bodies(await online.drained()) == ["5"]


async def test_a_full_store_says_nothing_to_strangers(server_with, account):
    server = server_with({"modules": {"offline": {"max_messages": 3}}})
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await send_all(romeo, juliet.jid, [str(number) for number in range(6)])
    await romeo.receives_nothing()
    online = await server.online(juliet)
    assert bodies(await online.drained()) == ["0", "1", "2"]


async def test_service_discovery_tells_of_it(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get("<query xmlns='http://jabber.org/protocol/disco#info'/>", to="localhost")
    assert "msgoffline" in {node.get("var") for node in answer[0]}


async def test_a_client_that_vanishes_while_it_gets_them_loses_none(server, account):
    """Messages are removed when they were handed to a live session; here the session is gone before it reads a byte."""
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    texts = [str(number) for number in range(5)]
    await send_all(romeo, juliet.jid, texts)
    first = await server.login(juliet)
    await first.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    await first.receives("<enabled xmlns='urn:xmpp:sm:3' id='{any}' resume='true' max='{any}'/>")
    await first.send("<presence/></stream:stream>")
    await first.wire.close()
    second = await server.online(juliet)
    # The first session's turn may last until its end is noticed; it may be seen to come and go.
    received: list[str] = []
    while len(received) < len(texts):
        received += bodies([await second.next()])
    assert received == texts
    assert bodies(await second.drained()) == []

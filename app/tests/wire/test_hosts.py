"""Several hosts in one server: what they share, and what isolation keeps apart."""

from __future__ import annotations

import pytest

from tests.support.stanzas import condition_of

ROSTER = "<query xmlns='jabber:iq:roster'/>"


async def test_chat_between_hosts(server, account):
    romeo = await server.online(account("romeo"))
    juliet = await server.online(account("juliet", host="other.example"))
    await romeo.send(f"<message to='{juliet.bare}' type='chat' id='1'><body>hi</body></message>")
    await juliet.receives(
        f"<message from='{romeo.full}' to='{juliet.bare}' type='chat' id='1'><body>hi</body></message>"
    )
    await juliet.send(f"<message to='{romeo.full}' type='chat' id='2'><body>hi</body></message>")
    await romeo.receives(
        f"<message from='{juliet.full}' to='{romeo.full}' type='chat' id='2'><body>hi</body></message>"
    )


async def test_offline_messages_between_hosts(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet", host="other.example")
    await romeo.send(f"<message to='{juliet.jid}' type='chat'><body>hi</body></message>")
    await romeo.settled()
    online = await server.online(juliet)
    received = await online.next()
    assert received.findtext("{jabber:client}body") == "hi"
    assert received.find("{urn:xmpp:delay}delay").get("from") == "other.example"


async def test_one_name_in_two_hosts_is_two_accounts(server, auth, account):
    here = account("romeo")
    there = type(here)(here.user, "other.example", "sesame")
    auth.insert(there)
    one, other = await server.online(here, "home"), await server.online(there, "home")
    nurse = await server.login(account("nurse"))
    await nurse.send(f"<message to='{here.jid}' type='chat'><body>for here</body></message>")
    assert (await one.next()).findtext("{jabber:client}body") == "for here"
    await other.receives_nothing(after=[nurse])
    await one.set("<query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query>")
    assert len((await other.get(ROSTER))[0]) == 0


async def test_each_host_answers_for_itself(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get("<ping xmlns='urn:xmpp:ping'/>", to="other.example")
    assert answer.get("from") == "other.example"
    assert answer.get("type") == "result"


STANZAS = {
    "message": "<message to='{to}' type='chat' id='1'><body>hi</body></message>",
    "request to a bare address": "<iq type='get' id='1' to='{to}'><vCard xmlns='vcard-temp'/></iq>",
    "request to a full address": "<iq type='get' id='1' to='{to}/home'><ping xmlns='urn:xmpp:ping'/></iq>",
    "subscription": "<presence to='{to}' type='subscribe' id='1'/>",
}


@pytest.mark.parametrize("stanza", STANZAS.values(), ids=STANZAS.keys())
@pytest.mark.parametrize("direction", ["into", "out of"])
async def test_isolation(server, account, stanza, direction):
    """Stanzas to and from an isolated host are answered as if the other one did not exist."""
    inside = await server.online(account("romeo", host="isolated.example"), "home")
    outside = await server.online(account("juliet"), "home")
    sender, recipient = (outside, inside) if direction == "into" else (inside, outside)
    await sender.send(stanza.replace("{to}", recipient.bare))
    answers = [node for node in await sender.drained() if node.get("type") == "error"]
    assert [condition_of(node) for node in answers] == ["remote-server-not-found"]
    await recipient.receives_nothing()


@pytest.mark.parametrize("direction", ["into", "out of"])
async def test_isolation_of_presence(server, account, direction):
    inside = await server.online(account("romeo", host="isolated.example"), "home")
    outside = await server.online(account("juliet"), "home")
    sender, recipient = (outside, inside) if direction == "into" else (inside, outside)
    await sender.send(f"<presence to='{recipient.full}'/><presence to='{recipient.bare}' type='probe'/>")
    await recipient.receives_nothing(after=[sender])
    for node in await sender.drained():
        assert condition_of(node) == "remote-server-not-found"


async def test_isolation_of_the_host_itself(server, account):
    outside = await server.login(account("juliet"))
    for payload in (
        "<ping xmlns='urn:xmpp:ping'/>",
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<query xmlns='jabber:iq:version'/>",
    ):
        assert condition_of(await outside.get(payload, to="isolated.example")) == "remote-server-not-found"


async def test_an_isolated_host_and_one_that_does_not_exist_look_alike(server, account):
    outside = await server.login(account("juliet"))
    answers = []
    for to in (account("romeo", host="isolated.example").jid, "romeo@unknown.example"):
        answer = await outside.get("<vCard xmlns='vcard-temp'/>", to=to)
        error = answer.find("{jabber:client}error")
        host = to.partition("@")[2]
        answers.append((error.get("type"), [(child.tag, (child.text or "").replace(host, "HOST")) for child in error]))
    assert answers[0] == answers[1]


async def test_inside_an_isolated_host_all_is_usual(server, account):
    romeo = await server.online(account("romeo", host="isolated.example"))
    juliet = await server.online(account("juliet", host="isolated.example"))
    await romeo.send(f"<message to='{juliet.bare}' type='chat'><body>hi</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.bare}' type='chat'><body>hi</body></message>")

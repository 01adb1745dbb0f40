"""mongooseimctl: sessions, messages."""

from __future__ import annotations

import socket

import pytest

HOST = "localhost"
NODE = f"mongooseim@{socket.gethostname()}"
INFO = ["jid", "connection", "ip", "port", "priority", "node", "uptime"]


@pytest.fixture
async def romeo(server, account):
    return await server.online(account("romeo"), "orchard", priority=5)


async def test_connected_users(server, ctl, romeo, account):
    elsewhere = await server.login(account("nurse", host="other.example"))
    lines = await ctl.lines("connected_users")
    assert {romeo.full, elsewhere.full} <= set(lines)
    assert set(await ctl.json("connected_users")) == set(lines)
    assert await ctl.text("connected_users_number") == str(len(lines))
    assert await ctl.json("connected_users_number") == len(lines)


async def test_connected_users_info(server, ctl, romeo, account):
    quiet = await server.login(account("nurse", host="other.example"), transport="starttls")
    by_jid = {line.split("\t")[0]: line.split("\t")[1:] for line in await ctl.lines("connected_users_info")}
    connection, ip, port, priority, node, uptime = by_jid[romeo.full]
    assert (connection, ip, priority, node) == ("c2s", "127.0.0.1", "5", NODE)
    assert int(port) == romeo.wire._writer.get_extra_info("sockname")[1]
    assert 0 <= int(uptime) < 3600
    assert by_jid[quiet.full][0] == "c2s_tls"
    assert by_jid[quiet.full][3] == ""
    facts = {row["jid"]: row for row in await ctl.json("connected_users_info")}
    assert list(facts[romeo.full]) == INFO
    assert (facts[romeo.full]["priority"], facts[quiet.full]["priority"]) == (5, None)


async def test_sessions_of_a_host(server, ctl, romeo, account):
    elsewhere = await server.login(account("nurse", host="other.example"))
    found = {row["jid"] for row in await ctl.json("connected_users_vhost", "other.example")}
    assert elsewhere.full in found
    assert romeo.full not in found
    assert any(line.startswith(elsewhere.full) for line in await ctl.lines("connected_users_vhost", "other.example"))


async def test_sessions_of_a_user(server, ctl, romeo):
    other = await server.login(romeo.account, "street")
    assert await ctl.lines("user_resources", romeo.user, HOST) == ["orchard", "street"]
    assert await ctl.json("user_resources", romeo.user, HOST) == ["orchard", "street"]
    assert await ctl.text("num_resources", romeo.user, HOST) == "2"
    assert await ctl.json("num_resources", romeo.user, HOST) == 2
    assert await ctl.text("resource_num", romeo.user, HOST, "2") == "street"
    assert await ctl.json("resource_num", romeo.user, HOST, "1") == "orchard"
    for number in ("0", "3", "x"):
        assert await ctl.refused("resource_num", romeo.user, HOST, number) == f"Error: Wrong resource number: {number}"
    assert len(await ctl.lines("user_sessions_info", romeo.user, HOST)) == 2
    facts = await ctl.json("user_sessions_info", romeo.user, HOST)
    assert [row["jid"] for row in facts] == [romeo.full, other.full]
    assert await ctl.text("user_resources", "nobody", HOST) == ""
    assert await ctl.json("user_resources", "nobody", HOST) == []


async def test_kick_session(server, ctl, romeo):
    other = await server.login(romeo.account, "street")
    assert await ctl.text("kick_session", romeo.user, HOST, "orchard", "go home") == f"Session {romeo.full} ended"
    error = await romeo.wire.event()
    assert "go home" in "".join(error.itertext())
    await other.settled()
    assert await ctl.json("kick_session", romeo.user, HOST, "street", "")
    assert "is not connected" in await ctl.refused("kick_session", romeo.user, HOST, "street", "x")


async def test_status_list(server, ctl, romeo, account):
    away = await server.online(account("nurse"), "hall", inner="<show>away</show><status>with\tthe baby</status>")
    elsewhere = await server.online(account("nurse", host="other.example"), inner="<show>away</show>")
    assert f"{away.user}\t{HOST}\thall\t0\twith the baby" in await ctl.lines("status_list", "away")
    assert [row for row in await ctl.json("status_list", "available") if row["user"] == romeo.user] == [
        {"user": romeo.user, "host": HOST, "resource": "orchard", "priority": 5, "status": ""}
    ]
    of_host = {row["user"] for row in await ctl.json("status_list_host", HOST, "away")}
    assert away.user in of_host
    assert elsewhere.user not in of_host
    everybody = {line.split("\t")[0] for line in await ctl.lines("status_list_host", HOST, "all")}
    assert {romeo.user, away.user} <= everybody
    assert "no status" in await ctl.refused("status_list", "asleep", code=2)


async def test_set_presence(server, ctl, romeo):
    other = await server.online(romeo.account, "street")
    await other.drained()
    await romeo.drained()
    assert await ctl.text("set_presence", romeo.user, HOST, "orchard", "available", "dnd", "fighting", "-3")
    await other.receives(
        f"<presence from='{romeo.full}' to='{other.bare}'>"
        "<show>dnd</show><status>fighting</status><priority>-3</priority>{more}</presence>"
    )
    facts = {row["jid"]: row["priority"] for row in await ctl.json("user_sessions_info", romeo.user, HOST)}
    assert facts[romeo.full] == -3
    assert await ctl.json("set_presence", romeo.user, HOST, "orchard", "unavailable", "", "", "")
    assert (await other.next()).get("type") == "unavailable"


async def test_set_presence_refusals(ctl, romeo):
    session = ("set_presence", romeo.user, HOST, "orchard")
    assert "presence of type" in await ctl.refused(*session, "subscribe", "", "", "", code=2)
    assert "no show" in await ctl.refused(*session, "available", "sleepy", "", "", code=2)
    assert "-128 to 127" in await ctl.refused(*session, "available", "", "", "200", code=2)
    assert "is not connected" in await ctl.refused("set_presence", romeo.user, HOST, "street", "", "", "", "")


# -------------------------------------------------------------------------------------------------- messages


async def test_send_message_chat(ctl, romeo):
    assert await ctl.text("send_message_chat", "juliet@elsewhere.example", romeo.bare, "<Soft> & wait") == (
        f"Message sent to {romeo.bare}"
    )
    await romeo.receives(
        f"<message from='juliet@elsewhere.example' to='{romeo.bare}' type='chat' id='{{any}}'>"
        "<body>&lt;Soft> &amp; wait</body>{more}</message>"
    )
    assert await ctl.json("send_message_chat", f"juliet@{HOST}", romeo.full, "hi")
    await romeo.receives(
        f"<message from='juliet@{HOST}' to='{romeo.full}' type='chat' id='{{any}}'><body>hi</body>{{more}}</message>"
    )


async def test_a_message_for_somebody_who_is_offline_is_kept(server, ctl, account):
    juliet = account("juliet")
    await server.login(juliet)
    await ctl.text("send_message_chat", HOST, juliet.jid, "good night")
    client = await server.login(juliet)
    await client.available()
    assert "good night" in "".join("".join(node.itertext()) for node in await client.drained())


async def test_send_message_headline(ctl, romeo):
    assert await ctl.text("send_message_headline", HOST, romeo.bare, "Tonight", "A feast")
    await romeo.receives(
        f"<message from='{HOST}' to='{romeo.bare}' type='headline' id='{{any}}'>"
        "<subject>Tonight</subject><body>A feast</body>{more}</message>"
    )
    assert await ctl.json("send_message_headline", HOST, romeo.bare, "", "Still a feast")
    assert (await romeo.next()).findtext("{jabber:client}body") == "Still a feast"


async def test_messages_that_nobody_takes(ctl, romeo):
    assert "Receiver JID is invalid" in await ctl.refused("send_message_chat", HOST, "@", "x")
    assert "Sender JID is invalid" in await ctl.refused("send_message_chat", "@", romeo.bare, "x")
    assert "is not served here" in await ctl.refused("send_message_chat", HOST, "romeo@elsewhere.example", "x")


async def test_send_stanza_c2s(server, ctl, romeo, account):
    juliet = await server.online(account("juliet"))
    stanza = f"<message to='{juliet.bare}' type='chat'><body>by your leave</body></message>"
    assert await ctl.text("send_stanza_c2s", romeo.user, HOST, "orchard", stanza) == "Stanza has been sent"
    await juliet.receives(
        f"<message from='{romeo.full}' to='{juliet.bare}' type='chat'><body>by your leave</body>{{more}}</message>"
    )
    ping = f"<iq type='get' id='theirs' to='{HOST}'><ping xmlns='urn:xmpp:ping'/></iq>"
    assert await ctl.json("send_stanza_c2s", romeo.user, HOST, "orchard", ping)
    await romeo.receives(f"<iq type='result' id='theirs' from='{HOST}' to='{romeo.full}'/>")


@pytest.mark.parametrize(
    "text",
    [
        "no XML",
        "<message>",
        "<message/><message/>",
        "<other xmlns='urn:example'/>",
        "<!DOCTYPE x><message/>",
        "<message from='juliet@localhost'/>",
        "",
    ],
)
async def test_stanzas_that_are_not_sent(ctl, romeo, text):
    assert "Stanza is" in await ctl.refused("send_stanza_c2s", romeo.user, HOST, "orchard", text)
    await romeo.settled()


async def test_a_stanza_in_a_clients_name_is_not_acknowledged_to_it(server, ctl, romeo):
    romeo.skips_acks = False
    await romeo.send("<enable xmlns='urn:xmpp:sm:3'/>")
    await romeo.next()
    await ctl.text(
        "send_stanza_c2s", romeo.user, HOST, "orchard", f"<message to='{romeo.bare}'><body>x</body></message>"
    )
    await romeo.next()
    await romeo.send("<r xmlns='urn:xmpp:sm:3'/>")
    answers = [await romeo.next(), await romeo.next()]
    assert "0" in [node.get("h") for node in answers]


async def test_deleting_messages(server, ctl, account):
    juliet = account("juliet")
    await server.login(juliet)
    await ctl.text("send_message_chat", HOST, juliet.jid, "to be deleted")
    assert "Deleted 0 " in await ctl.text("delete_old_messages", "1")
    assert "Deleted 0 " in await ctl.text("delete_expired_messages")
    assert await ctl.json("delete_expired_messages", HOST) == "Deleted 0 expired messages"
    assert await ctl.json("delete_old_messages", "other.example", "0") == "Deleted 0 messages older than 0 days"
    deleted = (await ctl.text("delete_old_messages", HOST, "0")).split()
    assert int(deleted[1]) >= 1
    client = await server.login(juliet)
    await client.available()
    assert "to be deleted" not in "".join("".join(node.itertext()) for node in await client.drained())
    assert "number of days" in await ctl.refused("delete_old_messages", "soon", code=2)

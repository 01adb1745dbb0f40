"""Ping (XEP-0199), entity time (0202), software version (0092) and last activity (0012)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tests.support.client import befriend
from tests.support.polling import eventually
from tests.support.stanzas import condition_of, payload_of

PING = "<ping xmlns='urn:xmpp:ping'/>"
TIME = "urn:xmpp:time"
VERSION = "jabber:iq:version"
LAST = "jabber:iq:last"


async def test_ping_the_server(server, account):
    romeo = await server.login(account("romeo"))
    for to in ("localhost", None, romeo.bare):
        answer = await romeo.get(PING, to=to)
        assert answer.get("type") == "result"
        assert len(answer) == 0


async def test_ping_between_clients(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<iq type='get' to='{juliet.full}' id='c1'>{PING}</iq>")
    await juliet.receives(f"<iq type='get' from='{romeo.full}' to='{juliet.full}' id='c1'>{PING}</iq>")
    await juliet.send(f"<iq type='result' to='{romeo.full}' id='c1'/>")
    await romeo.receives(f"<iq type='result' from='{juliet.full}' to='{romeo.full}' id='c1'/>")


async def test_the_server_pings_a_silent_client(server_with, account):
    server = server_with({"limits": {"idle_time": "4 s"}, "modules": {"ping": {"interval": "1 s"}}})
    romeo = await server.login(account("romeo"))
    for _ in range(2):
        asked = await romeo.receives(f"<iq type='get' from='localhost' to='{romeo.full}' id='{{any}}'>{PING}</iq>")
        await romeo.send(f"<iq type='result' to='localhost' id='{asked.get('id')}'/>")
    await romeo.settled()


async def test_a_client_that_does_not_answer_is_closed(server_with, account):
    server = server_with({"limits": {"idle_time": "4 s"}, "modules": {"ping": {"interval": "1 s"}}})
    romeo = await server.login(account("romeo"))
    await romeo.receives(f"<iq type='get' from='localhost' to='{romeo.full}' id='{{any}}'>{PING}</iq>")
    await romeo.stream_error("connection-timeout")


async def test_an_error_is_an_answer_to_a_ping_too(server_with, account):
    """XEP-0199, 4.2: a client that does not know ping is alive all the same."""
    server = server_with({"limits": {"idle_time": "4 s"}, "modules": {"ping": {"interval": "1 s"}}})
    romeo = await server.login(account("romeo"))
    for _ in range(3):
        asked = await romeo.receives(f"<iq type='get' from='localhost' to='{romeo.full}' id='{{any}}'>{PING}</iq>")
        await romeo.send(
            f"<iq type='error' to='localhost' id='{asked.get('id')}'><error type='cancel'>"
            "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        )


async def test_time(server, account):
    romeo = await server.login(account("romeo"))
    answer = payload_of(await romeo.get(f"<time xmlns='{TIME}'/>", to="localhost"))
    assert re.fullmatch(r"Z|[+-]\d\d:\d\d", answer.findtext(f"{{{TIME}}}tzo") or "")
    utc = answer.findtext(f"{{{TIME}}}utc") or ""
    assert utc.endswith("Z")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(utc)).total_seconds()) < 60


async def test_version(server, account):
    romeo = await server.login(account("romeo"))
    answer = payload_of(await romeo.get(f"<query xmlns='{VERSION}'/>", to="localhost"))
    assert answer.findtext(f"{{{VERSION}}}name") == "MonkTalk"
    assert answer.findtext(f"{{{VERSION}}}version")
    assert answer.find(f"{{{VERSION}}}os") is None, "not told unless configured"


async def test_last_activity_of_the_server_is_its_uptime(server, account):
    romeo = await server.login(account("romeo"))
    answer = payload_of(await romeo.get(f"<query xmlns='{LAST}'/>", to="localhost"))
    assert 0 <= int(answer.get("seconds", "")) < 3600


async def test_last_activity_of_a_friend(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await juliet.available()
    answer = payload_of(await romeo.get(f"<query xmlns='{LAST}'/>", to=juliet.bare))
    assert int(answer.get("seconds", "")) == 0, "online"
    await juliet.send("<presence type='unavailable'><status>to the tomb</status></presence>")
    await juliet.settled()
    await juliet.end()
    answer = payload_of(
        await eventually(
            lambda: romeo.get(f"<query xmlns='{LAST}'/>", to=juliet.bare),
            lambda node: node.get("type") == "result",
            "the end of the session is remembered",
        )
    )
    assert 0 <= int(answer.get("seconds", "")) < 60
    assert answer.text == "to the tomb"


async def test_last_activity_is_for_subscribers(server, auth, account):
    """XEP-0012, 8: the same refusal for accounts that are online, offline and absent."""
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    for jid in (juliet.bare, account("offline").jid, auth.absent().jid):
        assert condition_of(await romeo.get(f"<query xmlns='{LAST}'/>", to=jid)) == "forbidden"
    await juliet.receives_nothing()


async def test_last_activity_of_oneself(server, account):
    romeo = await server.online(account("romeo"))
    answer = payload_of(await romeo.get(f"<query xmlns='{LAST}'/>", to=romeo.bare))
    assert int(answer.get("seconds", "")) == 0

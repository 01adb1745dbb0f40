"""Last activity (XEP-0012)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core.administration import remove_account
from monktalk.xmpp.modules.last import CODEC, KEY, TABLE, Last
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import to_bytes
from tests.support.inproc import HOST, condition, payload, site

QUERY = f"<query xmlns='{ns.LAST}'/>"
JULIET = f"juliet@{HOST}"
MODULES = {"last": Last, "presence": Presence, "roster": RosterModule}


@pytest.fixture
async def server():
    async with site(MODULES) as running:
        await RosterModule.of(running.host).set_item("juliet", f"romeo@{HOST}", subscription="from")
        yield running


async def seconds(client, to: str | None = None) -> tuple[str | None, str | None]:
    query = payload(await client.iq("get", QUERY, to=to))
    return query.get("seconds"), query.text


async def test_uptime(server):
    romeo = server.login("romeo")
    server.clock.advance(1234)
    assert await seconds(romeo, HOST) == ("1234", None)


async def test_a_subscriber_sees_when_the_user_left_and_his_last_words(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    juliet.send("<presence type='unavailable'><status>Heading &lt;home&gt;</status></presence></stream:stream>")
    await server.settled()
    server.clock.advance(903)
    assert await seconds(romeo, JULIET) == ("903", "Heading <home>")


async def test_online_is_zero(server):
    romeo = server.login("romeo")
    await server.online("juliet")
    server.clock.advance(100)
    assert await seconds(romeo, JULIET) == ("0", None)


async def test_a_session_that_is_not_available_is_not_seen(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    juliet.drop()
    await server.settled()
    server.clock.advance(60)
    server.login("juliet")
    assert await seconds(romeo, JULIET) == ("60", None)


async def test_the_last_session_counts(server):
    romeo, phone, laptop = server.login("romeo"), await server.online("juliet"), await server.online("juliet")
    phone.drop()
    server.clock.advance(30)
    assert await seconds(romeo, JULIET) == ("0", None)
    laptop.drop()
    server.clock.advance(5)
    assert await seconds(romeo, JULIET) == ("5", None)


async def test_words_of_an_earlier_absence_are_forgotten(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    juliet.send("<presence type='unavailable'><status>Lunch</status></presence><presence/>")
    await server.settled()
    juliet.drop()
    await server.settled()
    assert await seconds(romeo, JULIET) == ("0", None)


async def test_directed_presence_is_not_the_last_word(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    juliet.send("<presence type='unavailable'><status>Bye</status></presence>")
    juliet.send(f"<presence to='nurse@{HOST}' type='unavailable'><status>For the nurse alone</status></presence>")
    juliet.drop()
    await server.settled()
    assert await seconds(romeo, JULIET) == ("0", "Bye")


async def test_own_account(server):
    juliet = await server.online("juliet")
    juliet.drop()
    await server.settled()
    server.clock.advance(7)
    again = server.login("juliet")
    assert await seconds(again) == ("7", None)
    await again.available()
    assert await seconds(again, JULIET) == ("0", None)


async def test_somebody_who_has_never_been_here(server):
    assert condition(await server.login("romeo").iq("get", QUERY, to=JULIET)) == "item-not-found/cancel"


async def test_strangers_are_refused_whoever_they_ask_for(server):
    tybalt, juliet = server.login("tybalt"), await server.online("juliet")
    await server.online("online")
    juliet.drop()
    await server.settled()
    answers = set()
    for name in ("juliet", "online", "nobody"):
        answer = await tybalt.iq("get", QUERY, to=f"{name}@{HOST}")
        assert condition(answer) == "forbidden/auth"
        answers.add(to_bytes(answer).replace(name.encode(), b"?").replace(answer.get("id").encode(), b"?"))
    assert len(answers) == 1


async def test_the_record_goes_with_the_account(server):
    juliet = await server.online("juliet")
    await remove_account(server.host, "juliet")
    await server.settled()
    assert juliet.link.closed
    assert await server.storage.keyvalue(TABLE, CODEC, 1).get(HOST, "juliet", KEY) is None


async def test_storage_that_is_away_ends_sessions_all_the_same(server, caplog):
    juliet = await server.online("juliet")
    server.storage.set_available(False)
    juliet.drop()
    await server.settled()
    assert not server.host.user_sessions("juliet")
    assert "logout_not_stored" in caplog.text

"""Private XML storage (XEP-0049)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core.administration import remove_account
from monktalk.xmpp.modules.private import CODEC, TABLE, Private
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import to_bytes
from tests.support.inproc import HOST, condition, payload, site

LIMITS = "[modules.private]\nmax_size = 2048\nmax_elements = 3\n"
NICK = "<exodus xmlns='exodus:prefs'><defaultnick a='1'>Ham &amp; let</defaultnick></exodus>"


@pytest.fixture
async def server():
    async with site({"private": Private}, LIMITS) as running:
        yield running


def query(inner: str) -> str:
    return f"<query xmlns='{ns.PRIVATE}'>{inner}</query>"


async def stored(client, inner: str) -> str:
    """The content of the answer to a request for one element."""
    answer = payload(await client.iq("get", query(inner)))
    assert answer.tag == f"{{{ns.PRIVATE}}}query"
    return "".join(to_bytes(child).decode() for child in answer)


async def test_what_was_stored_comes_back(server):
    hamlet = server.login("hamlet")
    assert (await hamlet.iq("set", query(NICK))).get("type") == "result"
    assert await stored(hamlet, "<exodus xmlns='exodus:prefs'/>") == NICK
    hamlet.drop()
    assert await stored(server.login("hamlet"), "<exodus xmlns='exodus:prefs'/>") == NICK


async def test_what_is_not_there_is_empty(server):
    hamlet = server.login("hamlet")
    assert await stored(hamlet, "<storage xmlns='storage:bookmarks'><conference/></storage>") == (
        "<storage xmlns='storage:bookmarks'/>"
    )


async def test_a_new_value_takes_the_place_of_the_old_one(server):
    hamlet = server.login("hamlet")
    for text in ("one", "two"):
        await hamlet.iq("set", query(f"<a xmlns='urn:x'>{text}</a>"))
    assert await stored(hamlet, "<a xmlns='urn:x'/>") == "<a xmlns='urn:x'>two</a>"


async def test_several_elements_at_once(server):
    hamlet = server.login("hamlet")
    await hamlet.iq("set", query("<a xmlns='urn:x'>1</a><b xmlns='urn:x'/><a xmlns='urn:x'>2</a>"))
    assert await stored(hamlet, "<a xmlns='urn:x'/>") == "<a xmlns='urn:x'>1</a><a xmlns='urn:x'>2</a>"
    assert await stored(hamlet, "<b xmlns='urn:x'/>") == "<b xmlns='urn:x'/>"


@pytest.mark.parametrize(
    ("kind", "inner", "refusal"),
    [
        ("get", "", "bad-request/modify"),
        ("get", "<a xmlns='urn:x'/><b xmlns='urn:x'/>", "bad-request/modify"),
        ("set", "", "not-acceptable/modify"),
        ("set", "<a/>", "not-acceptable/modify"),
        ("set", "<a xmlns=''/>", "not-acceptable/modify"),
        ("set", f"<a xmlns='urn:{'x' * 1000}'/>", "not-acceptable/modify"),
        ("set", f"<a xmlns='urn:x'>{'x' * 2048}</a>", "not-acceptable/modify"),
        ("set", "".join(f"<a xmlns='urn:{number}'/>" for number in range(4)), "policy-violation/modify"),
    ],
)
async def test_refused(server, kind, inner, refusal):
    hamlet = server.login("hamlet")
    assert condition(await hamlet.iq(kind, query(inner))) == refusal
    assert await server.storage.keyvalue(TABLE, CODEC, 1).keys(HOST, "hamlet") == []


async def test_the_number_of_elements_is_limited(server):
    hamlet = server.login("hamlet")
    for number in range(3):
        assert (await hamlet.iq("set", query(f"<a xmlns='urn:{number}'/>"))).get("type") == "result"
    assert condition(await hamlet.iq("set", query("<a xmlns='urn:3'/>"))) == "policy-violation/modify"
    assert (await hamlet.iq("set", query("<a xmlns='urn:2'>changed</a>"))).get("type") == "result"
    ophelia = server.login("ophelia")
    assert (await ophelia.iq("set", query("<a xmlns='urn:3'/>"))).get("type") == "result"


@pytest.mark.parametrize("kind", ["get", "set"])
async def test_nobody_reads_or_writes_for_others(server, kind):
    hamlet, macbeth = server.login("hamlet"), server.login("macbeth")
    await hamlet.iq("set", query(NICK))
    for name in ("hamlet", "nobody"):
        answer = await macbeth.iq(kind, query("<exodus xmlns='exodus:prefs'/>"), to=f"{name}@{HOST}")
        assert condition(answer) == "forbidden/auth"
    assert await stored(hamlet, "<exodus xmlns='exodus:prefs'/>") == NICK


async def test_storage_that_is_away(server):
    hamlet = server.login("hamlet")
    server.storage.set_available(False)
    assert condition(await hamlet.iq("set", query(NICK))) == "resource-constraint/wait"


async def test_it_goes_with_the_account(server):
    await server.login("hamlet").iq("set", query(NICK))
    await remove_account(server.host, "hamlet")
    assert await stored(server.login("hamlet"), "<exodus xmlns='exodus:prefs'/>") == "<exodus xmlns='exodus:prefs'/>"

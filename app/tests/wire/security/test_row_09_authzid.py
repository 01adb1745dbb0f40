"""Row 9: logging in as somebody else through the authorisation identity (ejabberd issue 4601)."""

from __future__ import annotations

import pytest

from tests.support import sasl
from tests.support.client import SASL, decoded
from tests.support.matching import assert_matches

pytestmark = pytest.mark.one_worker("the worker that has the connection authenticates")

INVALID = f"<failure xmlns='{SASL}'><invalid-authzid/>{{more}}</failure>"
OTHERS = {
    "another account": lambda me, other: other.jid,
    "only the name of another account": lambda me, other: other.user,
    "an absent account": lambda me, other: f"x-{other.jid}",
    "the same name in another host": lambda me, other: f"{me.user}@other.example",
    "the administrator": lambda me, other: "admin@localhost",
    "with a resource": lambda me, other: f"{other.jid}/home",
    "the host": lambda me, other: "localhost",
    "nonsense": lambda me, other: "@@",
    "my name and more": lambda me, other: f"{me.jid}.example",
    "a homograph": lambda me, other: f"{me.user.replace('o', chr(0x43E))}@localhost",
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
async def test_plain(server, account, make):
    me, other = account("romeo"), account("juliet")
    client = await server.stream()
    assert_matches(await client.auth("PLAIN", sasl.plain(me.user, me.password, make(me, other))), INVALID)
    await client.authenticate(me)
    assert (await client.bind()).startswith(me.jid)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
async def test_scram(server, account, mechanism, make):
    me, other = account("romeo"), account("juliet")
    client = await server.stream("direct")
    exchange = client.scram(mechanism, me)
    exchange.authzid = make(me, other)
    answer = await client.auth(mechanism, exchange.first())
    if answer.tag == f"{{{SASL}}}challenge":
        answer = await client.respond(exchange.final(decoded(answer)))
    assert_matches(answer, INVALID)


@pytest.mark.parametrize("spelling", ["{jid}", "{JID}"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_oneself_is_fine(server, account, mechanism, spelling):
    me = account("romeo")
    authzid = spelling.format(jid=me.jid, JID=me.jid.upper())
    client = await server.stream()
    if mechanism == "PLAIN":
        answer = await client.auth("PLAIN", sasl.plain(me.user, me.password, authzid))
    else:
        exchange = client.scram(mechanism, me)
        exchange.authzid = authzid
        challenge = await client.auth(mechanism, exchange.first())
        answer = await client.respond(exchange.final(decoded(challenge)))
    assert answer.tag == f"{{{SASL}}}success"
    await client.open_stream()
    assert (await client.bind()).startswith(f"{me.jid}/")


async def test_the_password_is_checked_first_or_not_at_all(server, account):
    """A wrong password with a foreign identity tells nothing about the password."""
    me, other = account("romeo"), account("juliet")
    answers = []
    for password in (me.password, "wrong"):
        client = await server.stream()
        answer = await client.auth("PLAIN", sasl.plain(me.user, password, other.jid))
        answers.append(answer[0].tag)
    assert answers[0] == f"{{{SASL}}}invalid-authzid"
    assert answers[1] in (f"{{{SASL}}}invalid-authzid", f"{{{SASL}}}not-authorized")

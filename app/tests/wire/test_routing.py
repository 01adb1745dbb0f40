"""Where stanzas go (RFC 6120 section 10, RFC 6121 section 8): every row of the tables."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.accounts import Account
from tests.support.client import Client
from tests.support.matching import ANY
from tests.support.server import Server
from tests.support.stack import AuthService
from tests.support.stanzas import condition_of, refusal

PING = "<ping xmlns='urn:xmpp:ping'/>"
UNKNOWN = "<question xmlns='urn:example:unheard-of'/>"


@dataclass
class Recipient:
    """An account in one of the situations that the table of RFC 6121 section 8.5.4 tells apart."""

    account: Account
    full: str
    """The full JID of a resource that is there; in the situations without any, of one that never was."""
    negative: list[Client]
    others: list[Client]

    @property
    def bare(self) -> str:
        """The bare JID."""
        return self.account.jid


async def recipient_in(situation: str, server: Server, auth: AuthService) -> Recipient:
    """Make the recipient ``absent``, ``offline``, ``negative``, ``one`` or ``many``."""
    if situation == "absent":
        nobody = auth.absent("juliet")
        return Recipient(nobody, f"{nobody.jid}/balcony", [], [])
    juliet = auth.account("juliet")
    negative: list[Client] = []
    others: list[Client] = []
    if situation in ("negative", "many"):
        negative.append(await server.online(juliet, "closet", priority=-1))
    if situation in ("one", "many"):
        others.append(await server.online(juliet, "balcony", priority=0))
    if situation == "many":
        others.append(await server.online(juliet, "chamber", priority=7))
    present = others or negative
    for client in negative + others:
        await client.drained()
    return Recipient(juliet, present[0].full if present else f"{juliet.jid}/balcony", negative, others)


# The letters: D delivered to the resource that was addressed; A delivered to all resources but negative ones; O stored
# and delivered at the next login; E an error comes back; - nothing happens at all.
MESSAGES = {
    # situation, address: normal, chat, groupchat, headline, error
    ("absent", "bare"): "--E--",
    ("absent", "other"): "E-E--",
    ("offline", "bare"): "OOE--",
    ("offline", "other"): "EOE--",
    ("negative", "bare"): "OOE--",
    ("negative", "full"): "DDDDD",
    ("negative", "other"): "EOE--",
    ("one", "bare"): "AAEA-",
    ("one", "full"): "DDDDD",
    ("one", "other"): "EAE--",
    ("many", "bare"): "AAEA-",
    ("many", "full"): "DDDDD",
    ("many", "other"): "EAE--",
}
TYPES = ("normal", "chat", "groupchat", "headline", "error")
ROWS = [
    pytest.param((situation, address, kind), outcome, id=f"{situation}-{address}-{kind}")
    for (situation, address), outcomes in MESSAGES.items()
    for kind, outcome in zip(TYPES, outcomes, strict=True)
]


@pytest.mark.parametrize(("case", "outcome"), ROWS)
async def test_messages(server, auth, case, outcome):
    situation, address, kind = case
    romeo = await server.login(auth.account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    to = {"bare": juliet.bare, "full": juliet.full, "other": f"{juliet.bare}/tomb"}[address]
    content = (
        "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>" if kind == "error" else ""
    )
    content += "<body>hi</body>"
    await romeo.send(f"<message to='{to}' type='{kind}' id='m1'>{content}</message>")
    message = f"<message from='{romeo.full}' to='{to}' type='{kind}' id='m1'>{content}"

    if outcome == "E":
        await romeo.receives(refusal("message", "service-unavailable", sender=to, to=romeo.full, stanza_id="m1"))
    addressed = [client for client in juliet.negative + juliet.others if client.full == to]
    takers = {"D": addressed, "A": juliet.others}.get(outcome, [])
    for client in takers:
        await client.receives(f"{message}</message>")
    for client in [romeo, *juliet.negative, *juliet.others]:
        await client.receives_nothing(after=[romeo])
    if situation != "absent":
        later = await server.online(juliet.account, "later")
        stored = [node for node in await later.drained() if node.tag.endswith("}message")]
        assert len(stored) == (1 if outcome == "O" else 0)
        if stored:
            assert stored[0].find("{urn:xmpp:delay}delay") is not None


async def test_message_without_type_is_normal(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<message to='{juliet.bare}'><body>hi</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.bare}'><body>hi</body></message>")
    await romeo.send(f"<message to='{juliet.bare}/tomb' id='1'><body>hi</body></message>")
    await romeo.receives(
        refusal("message", "service-unavailable", sender=f"{juliet.bare}/tomb", to=romeo.full, stanza_id="1")
    )


async def test_message_of_an_unknown_type_is_normal(server, account):
    """RFC 6121, 5.2.2."""
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<message to='{juliet.bare}' type='telegram'><body>hi</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.bare}' type='telegram'><body>hi</body></message>")


async def test_message_to_a_resource_that_sent_no_presence(server, account):
    """RFC 6121, 8.5.3.1: a connected resource is enough for a full JID, not for a bare one."""
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await romeo.send(f"<message to='{juliet.full}' type='chat'><body>hi</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}' type='chat'><body>hi</body></message>")
    await romeo.send(f"<message to='{juliet.bare}' type='chat'><body>hi</body></message>")
    await juliet.receives_nothing(after=[romeo])


async def test_message_without_to_goes_to_oneself(server, account):
    """RFC 6120, 10.3.1: as if it were addressed to the sender's bare JID."""
    romeo = await server.online(account("romeo"))
    await romeo.send("<message type='chat' id='1'><body>note to self</body></message>")
    received = await romeo.next()
    assert received.get("from") == romeo.full
    assert received.findtext("{jabber:client}body") == "note to self"


async def test_messages_keep_their_order(server, account):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    for n in range(100):
        to = juliet.bare if n % 2 else juliet.full
        await romeo.send(f"<message to='{to}' type='chat'><body>{n}</body></message>")
    for n in range(100):
        assert (await juliet.next()).findtext("{jabber:client}body") == str(n)


async def test_everything_in_a_message_is_passed_on(server, account):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    content = (
        "<subject xml:lang='it'>Ciao</subject><body>a &amp; b &lt;c&gt;</body><thread parent='p'>t</thread>"
        "<x xmlns='urn:example:one'><y xmlns='urn:example:two' z='1'/>tail</x><active xmlns='urn:example:three'/>"
    )
    await romeo.send(f"<message to='{juliet.full}' type='chat' id='&lt;1&gt;'>{content}</message>")
    await juliet.receives(
        f"<message from='{romeo.full}' to='{juliet.full}' type='chat' id='&lt;1&gt;'>{content}</message>"
    )


# --------------------------------------------------------------------------------------------------- presence


@pytest.mark.parametrize("kind", ["", " type='unavailable'"], ids=["available", "unavailable"])
@pytest.mark.parametrize("situation", ["absent", "offline", "negative", "one", "many"])
async def test_presence_to_a_bare_jid(server, auth, account, situation, kind):
    """RFC 6121, 8.5.2.1.2: to every available resource, whatever its priority."""
    romeo = await server.login(account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    await romeo.send(f"<presence to='{juliet.bare}'{kind}><status>hi</status></presence>")
    for client in juliet.negative + juliet.others:
        await client.receives(f"<presence from='{romeo.full}' to='{juliet.bare}'{kind}><status>hi</status></presence>")
    await romeo.receives_nothing()


@pytest.mark.parametrize("kind", ["", " type='unavailable'"], ids=["available", "unavailable"])
@pytest.mark.parametrize("situation", ["absent", "offline", "negative", "one", "many"])
async def test_presence_to_a_full_jid(server, auth, account, situation, kind):
    """RFC 6121, 8.5.3: to that resource alone, and nowhere if there is none."""
    romeo = await server.login(account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    await romeo.send(f"<presence to='{juliet.bare}/tomb'{kind}/>")
    await romeo.send(f"<presence to='{juliet.full}'{kind}/>")
    for client in juliet.negative + juliet.others:
        if client.full == juliet.full:
            await client.receives(f"<presence from='{romeo.full}' to='{juliet.full}'{kind}/>")
        await client.receives_nothing(after=[romeo])
    await romeo.receives_nothing()


@pytest.mark.parametrize("situation", ["absent", "offline", "one"])
async def test_probe_by_a_stranger(server, auth, account, situation):
    romeo = await server.login(account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    await romeo.send(f"<presence to='{juliet.bare}' type='probe'/>")
    await romeo.receives(f"<presence from='{juliet.bare}' to='{romeo.full}' type='unsubscribed'/>")
    for client in juliet.others:
        await client.receives_nothing()


async def test_presence_of_an_unknown_type(server, account):
    """RFC 6121, 4.7.1 lists the types; anything else is a bad request."""
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<presence to='{account('juliet').jid}' type='sleepy' id='1'/>")
    assert condition_of(await romeo.next()) == "bad-request"


# --------------------------------------------------------------------------------------------------------- IQ


@pytest.mark.parametrize("kind", ["get", "set"])
@pytest.mark.parametrize("situation", ["absent", "offline", "negative", "one", "many"])
async def test_request_to_a_full_jid_without_a_match(server, auth, account, situation, kind):
    romeo = await server.login(account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    to = f"{juliet.bare}/tomb"
    await romeo.send(f"<iq to='{to}' type='{kind}' id='1'>{UNKNOWN}</iq>")
    await romeo.receives(refusal("iq", "service-unavailable", sender=to, to=romeo.full, stanza_id="1"))
    for client in juliet.negative + juliet.others:
        await client.receives_nothing()


@pytest.mark.parametrize("kind", ["get", "set"])
@pytest.mark.parametrize("situation", ["absent", "offline", "negative", "one", "many"])
async def test_unknown_request_to_a_bare_jid(server, auth, account, situation, kind):
    """RFC 6121, 8.5.2.1.3: the server answers on behalf of the account, and resources don't hear of it."""
    romeo = await server.login(account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    await romeo.send(f"<iq to='{juliet.bare}' type='{kind}' id='1'>{UNKNOWN}</iq>")
    await romeo.receives(refusal("iq", "service-unavailable", sender=juliet.bare, to=romeo.full, stanza_id="1"))
    for client in juliet.negative + juliet.others:
        await client.receives_nothing()


@pytest.mark.parametrize("situation", ["negative", "one", "many"])
async def test_request_and_result_between_resources(server, auth, account, situation):
    romeo = await server.login(account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    asked = next(client for client in juliet.negative + juliet.others if client.full == juliet.full)
    for kind in ("get", "set"):
        await romeo.send(f"<iq to='{juliet.full}' type='{kind}' id='1'>{UNKNOWN}</iq>")
        await asked.receives(f"<iq from='{romeo.full}' to='{juliet.full}' type='{kind}' id='1'>{UNKNOWN}</iq>")
        await asked.send(f"<iq to='{romeo.full}' type='result' id='1'/>")
        await romeo.receives(f"<iq from='{juliet.full}' to='{romeo.full}' type='result' id='1'/>")
    sent = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    await asked.send(f"<iq to='{romeo.full}' type='error' id='2'>{sent}</iq>")
    await romeo.receives(f"<iq from='{juliet.full}' to='{romeo.full}' type='error' id='2'>{sent}</iq>")


@pytest.mark.parametrize("kind", ["result", "error"])
@pytest.mark.parametrize("address", ["bare", "other", "host", "none"])
@pytest.mark.parametrize("situation", ["absent", "offline", "one"])
async def test_answers_that_nobody_waits_for(server, auth, situation, address, kind):
    """RFC 6120, 8.2.3 and 8.3.1: no answer to an answer."""
    romeo = await server.login(auth.account("romeo"))
    juliet = await recipient_in(situation, server, auth)
    to = {"bare": juliet.bare, "other": f"{juliet.bare}/tomb", "host": "localhost", "none": ""}[address]
    addressed = f" to='{to}'" if to else ""
    await romeo.send(f"<iq{addressed} type='{kind}' id='1'/>")
    await romeo.receives_nothing()
    for client in juliet.others:
        await client.receives_nothing()


async def test_unknown_requests_to_the_server(server, account):
    romeo = await server.login(account("romeo"))
    for to in ("localhost", None, romeo.bare):
        for kind in ("get", "set"):
            assert condition_of(await romeo.iq(kind, UNKNOWN, to=to)) == "service-unavailable"


async def test_answers_of_the_server_come_from_the_address_that_was_asked(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send(
        f"<iq type='get' id='1' to='localhost'>{PING}</iq><iq type='get' id='2' to='{romeo.bare}'>{PING}</iq>"
    )
    await romeo.receives(f"<iq type='result' id='1' from='localhost' to='{romeo.full}'/>")
    await romeo.receives(f"<iq type='result' id='2' from='{romeo.bare}' to='{romeo.full}'/>")


BAD_REQUESTS = {
    "no id": f"<iq type='get' to='localhost'>{PING}</iq>",
    "no type": f"<iq id='1' to='localhost'>{PING}</iq>",
    "unknown type": f"<iq type='ask' id='1' to='localhost'>{PING}</iq>",
    "no child": "<iq type='get' id='1' to='localhost'/>",
    "two children": f"<iq type='get' id='1' to='localhost'>{PING}{PING}</iq>",
}


@pytest.mark.parametrize("xml", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_bad_requests(server, account, xml):
    romeo = await server.login(account("romeo"))
    await romeo.send(xml)
    assert condition_of(await romeo.next()) == "bad-request"


@pytest.mark.parametrize("xml", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_bad_requests_are_not_passed_on(server, account, xml):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(xml.replace("localhost", juliet.full))
    assert condition_of(await romeo.next()) == "bad-request"
    await juliet.receives_nothing()


# -------------------------------------------------------------------------------------------------- addresses


async def test_message_to_the_server(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send("<message to='localhost' id='1'><body>hi</body></message>")
    await romeo.receives(refusal("message", "service-unavailable", sender="localhost", to=romeo.full, stanza_id="1"))


async def test_presence_to_the_server(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send("<presence to='localhost'/><presence to='localhost' type='unavailable'/>")
    await romeo.receives_nothing()


@pytest.mark.parametrize("name", ["message", "iq", "presence"])
async def test_unknown_domain(server, account, name):
    romeo = await server.login(account("romeo"))
    stanza = {
        "message": "<message to='juliet@unknown.example' id='1'><body>hi</body></message>",
        "iq": f"<iq type='get' to='juliet@unknown.example' id='1'>{PING}</iq>",
        "presence": "<presence type='subscribe' to='juliet@unknown.example' id='1'/>",
    }[name]
    await romeo.send(stanza)
    answers = [node for node in await romeo.drained() if node.get("type") == "error"]
    assert [condition_of(node) for node in answers] == ["remote-server-not-found"]
    assert answers[0].get("from") == "juliet@unknown.example"
    assert answers[0].get("id") == "1"


async def test_errors_to_an_unknown_domain_are_dropped(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send("<message to='juliet@unknown.example' type='error'/>")
    await romeo.send("<iq to='juliet@unknown.example' type='result' id='1'/>")
    await romeo.receives_nothing()


@pytest.mark.parametrize(
    "to",
    [
        "@localhost",
        "juliet@",
        "juliet@localhost/",
        "ju liet@localhost",
        "ju&lt;liet@localhost",
        "a@b@c",
        "/balcony",
        "",
        "juliet@loc alhost",
        "x" * 1024 + "@localhost",
        "juliet@localhost/" + "x" * 1024,
        "juliet@-bad-.example",
    ],
)
@pytest.mark.parametrize("name", ["message", "iq", "presence"])
async def test_malformed_addresses(server, account, to, name):
    romeo = await server.login(account("romeo"))
    kind = " type='get'" if name == "iq" else ""
    await romeo.send(f"<{name} to='{to}' id='1'{kind}/>")
    answer = await romeo.next()
    assert condition_of(answer) == "jid-malformed"
    assert answer.get("id") == "1"
    assert answer.get("to") == romeo.full


async def test_addresses_are_normalised(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    spelled = f"{juliet.bare.upper()}"
    await romeo.send(f"<message to='{spelled}' type='chat'><body>hi</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{ANY}' type='chat'><body>hi</body></message>")


async def test_between_two_resources_of_one_account(server, account):
    romeo = account("romeo")
    one, other = await server.online(romeo, "one"), await server.login(romeo, "other")
    await other.send(f"<message to='{one.full}'><body>hi</body></message>")
    await one.receives(f"<message from='{other.full}' to='{one.full}'><body>hi</body></message>")

"""In-band registration (XEP-0077): off by default, and what it does where it is switched on."""

from __future__ import annotations

import pytest

from tests.support.accounts import Account, fresh_name
from tests.support.client import SASL, befriend
from tests.support.matching import assert_matches, show
from tests.support.polling import eventually
from tests.support.roster import ROSTER, item, set_item
from tests.support.stanzas import condition_of, payload_of

REGISTER = "jabber:iq:register"
FEATURE = "http://jabber.org/features/iq-register"
ON = {"modules": {"register": {"enabled": True, "per_address": 100_000, "in_total": 100_000}}}


def fields(user: str, password: str = "sesame") -> str:
    """A filled-in registration."""
    return f"<query xmlns='{REGISTER}'><username>{user}</username><password>{password}</password></query>"


def new_account(name: str = "romeo") -> Account:
    """An account that does not exist yet."""
    return Account(fresh_name(name), "localhost", "sesame")


# ------------------------------------------------------------------------------------------------ switched off


async def test_not_on_offer_by_default(server, account):
    client = await server.stream()
    assert not client.offers(FEATURE, "register")
    romeo = await server.login(account("romeo"))
    answer = await romeo.get("<query xmlns='http://jabber.org/protocol/disco#info'/>", to="localhost")
    assert REGISTER not in {node.get("var") for node in payload_of(answer)}


@pytest.mark.parametrize("kind", ["get", "set"])
async def test_refused_by_default(server, auth, kind):
    client = await server.stream()
    wanted = auth.absent()
    await client.send(f"<iq type='{kind}' id='r'>{fields(wanted.user)}</iq>")
    await client.stream_error("not-authorized")
    login = await server.stream()
    assert (await login.sasl(wanted)).tag == f"{{{SASL}}}failure"


# ------------------------------------------------------------------------------------------------- switched on


async def test_registering(server_with):
    server = server_with(ON)
    client = await server.stream()
    assert client.offers(FEATURE, "register")
    form = payload_of(await client.get(f"<query xmlns='{REGISTER}'/>"))
    assert form.find(f"{{{REGISTER}}}username") is not None
    assert form.find(f"{{{REGISTER}}}password") is not None
    romeo = new_account()
    answer = await client.set(fields(romeo.user))
    assert answer.get("type") == "result"
    await client.authenticate(romeo)
    await client.bind()


async def test_registered_accounts_can_use_every_mechanism(server_with):
    server = server_with(ON)
    client, romeo = await server.stream(), new_account()
    await client.set(fields(romeo.user))
    for mechanism in ("PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        await server.login(romeo, mechanism=mechanism)


async def test_the_password_is_not_stored_in_clear(server_with, auth):
    server = server_with(ON)
    client, romeo = await server.stream(), new_account()
    await client.set(fields(romeo.user, "a very secret password"))
    assert "secret" not in auth.stored_token(romeo)
    assert "secret" not in server.log


async def test_existing_account(server_with, account):
    server = server_with(ON)
    client, romeo = await server.stream(), account("romeo")
    assert condition_of(await client.set(fields(romeo.user, "stolen"))) == "conflict"
    await server.login(romeo)


@pytest.mark.parametrize(
    "payload",
    [
        f"<query xmlns='{REGISTER}'/>",
        f"<query xmlns='{REGISTER}'><username>somebody</username></query>",
        f"<query xmlns='{REGISTER}'><password>sesame</password></query>",
        fields("", "sesame"),
        fields("a b"),
        fields("a@b"),
        fields("x" * 1024),
        fields("true"),
        fields("false"),
    ],
)
async def test_bad_registrations(server_with, payload):
    server = server_with(ON)
    client = await server.stream()
    assert condition_of(await client.set(payload)) in ("bad-request", "not-acceptable", "jid-malformed", "not-allowed")


async def test_names_are_normalised(server_with):
    server = server_with(ON)
    client, romeo = await server.stream(), new_account()
    assert (await client.set(fields(romeo.user.upper()))).get("type") == "result"
    await server.login(romeo)


@pytest.mark.one_worker("each worker counts for itself")
async def test_rate_limit(server_with):
    server = server_with({"modules": {"register": {"enabled": True, "per_address": 2}}})
    for expected in ("result", "result", "error"):
        client = await server.stream(source="127.0.0.7")
        answer = await client.set(fields(new_account().user))
        assert answer.get("type") == expected
    assert condition_of(answer) in ("resource-constraint", "not-allowed", "policy-violation")
    client = await server.stream(source="127.1.0.8")
    assert (await client.set(fields(new_account().user))).get("type") == "result", "others are not held up"


async def test_not_before_required_tls(server_with):
    server = server_with(ON)
    client = await server.connect(required=True)
    await client.open_stream()
    assert not client.offers(FEATURE, "register")
    await client.send(f"<iq type='set' id='r'>{fields(new_account().user)}</iq>")
    await client.stream_error("not-authorized")


# ------------------------------------------------------------------------------------- of one's own account


async def test_the_form_of_somebody_who_is_registered(server_with, account):
    server = server_with(ON)
    romeo = await server.login(account("romeo"))
    form = payload_of(await romeo.get(f"<query xmlns='{REGISTER}'/>"))
    assert form.find(f"{{{REGISTER}}}registered") is not None
    assert form.findtext(f"{{{REGISTER}}}username") == romeo.account.user
    assert not form.findtext(f"{{{REGISTER}}}password")


async def test_changing_the_password(server_with, account):
    server = server_with(ON)
    romeo = await server.login(account("romeo"))
    answer = await romeo.set(fields(romeo.account.user, "changed"), to="localhost")
    assert answer.get("type") == "result"
    client = await server.stream()
    assert_matches(await client.sasl(romeo.account), f"<failure xmlns='{SASL}'><not-authorized/>{{more}}</failure>")
    assert_matches(await client.sasl(romeo.account, password="changed"), f"<success xmlns='{SASL}'/>")


async def test_changing_the_password_of_somebody_else(server_with, account):
    server = server_with(ON)
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    answer = await romeo.set(fields(juliet.user, "stolen"), to="localhost")
    assert answer.get("type") == "error"
    await server.login(juliet)


async def test_removing_the_account(server_with, account):
    server = server_with(ON)
    romeo = await server.login(account("romeo"))
    other = await server.login(romeo.account)
    await set_item(romeo, "nurse@elsewhere.example")
    await romeo.send(f"<iq type='set' id='bye'><query xmlns='{REGISTER}'><remove/></query></iq>")
    await romeo.receives(f"<iq type='result' id='bye' to='{romeo.full}'/>")
    await romeo.stream_error("not-authorized")
    await other.stream_error("not-authorized")
    client = await server.stream()
    assert (await client.sasl(romeo.account)).tag == f"{{{SASL}}}failure"


async def test_nothing_is_left_for_the_next_one_with_that_name(server_with, auth, account):
    server = server_with(ON)
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.set("<vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard>")
    await romeo.send(f"<iq type='set' id='bye'><query xmlns='{REGISTER}'><remove/></query></iq>")
    await romeo.receives(f"<iq type='result' id='bye' to='{romeo.full}'/>")
    await romeo.stream_error("not-authorized")
    await eventually(
        lambda: item(juliet, romeo.bare), lambda found: found.state == ("none", False), "contacts are told"
    )
    await juliet.send(f"<message to='{romeo.bare}' type='chat'><body>where are you?</body></message>")
    await juliet.settled()
    auth.insert(romeo.account)
    again = await server.stream(source="127.0.0.9")
    await again.authenticate(romeo.account)
    await again.bind()
    assert len(payload_of(await again.get(f"<query xmlns='{ROSTER}'/>"))) == 0
    card = await again.get("<vCard xmlns='vcard-temp'/>")
    assert card.get("type") == "error" or len(payload_of(card)) == 0
    await again.available()
    assert [node for node in await again.drained() if node.tag.endswith("}message")] == []


async def test_removal_by_somebody_who_is_not_logged_in(server_with, account):
    server = server_with(ON)
    romeo, client = account("romeo"), await server.stream()
    await client.send(
        f"<iq type='set' id='bye'><query xmlns='{REGISTER}'><remove/><username>{romeo.user}</username></query></iq>"
    )
    answer = await client.next()
    assert answer.get("type") == "error" or answer.tag.endswith("}error"), show(answer)
    await server.login(romeo)

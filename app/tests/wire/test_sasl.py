"""SASL (RFC 6120 section 6): every mechanism, every failure, and what a stream goes through with them."""

from __future__ import annotations

import pytest

from tests.support import sasl
from tests.support.client import SASL, decoded
from tests.support.matching import ANY, assert_matches
from tests.support.server import fresh_address

pytestmark = pytest.mark.one_worker("the worker that has the connection authenticates")

SCRAMS = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
PLUS = [f"{name}-PLUS" for name in SCRAMS]
CHANNEL_BINDING = "urn:xmpp:sasl-cb:0"


def failure(condition: str) -> str:
    """A ``<failure/>``, with or without a text for people."""
    return f"<failure xmlns='{SASL}'><{condition}/>{{more}}</failure>"


# ------------------------------------------------------------------------------------------------- mechanisms


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAMS])
@pytest.mark.parametrize("transport", ["clear", "direct"])
async def test_mechanisms(server, account, mechanism, transport):
    romeo = await server.login(account("romeo"), transport=transport, mechanism=mechanism)
    await romeo.settled()


@pytest.mark.parametrize("mechanism", PLUS)
@pytest.mark.parametrize("transport", ["starttls", "direct"])
async def test_bound_mechanisms(server, account, mechanism, transport):
    romeo = await server.login(account("romeo"), transport=transport, mechanism=mechanism)
    await romeo.settled()


async def test_mechanisms_on_offer(server):
    clear, secure = await server.stream(), await server.stream("direct")
    assert clear.mechanisms == ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]
    assert set(secure.mechanisms) == {"PLAIN", *SCRAMS, *PLUS}
    assert secure.mechanisms[-1] == "PLAIN", "strongest first"


async def test_channel_bindings_on_offer(server):
    clear, secure = await server.stream(), await server.stream("direct")
    assert not clear.offers(CHANNEL_BINDING, "sasl-channel-binding")
    offered = secure.feature(CHANNEL_BINDING, "sasl-channel-binding")
    assert "tls-server-end-point" in [node.get("type") for node in offered]


async def test_the_second_login_uses_the_upgraded_credentials(server, auth, account):
    """contracts.md, 4: the token in clear is replaced by its SCRAM form, and every mechanism still works."""
    romeo = account("romeo")
    assert auth.stored_token(romeo) == "sesame"
    await server.login(romeo)
    assert auth.stored_token(romeo).startswith("==MULTI_SCRAM==")
    for mechanism in ("PLAIN", *SCRAMS):
        await server.login(romeo, mechanism=mechanism)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("password", ["pass word", "pässwörd", "p=q,r", "密码", "<&>'\"", "x" * 200, "a\u00a0b"])
async def test_passwords_of_all_kinds(server, account, mechanism, password):
    await server.login(account("romeo", password=password), mechanism=mechanism)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1"])
async def test_user_names_are_mapped(server, account, mechanism):
    """RFC 7622, 3.3: the localpart is case-folded."""
    romeo = account("romeo")
    client = await server.stream()
    spelled = type(romeo)(romeo.user.upper(), romeo.host, romeo.password)
    await client.authenticate(spelled, mechanism)
    assert (await client.bind()).startswith(f"{romeo.user}@localhost/")


async def test_user_names_beyond_ascii(server, account):
    romeo = account("rômeo")
    client = await server.login(romeo)
    assert client.bare == romeo.jid


async def test_plain_without_initial_response(server, account):
    romeo = account("romeo")
    client = await server.stream()
    challenge = await client.auth("PLAIN", None)
    assert_matches(challenge, f"<challenge xmlns='{SASL}'/>")
    answer = await client.respond(sasl.plain(romeo.user, romeo.password))
    assert_matches(answer, f"<success xmlns='{SASL}'/>")


async def test_scram_without_initial_response(server, account):
    romeo = account("romeo")
    client = await server.stream()
    exchange = client.scram("SCRAM-SHA-256", romeo)
    assert_matches(await client.auth("SCRAM-SHA-256", None), f"<challenge xmlns='{SASL}'/>")
    challenge = await client.respond(exchange.first())
    answer = await client.respond(exchange.final(decoded(challenge)))
    assert_matches(answer, f"<success xmlns='{SASL}'>{ANY}</success>")
    exchange.verify(decoded(answer))


async def test_the_server_proves_itself(server, account):
    """The signature of SCRAM is checked in every login here; this says so with the wrong key."""
    client = await server.stream()
    exchange = client.scram("SCRAM-SHA-1", account("romeo"))
    challenge = await client.auth("SCRAM-SHA-1", exchange.first())
    answer = await client.respond(exchange.final(decoded(challenge)))
    with pytest.raises(AssertionError):
        exchange.verify(b"v=" + b"A" * 28)
    exchange.verify(decoded(answer))


async def test_plain_answers_success_without_data(server, account):
    client = await server.stream()
    answer = await client.sasl(account("romeo"))
    assert not answer.text


# --------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAMS])
async def test_wrong_password(server, account, mechanism):
    client = await server.stream()
    assert_matches(await client.sasl(account("romeo"), mechanism, password="wrong"), failure("not-authorized"))


@pytest.mark.parametrize("mechanism", PLUS)
async def test_wrong_password_with_binding(server, account, mechanism):
    client = await server.stream("direct")
    assert_matches(await client.sasl(account("romeo"), mechanism, password="wrong"), failure("not-authorized"))


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAMS])
async def test_absent_account(server, auth, mechanism):
    client = await server.stream()
    assert_matches(await client.sasl(auth.absent(), mechanism), failure("not-authorized"))


async def test_account_of_another_host(server, account):
    client = await server.stream(host="other.example")
    assert_matches(await client.sasl(account("romeo")), failure("not-authorized"))


async def test_accounts_of_two_hosts_with_one_name(server, auth, account):
    here = account("romeo", password="here")
    there = type(here)(here.user, "other.example", "there")
    auth.insert(there)
    client = await server.stream(host="other.example")
    assert_matches(await client.sasl(here), failure("not-authorized"))
    assert_matches(await client.sasl(there), f"<success xmlns='{SASL}'/>")


async def test_empty_password(server, account):
    client = await server.stream()
    answer = await client.sasl(account("romeo"), password="")
    assert answer.tag == f"{{{SASL}}}failure"


@pytest.mark.parametrize("mechanism", ["DIGEST-MD5", "ANONYMOUS", "EXTERNAL", "X-OAUTH2", "", "plain"])
async def test_mechanism_that_is_not_on_offer(server, mechanism):
    client = await server.stream()
    assert_matches(await client.auth(mechanism, b"x"), failure("invalid-mechanism"))


async def test_bound_mechanism_in_clear(server):
    client = await server.stream()
    assert_matches(
        await client.auth("SCRAM-SHA-1-PLUS", b"p=tls-server-end-point,,n=a,r=b"), failure("invalid-mechanism")
    )


async def test_no_base64(server):
    client = await server.stream()
    await client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>not base64!</auth>")
    await client.receives(failure("incorrect-encoding"))


@pytest.mark.parametrize(
    "message",
    [b"", b"x", b"\0", b"romeo\0sesame", b"\0\0", b"\0romeo\0", b"\0romeo\0a\0b", b"\xff\0\xfe\0\xfd", b"\0" * 4],
)
async def test_malformed_plain(server, message):
    client = await server.stream(source=fresh_address())
    answer = await client.auth("PLAIN", message)
    assert answer.tag == f"{{{SASL}}}failure"
    assert answer[0].tag.rpartition("}")[2] in ("malformed-request", "not-authorized")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"x",
        b"n,,",
        b"n,,n=romeo",
        b"n,,r=abc,n=romeo",
        b"n,,n=,r=abc",
        b"n,,n=romeo,r=",
        b"n,n=romeo,r=abc",
        b"n,,m=ext,n=romeo,r=abc",
        b"n,,n=ro=meo,r=abc",
        b"x,,n=romeo,r=abc",
        b"n,,n=\xff,r=abc",
    ],
)
async def test_malformed_scram(server, message):
    client = await server.stream(source=fresh_address())
    answer = await client.auth("SCRAM-SHA-1", message)
    assert answer.tag == f"{{{SASL}}}failure"
    assert answer[0].tag.rpartition("}")[2] in ("malformed-request", "not-authorized")


@pytest.mark.parametrize("final", [b"", b"x", b"c=biws", b"c=biws,r=other,p=AAAA", b"c=eSws,r={nonce},p=AAAA"])
async def test_malformed_end_of_scram(server, account, final):
    client = await server.stream()
    exchange = client.scram("SCRAM-SHA-1", account("romeo"))
    challenge = decoded(await client.auth("SCRAM-SHA-1", exchange.first()))
    nonce = challenge.split(b",")[0].removeprefix(b"r=")
    answer = await client.respond(final.replace(b"{nonce}", nonce))
    assert answer.tag == f"{{{SASL}}}failure"
    assert answer[0].tag.rpartition("}")[2] in ("malformed-request", "not-authorized")


async def test_a_proof_is_good_for_one_exchange(server, account):
    """A recorded exchange can't be played again."""
    romeo, client = account("romeo"), await server.stream()
    exchange = client.scram("SCRAM-SHA-1", romeo)
    challenge = await client.auth("SCRAM-SHA-1", exchange.first())
    final = exchange.final(decoded(challenge))
    assert (await client.respond(final)).tag == f"{{{SASL}}}success"
    replay = await server.stream()
    await replay.auth("SCRAM-SHA-1", exchange.first())
    assert_matches(await replay.respond(final), failure("not-authorized"))


async def test_response_without_auth(server):
    client = await server.stream()
    assert_matches(await client.respond(b"x"), failure("malformed-request"))


async def test_abort(server, account):
    romeo, client = account("romeo"), await server.stream()
    exchange = client.scram("SCRAM-SHA-1", romeo)
    await client.auth("SCRAM-SHA-1", exchange.first())
    await client.send(f"<abort xmlns='{SASL}'/>")
    await client.receives(failure("aborted"))
    await client.authenticate(romeo)


async def test_retry_on_the_same_stream(server, account):
    romeo, client = account("romeo"), await server.stream()
    for mechanism in ("PLAIN", "SCRAM-SHA-1"):
        assert_matches(await client.sasl(romeo, mechanism, password="wrong"), failure("not-authorized"))
    await client.authenticate(romeo)
    await client.bind()


async def test_too_many_attempts(server, account):
    romeo, client = account("romeo"), await server.stream()
    for _ in range(2):
        assert_matches(await client.sasl(romeo, password="wrong"), failure("not-authorized"))
    assert_matches(await client.sasl(romeo, password="wrong"), failure("not-authorized"))
    await client.stream_error("policy-violation")


async def test_other_failures_count_as_attempts_too(server):
    client = await server.stream()
    for _ in range(3):
        assert_matches(await client.auth("NOTHING", b"x"), failure("invalid-mechanism"))
    await client.stream_error("policy-violation")


# -------------------------------------------------------------------------------------------- channel binding


async def test_binding_of_another_connection(server, account):
    client = await server.stream("direct")
    exchange = client.scram("SCRAM-SHA-256-PLUS", account("romeo"))
    exchange.binding = ("tls-server-end-point", b"\0" * 32)
    challenge = await client.auth("SCRAM-SHA-256-PLUS", exchange.first())
    assert_matches(await client.respond(exchange.final(decoded(challenge))), failure("not-authorized"))


async def test_binding_type_that_is_not_on_offer(server, account):
    client = await server.stream("direct", source=fresh_address())
    exchange = client.scram("SCRAM-SHA-256-PLUS", account("romeo"))
    exchange.binding = ("tls-nothing", b"x")
    answer = await client.auth("SCRAM-SHA-256-PLUS", exchange.first())
    assert answer.tag == f"{{{SASL}}}failure"


async def test_the_client_was_told_that_there_is_no_binding(server, account):
    """RFC 5802, 6: flag `y` where -PLUS was offered means that somebody has removed it from the list."""
    client = await server.stream("direct", source=fresh_address())
    exchange = client.scram("SCRAM-SHA-256", account("romeo"))
    exchange.flag = "y"
    answer = await client.auth("SCRAM-SHA-256", exchange.first())
    if answer.tag == f"{{{SASL}}}challenge":
        answer = await client.respond(exchange.final(decoded(answer)))
    assert answer.tag == f"{{{SASL}}}failure"


async def test_the_flag_y_is_fine_in_clear(server, account):
    client = await server.stream()
    exchange = client.scram("SCRAM-SHA-256", account("romeo"))
    exchange.flag = "y"
    challenge = await client.auth("SCRAM-SHA-256", exchange.first())
    answer = await client.respond(exchange.final(decoded(challenge)))
    assert answer.tag == f"{{{SASL}}}success"


async def test_plus_without_binding(server, account):
    client = await server.stream("direct", source=fresh_address())
    exchange = client.scram("SCRAM-SHA-256", account("romeo"))
    answer = await client.auth("SCRAM-SHA-256-PLUS", exchange.first())
    assert answer.tag == f"{{{SASL}}}failure"


# ----------------------------------------------------------------------------------------------- the password


async def test_password_changed_by_the_operator(server_with, auth, account):
    server = server_with({"auth": {"cache_time": "0 s"}})
    romeo = account("romeo")
    await server.login(romeo)
    auth.execute("update web_users set token = 'changed' where node = ?", romeo.user)
    client = await server.stream()
    assert_matches(await client.sasl(romeo), failure("not-authorized"))
    assert_matches(await client.sasl(romeo, password="changed"), f"<success xmlns='{SASL}'/>")


async def test_account_removed_by_the_operator(server_with, auth, account):
    server = server_with({"auth": {"cache_time": "0 s"}})
    romeo = account("romeo")
    await server.login(romeo)
    auth.execute("delete from web_users where node = ?", romeo.user)
    client = await server.stream()
    assert_matches(await client.sasl(romeo), failure("not-authorized"))


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAMS])
async def test_password_format_plain(server, account, mechanism):
    """The service checks PLAIN itself; for SCRAM it gives the password out."""
    romeo = account("romeo", host="plain.example")
    await server.login(romeo, mechanism=mechanism)
    client = await server.stream(host="plain.example")
    assert_matches(await client.sasl(romeo, mechanism, password="wrong"), failure("not-authorized"))


async def test_configured_mechanisms(server_with):
    server = server_with({"auth": {"mechanisms": ["SCRAM-SHA-256"]}})
    client = await server.stream("direct")
    assert set(client.mechanisms) == {"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}
    assert_matches(await client.auth("PLAIN", sasl.plain("a", "b")), failure("invalid-mechanism"))

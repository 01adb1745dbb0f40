"""What SCRAM refuses, channel binding, and accounts that are not there."""

from __future__ import annotations

import pytest

from monktalk.common import scram
from monktalk.xmpp.protocol import sasl
from monktalk.xmpp.protocol.sasl import Challenge, SaslFailure
from tests.unit.xmpp.protocol.sasl_client import (
    BINDINGS,
    END_POINT,
    HASHES,
    HOST,
    PROOF,
    at_final,
    client_final,
    keys_of,
    refusal,
    scram_login,
    start,
)


@pytest.mark.parametrize("mechanism", HASHES)
def test_scram_without_initial_response_is_asked_for_its_message(mechanism):
    exchange = start(mechanism)
    assert exchange.respond(None) == Challenge(b"")
    assert scram_login(exchange).username == "alice"


def test_scram_refuses_a_wrong_password():
    with pytest.raises(SaslFailure, match="not-authorized: The user name or the password is wrong"):
        scram_login(start("SCRAM-SHA-256"), password="wrong")


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (b"", "malformed-request"),
        (b"n", "malformed-request"),
        (b"n,", "malformed-request"),
        (b"n,,", "malformed-request"),
        (b"n,,n=alice", "malformed-request"),
        (b"n,,r=nonce,n=alice", "malformed-request"),
        (b"n,,n=alice,r=", "malformed-request"),
        (b"n,,n=alice,r=non\x7fce", "malformed-request"),
        (b"n,,n=alice,r=no nce", "malformed-request"),
        (b"n,,n=,r=nonce", "malformed-request"),
        (b"n,,n=a=b,r=nonce", "malformed-request"),
        (b"n,,n=a=2cb,r=nonce", "malformed-request"),
        (b"n,,n=a\0b,r=nonce", "malformed-request"),
        (b"n,,m=ext,n=alice,r=nonce", "malformed-request"),
        (b"n,,n=alice,r=nonce,m=ext", "malformed-request"),
        (b"n,,n=alice,r=nonce,", "malformed-request"),
        (b"n,,n=alice,r=nonce,1=x", "malformed-request"),
        (b"n,a=,n=alice,r=nonce", "malformed-request"),
        (b"n,alice,n=alice,r=nonce", "malformed-request"),
        (b"x,,n=alice,r=nonce", "malformed-request"),
        (b"N,,n=alice,r=nonce", "malformed-request"),
        (b"p=,,n=alice,r=nonce", "malformed-request"),
        (b"n,,n=\xff,r=nonce", "malformed-request"),
        (b"n,,n=alice@other.example,r=nonce", "not-authorized"),
        (b"n,,n=al ice,r=nonce", "not-authorized"),
    ],
)
def test_first_messages_of_scram_that_are_refused(message, condition):
    assert refusal(start("SCRAM-SHA-1").respond, message) == condition


def test_optional_extensions_are_ignored_and_signed():
    exchange = start("SCRAM-SHA-1")
    bare = "n=alice,r=clientnonce,t=extension,z=another"
    exchange.respond(f"n,,{bare}".encode())
    challenge = exchange.supply(keys_of("secret"))
    nonce = challenge.data.decode().split(",")[0][2:]
    final = client_final(nonce, bare, challenge.data, "secret", cbind_input=b"n,,")
    assert exchange.respond(final).username == "alice"


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (None, "malformed-request"),
        (b"", "malformed-request"),
        (b"c=biws,r=clientnonceservernonce", "malformed-request"),
        (f"r=clientnonceservernonce,c=biws,p={PROOF}".encode(), "malformed-request"),
        (f"c=biws,p={PROOF}".encode(), "malformed-request"),
        (f"c=biws,r=clientnonceservernonce,p={PROOF},x=y".encode(), "malformed-request"),
        (f"c=biws,r=clientnonceservernonce,m=ext,p={PROOF}".encode(), "malformed-request"),
        (f"c=!,r=clientnonceservernonce,p={PROOF}".encode(), "malformed-request"),
        (b"c=biws,r=clientnonceservernonce,p=!", "malformed-request"),
        (b"c=biws,r=clientnonceservernonce,p=AAAA", "malformed-request"),
        (b"c=biws,r=clientnonceservernonce,p=", "malformed-request"),
        (f"c=biws,r=clientnonceservernonce,p={PROOF}\xff".encode("latin-1"), "malformed-request"),
        (f"c=eSws,r=clientnonceservernonce,p={PROOF}".encode(), "not-authorized"),
        (f"c=,r=clientnonceservernonce,p={PROOF}".encode(), "not-authorized"),
        (f"c=biws,r=clientnonce,p={PROOF}".encode(), "not-authorized"),
        (f"c=biws,r=servernonce,p={PROOF}".encode(), "not-authorized"),
        (f"c=biws,r=clientnonceservernonceé,p={PROOF}".encode(), "not-authorized"),
        (f"c=biws,r=clientnonceservernonce,p={PROOF}".encode(), "not-authorized"),
    ],
)
def test_last_messages_of_scram_that_are_refused(message, condition):
    assert refusal(at_final().respond, message) == condition


def test_a_recorded_login_cannot_be_played_again():
    first = b"n,,n=alice,r=clientnonce"
    recorded = start("SCRAM-SHA-1")
    recorded.respond(first)
    challenge = recorded.supply(keys_of("secret"))
    nonce = challenge.data.decode().split(",")[0][2:]
    final = client_final(nonce, "n=alice,r=clientnonce", challenge.data, "secret", cbind_input=b"n,,")
    assert recorded.respond(final).username == "alice"
    replay = start("SCRAM-SHA-1")
    replay.respond(first)
    replay.supply(keys_of("secret"))
    assert refusal(replay.respond, final) == "not-authorized"


@pytest.mark.parametrize("nonce", ["clientnonce", "servernonce", "clientnonceservernonc", "other"])
def test_a_proof_for_another_nonce_is_refused(nonce):
    exchange = start("SCRAM-SHA-1", nonce="servernonce")
    bare = "n=alice,r=clientnonce"
    exchange.respond(f"n,,{bare}".encode())
    challenge = exchange.supply(keys_of("secret"))
    final = client_final(nonce, bare, challenge.data, "secret", cbind_input=b"n,,")
    assert refusal(exchange.respond, final) == "not-authorized"


def test_a_mandatory_extension_is_refused_by_its_name():
    with pytest.raises(SaslFailure, match="mandatory extension"):
        start("SCRAM-SHA-1").respond(b"n,,m=ext,n=alice,r=nonce")


def test_nonces_do_not_repeat():
    nonces = set()
    for _ in range(100):
        exchange = start("SCRAM-SHA-1")
        exchange.respond(b"n,,n=alice,r=c")
        nonces.add(exchange.supply(keys_of("secret", iterations=1)).data.split(b",")[0])
    assert len(nonces) == 100
    assert all(len(nonce) >= len("r=c") + 24 for nonce in nonces)


# --------------------------------------------------------------------------------------- channel binding


@pytest.mark.parametrize("kind", BINDINGS)
@pytest.mark.parametrize("mechanism", HASHES)
def test_channel_binding(mechanism, kind):
    exchange = start(f"{mechanism}-PLUS", bindings=BINDINGS, plus_offered=True)
    header = f"p={kind},,".encode()
    assert scram_login(exchange, header, binding=BINDINGS[kind]).username == "alice"


@pytest.mark.parametrize(
    "binding", [b"", b"the hash of another certificate", END_POINT["tls-server-end-point"] + b"\0"]
)
def test_the_binding_of_another_connection_is_refused(binding):
    exchange = start("SCRAM-SHA-1-PLUS", bindings=END_POINT, plus_offered=True)
    with pytest.raises(SaslFailure, match="not-authorized: The channel binding"):
        scram_login(exchange, b"p=tls-server-end-point,,", binding=binding)


def test_the_binding_must_be_of_the_type_that_was_named():
    exchange = start("SCRAM-SHA-1-PLUS", bindings=BINDINGS, plus_offered=True)
    with pytest.raises(SaslFailure, match="not-authorized: The channel binding"):
        scram_login(exchange, b"p=tls-exporter,,", binding=BINDINGS["tls-server-end-point"])


def test_a_header_that_changes_between_the_messages_is_refused():
    exchange = start("SCRAM-SHA-1-PLUS", bindings=END_POINT, plus_offered=True)
    bare = "n=alice,r=clientnonce"
    exchange.respond(b"p=tls-server-end-point,," + bare.encode())
    challenge = exchange.supply(keys_of("secret"))
    nonce = challenge.data.decode().split(",")[0][2:]
    final = client_final(nonce, bare, challenge.data, "secret", cbind_input=b"n,,")
    assert refusal(exchange.respond, final) == "not-authorized"


def test_a_client_that_was_kept_from_channel_binding_is_refused():
    exchange = start("SCRAM-SHA-1", bindings=END_POINT, plus_offered=True)
    assert refusal(exchange.respond, b"y,,n=alice,r=nonce") == "not-authorized"


def test_a_client_that_could_bind_is_welcome_where_nothing_was_offered():
    assert scram_login(start("SCRAM-SHA-1"), b"y,,").username == "alice"


def test_a_client_that_cannot_bind_is_welcome():
    exchange = start("SCRAM-SHA-1", bindings=END_POINT, plus_offered=True)
    assert scram_login(exchange, b"n,,").username == "alice"


@pytest.mark.parametrize("flag", [b"n", b"y"])
def test_plus_needs_a_binding(flag):
    exchange = start("SCRAM-SHA-1-PLUS", bindings=END_POINT, plus_offered=True)
    assert refusal(exchange.respond, flag + b",,n=alice,r=nonce") == "malformed-request"


def test_a_binding_needs_plus():
    exchange = start("SCRAM-SHA-1", bindings=END_POINT, plus_offered=True)
    assert refusal(exchange.respond, b"p=tls-server-end-point,,n=alice,r=nonce") == "malformed-request"


@pytest.mark.parametrize("kind", ["tls-unique", "tls-exporter", "TLS-SERVER-END-POINT"])
def test_types_of_binding_that_are_not_offered(kind):
    exchange = start("SCRAM-SHA-1-PLUS", bindings=END_POINT, plus_offered=True)
    assert refusal(exchange.respond, f"p={kind},,n=alice,r=nonce".encode()) == "not-authorized"


# ---------------------------------------------------------------------------------------- unknown accounts


@pytest.mark.parametrize("mechanism", HASHES)
def test_a_name_without_an_account_goes_the_same_way(mechanism):
    def conversation(keys):
        exchange = start(mechanism, nonce="servernonce")
        steps = [type(exchange.respond(b"n,,n=alice,r=clientnonce"))]
        challenge = exchange.supply(keys).data.decode()
        nonce, salt, iterations = challenge.split(",")
        bare = "n=alice,r=clientnonce"
        final = client_final(
            nonce[2:], bare, challenge.encode(), "wrong", cbind_input=b"n,,", hash_name=exchange.hash_name
        )
        with pytest.raises(SaslFailure) as caught:
            exchange.respond(final)
        return steps, nonce, len(salt), iterations, caught.value.condition, caught.value.text

    hash_name = HASHES[mechanism]
    fake = sasl.fake_keys(b"k" * 32, "alice", HOST, hash_name)
    assert conversation(fake) == conversation(scram.derive("secret", hash_name))


def test_the_keys_of_nobody_stay_the_same_and_are_everybodys_own():
    def salt(secret=b"k" * 32, name="alice", host=HOST, hash_name="sha1"):
        return sasl.fake_keys(secret, name, host, hash_name).salt

    assert salt() == salt()
    assert len({salt(), salt(b"x" * 32), salt(name="bob"), salt(host="b.example"), salt(hash_name="sha256")}) == 5

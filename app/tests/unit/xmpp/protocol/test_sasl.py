from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scramp import ScramClient

from monktalk.common import scram
from monktalk.common.jid import JID, InvalidJID, prepare_local
from monktalk.xmpp.protocol import sasl
from monktalk.xmpp.protocol.sasl import Challenge, NeedKeys, NeedPassword, SaslFailure, Success
from tests.unit.xmpp.protocol.sasl_client import (
    BINDINGS,
    END_POINT,
    HASHES,
    HOST,
    PROOF,
    at_final,
    keys_of,
    refusal,
    scram_login,
    start,
)

# ------------------------------------------------------------------------------------------------ the RFCs


def test_the_example_of_rfc_5802():
    exchange = start("SCRAM-SHA-1", nonce="3rfcNHYJY1ZVvWVs7j")
    assert exchange.respond(b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL") == NeedKeys("user", "sha1")
    keys = scram.derive("pencil", "sha1", iterations=4096, salt=base64.b64decode("QSXCR+Q6sek8bf92"))
    nonce = "fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
    assert exchange.supply(keys) == Challenge(f"r={nonce},s=QSXCR+Q6sek8bf92,i=4096".encode())
    final = f"c=biws,r={nonce},p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    assert exchange.respond(final.encode()) == Success("user", b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")


def test_the_example_of_rfc_7677():
    exchange = start("SCRAM-SHA-256", nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert exchange.respond(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == NeedKeys("user", "sha256")
    keys = scram.derive("pencil", "sha256", iterations=4096, salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert exchange.supply(keys) == Challenge(f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    final = f"c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert exchange.respond(final.encode()) == Success("user", b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_the_examples_of_rfc_4616():
    exchange = start("PLAIN")
    assert exchange.respond(b"\0tim\0tanstaaftanstaaf") == NeedPassword("tim", "tanstaaftanstaaf")
    assert exchange.supply(True) == Success("tim", None)
    # Its second example asks to act for somebody else, which is refused here.
    assert refusal(start("PLAIN").respond, b"Ursel\0Kurt\0xipj3plmq") == "invalid-authzid"


@pytest.mark.parametrize("mechanism", [f"{name}{plus}" for name in HASHES for plus in ("", "-PLUS")])
@pytest.mark.parametrize("name", ["alice", "a,b=c", "élodie"])
def test_a_client_that_we_did_not_write(mechanism, name):
    plus = mechanism.endswith("-PLUS")
    binding = ("tls-server-end-point", END_POINT["tls-server-end-point"]) if plus else None
    client = ScramClient([mechanism], name, "pässword", channel_binding=binding)
    exchange = start(mechanism, bindings=END_POINT if plus else {}, plus_offered=plus)
    assert exchange.respond(client.get_client_first().encode()) == NeedKeys(
        name, HASHES[mechanism.removesuffix("-PLUS")]
    )
    challenge = exchange.supply(keys_of("pässword", exchange.hash_name))
    client.set_server_first(challenge.data.decode())
    success = exchange.respond(client.get_client_final().encode())
    assert success.username == name
    client.set_server_final(success.data.decode())  # raises unless the server has proven itself


# --------------------------------------------------------------------------------------------- mechanisms


def test_the_offer_is_the_strongest_first_with_plus_where_there_are_bindings():
    configured = ("PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-512")
    assert sasl.offered(configured, bindings=()) == ("SCRAM-SHA-512", "SCRAM-SHA-1", "PLAIN")
    assert sasl.offered(configured, bindings=["tls-exporter"]) == (
        "SCRAM-SHA-512-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-512",
        "SCRAM-SHA-1",
        "PLAIN",
    )


def test_the_offer_leaves_out_what_cannot_be_done():
    assert sasl.offered(("SCRAM-SHA-1-PLUS", "EXTERNAL", "DIGEST-MD5"), bindings=()) == ()
    assert sasl.offered(("SCRAM-SHA-1-PLUS",), bindings=["tls-exporter"]) == ("SCRAM-SHA-1-PLUS",)


@pytest.mark.parametrize(
    "mechanism", ["", "plain", "DIGEST-MD5", "EXTERNAL", "SCRAM-SHA-224", "SCRAM-SHA-1-PLUS", "-PLUS"]
)
def test_mechanisms_that_are_not_there(mechanism):
    assert refusal(start, mechanism) == "invalid-mechanism"


def test_failures_know_their_conditions():
    with pytest.raises(ValueError, match="no SASL failure condition"):
        SaslFailure("bad-luck")
    assert str(SaslFailure("aborted")) == "aborted"


# -------------------------------------------------------------------------------------------------- PLAIN


def test_plain_without_initial_response_is_asked_for_its_message():
    exchange = start("PLAIN")
    assert exchange.respond(None) == Challenge(b"")
    assert exchange.respond(b"\0alice\0secret") == NeedPassword("alice", "secret")


def test_plain_refuses_a_wrong_password():
    exchange = start("PLAIN")
    exchange.respond(b"\0alice\0wrong")
    assert refusal(exchange.supply, False) == "not-authorized"


def test_plain_prepares_the_name_and_leaves_the_password_alone():
    assert start("PLAIN").respond("\0ÉLODIE\0 Sécret ".encode()) == NeedPassword("élodie", " Sécret ")


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (b"", "malformed-request"),
        (b"alice", "malformed-request"),
        (b"alice\0secret", "malformed-request"),
        (b"\0alice\0sec\0ret", "malformed-request"),
        (b"\0\0secret", "malformed-request"),
        (b"\0alice\0", "malformed-request"),
        (b"\0alice\0\xff", "malformed-request"),
        (b"\0alic\xc3\0secret", "malformed-request"),
        (b"\0alice@other.example\0secret", "not-authorized"),
        (b"\0alice@example.org\0secret", "not-authorized"),
        (b"\0alice/phone\0secret", "not-authorized"),
        (b"\0al ice\0secret", "not-authorized"),
        (b"\0" + b"a" * 1024 + b"\0secret", "not-authorized"),
    ],
)
def test_plain_messages_that_are_refused_at_once(message, condition):
    assert refusal(start("PLAIN").respond, message) == condition


def test_a_password_is_not_shown():
    assert "secret" not in repr(start("PLAIN").respond(b"\0alice\0secret"))


# ----------------------------------------------------------------------------------- authorization identity

OTHERS = [
    "bob@example.org",
    "alice@other.example",
    "alice@example.org/phone",
    "alice",
    "example.org",
    "@example.org",
    "alice@",
    "admin",
    "alice@example.org@example.org",
    "alice @example.org",
]
SAME = ["alice@example.org", "Alice@Example.ORG", "alice@example.org."]


@pytest.mark.parametrize("authzid", OTHERS)
def test_nobody_acts_for_somebody_else(authzid):
    assert refusal(start("PLAIN").respond, f"{authzid}\0alice\0secret".encode()) == "invalid-authzid"
    for mechanism in HASHES:
        first = f"n,a={authzid},n=alice,r=nonce".encode()
        assert refusal(start(mechanism).respond, first) == "invalid-authzid"


@pytest.mark.parametrize("authzid", SAME)
def test_everybody_may_act_for_himself(authzid):
    exchange = start("PLAIN")
    assert exchange.respond(f"{authzid}\0alice\0secret".encode()) == NeedPassword("alice", "secret")
    assert scram_login(start("SCRAM-SHA-1"), f"n,a={authzid},".encode()).username == "alice"


NAMES = st.one_of(st.sampled_from(["alice", "Alice", "bob", "äöü", "a=b", "x,y"]), st.text(max_size=8))
IDENTITIES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(OTHERS + SAME),
    st.builds("{}@{}".format, NAMES, st.sampled_from(["example.org", "EXAMPLE.org", "other.example"])),
)


def allowed(name, authzid):
    """Whether `name` may act for `authzid`, as an oracle of its own."""
    try:
        account = prepare_local(name)
        return not authzid or JID.parse(authzid).full == f"{account}@{HOST}"
    except InvalidJID:
        return False


@given(NAMES, IDENTITIES)
def test_whatever_is_claimed_in_plain_the_result_is_the_account_that_was_proven(name, authzid):
    assume("\0" not in name + authzid)
    exchange = start("PLAIN")
    message = f"{authzid}\0{name}\0secret".encode()
    if allowed(name, authzid):
        assert exchange.respond(message).username == prepare_local(name)
        assert exchange.supply(True).username == prepare_local(name)
    else:
        assert refusal(exchange.respond, message) in ("invalid-authzid", "not-authorized", "malformed-request")


@given(NAMES, IDENTITIES)
def test_whatever_is_claimed_in_scram_the_result_is_the_account_that_was_proven(name, authzid):
    assume("\0" not in name + authzid)

    def escaped(text):
        return text.replace("=", "=3D").replace(",", "=2C")

    exchange = start("SCRAM-SHA-1")
    header = f"n,{'a=' + escaped(authzid) if authzid else ''},".encode()
    if allowed(name, authzid):
        success = scram_login(exchange, header, name=escaped(name), iterations=1)
        assert success.username == prepare_local(name)
    else:
        message = header + f"n={escaped(name)},r=nonce".encode()
        assert refusal(exchange.respond, message) in ("invalid-authzid", "not-authorized", "malformed-request")


# --------------------------------------------------------------------------------------------- the machine


def test_nothing_is_taken_out_of_turn():
    plain = start("PLAIN")
    with pytest.raises(RuntimeError):
        plain.supply(True)
    plain.respond(b"\0alice\0secret")
    with pytest.raises(RuntimeError):
        plain.respond(b"\0bob\0secret")
    with pytest.raises(RuntimeError):
        plain.supply(keys_of("secret"))
    plain.supply(True)
    with pytest.raises(RuntimeError):
        plain.supply(True)

    exchange = start("SCRAM-SHA-1")
    with pytest.raises(RuntimeError):
        exchange.supply(keys_of("secret"))
    exchange.respond(b"n,,n=alice,r=nonce")
    with pytest.raises(RuntimeError):
        exchange.respond(b"n,,n=bob,r=nonce")
    for wrong in (True, keys_of("secret", "sha256")):
        with pytest.raises(RuntimeError):
            exchange.supply(wrong)
    exchange.supply(keys_of("secret"))
    with pytest.raises(RuntimeError):
        exchange.supply(keys_of("secret"))


@pytest.mark.parametrize("message", [b"\0alice", b"\0alice\0wrong"])
def test_after_a_refusal_plain_is_over(message):
    exchange = start("PLAIN")
    if message.count(b"\0") == 1:
        refusal(exchange.respond, message)
    else:
        exchange.respond(message)
        refusal(exchange.supply, False)
    for call in (lambda: exchange.respond(b"\0alice\0secret"), lambda: exchange.supply(True)):
        with pytest.raises(RuntimeError):
            call()


def test_after_a_refusal_scram_is_over():
    exchange = at_final()
    refusal(exchange.respond, b"nonsense")
    with pytest.raises(RuntimeError):
        exchange.respond(b"c=biws,r=clientnonceservernonce,p=" + PROOF.encode())


@given(st.sampled_from([*sasl.MECHANISMS]), st.lists(st.binary(max_size=60), max_size=3))
def test_no_input_breaks_anything_or_lets_anybody_in(mechanism, messages):
    exchange = start(mechanism, bindings=BINDINGS, plus_offered=True)
    with contextlib.suppress(SaslFailure):
        for message in messages:
            step = exchange.respond(message)
            if isinstance(step, NeedKeys):
                step = exchange.supply(keys_of("secret", step.hash_name, 1))
            elif isinstance(step, NeedPassword):
                step = exchange.supply(False)
            assert isinstance(step, Challenge)


# ------------------------------------------------------------------------------------------------ encoding


def test_the_text_of_the_elements():
    assert sasl.decode("") is None
    assert sasl.decode("=") == b""
    assert sasl.decode("AGFsaWNlAHNlY3JldA==") == b"\0alice\0secret"
    assert sasl.encode(b"") == "="
    assert sasl.encode(b"\0alice\0secret") == "AGFsaWNlAHNlY3JldA=="


@pytest.mark.parametrize("text", ["a", "====", "==", "AGFsaWNl\n", " ", "AGFs aWNl", "AGFsaWNlA", "AGFsé", "AG-_"])
def test_what_is_not_base64(text):
    assert refusal(sasl.decode, text) == "incorrect-encoding"


@given(st.binary(max_size=100))
def test_encoding_and_decoding_are_inverse(data):
    assert sasl.decode(sasl.encode(data)) == data

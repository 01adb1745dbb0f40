"""The client's side of SASL exchanges, for the tests of the server's."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from monktalk.common import scram
from monktalk.xmpp.protocol import sasl
from monktalk.xmpp.protocol.sasl import Challenge, NeedKeys, SaslFailure

HOST = "example.org"
END_POINT = {"tls-server-end-point": b"the hash of the certificate"}
BINDINGS = {**END_POINT, "tls-exporter": b"\x00,\xff exported keying material"}
HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


def start(mechanism, *, bindings=(), plus_offered=False, nonce=None):
    return sasl.start(mechanism, HOST, bindings=dict(bindings), plus_offered=plus_offered, nonce=nonce)


def refusal(call, *arguments):
    with pytest.raises(SaslFailure) as caught:
        call(*arguments)
    return caught.value.condition


def keys_of(password, hash_name="sha1", iterations=4096):
    return scram.derive(password, hash_name, iterations=iterations, salt=b"0123456789abcdef")


def client_final(exchange_nonce, first_bare, server_first, password, *, cbind_input, hash_name="sha1"):
    """The client's last message, made here from RFC 5802 section 3."""
    fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
    salted = hashlib.pbkdf2_hmac(hash_name, password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    without_proof = f"c={base64.b64encode(cbind_input).decode()},r={exchange_nonce}"
    signed = f"{first_bare},{server_first.decode()},{without_proof}".encode()
    signature = hmac.digest(hashlib.new(hash_name, client_key).digest(), signed, hash_name)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def scram_login(exchange, header=b"n,,", *, name="alice", password="secret", binding=b"", iterations=4096):
    """Run a whole exchange as a client that does everything right but for what the arguments say."""
    hash_name = HASHES[exchange.mechanism.removesuffix("-PLUS")]
    bare = f"n={name},r=clientnonce"
    step = exchange.respond(header + bare.encode())
    assert step == NeedKeys(exchange.username, hash_name)
    challenge = exchange.supply(keys_of("secret", hash_name, iterations))
    assert isinstance(challenge, Challenge)
    nonce = challenge.data.decode().split(",")[0][2:]
    final = client_final(nonce, bare, challenge.data, password, cbind_input=header + binding, hash_name=hash_name)
    return exchange.respond(final)


def at_final(first=b"n,,n=alice,r=clientnonce"):
    exchange = start("SCRAM-SHA-1", nonce="servernonce")
    exchange.respond(first)
    exchange.supply(keys_of("secret"))
    return exchange


PROOF = base64.b64encode(bytes(20)).decode()

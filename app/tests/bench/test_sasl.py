from __future__ import annotations

import base64

import pytest

from bench import sasl

# The example of RFC 5802 section 5.
NONCE = "fyko+d2lbbFgONRv9qkxdawL"
SERVER_FIRST = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"
CLIENT_FINAL = b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
SERVER_FINAL = b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="


def test_scram_example_of_the_rfc():
    client = sasl.ScramClient("user", "pencil", NONCE)
    assert base64.b64decode(client.first()) == b"n,,n=user,r=" + NONCE.encode()
    assert base64.b64decode(client.final(base64.b64encode(SERVER_FIRST))) == CLIENT_FINAL
    client.verify(base64.b64encode(SERVER_FINAL))


def test_scram_server_that_does_not_know_the_password_is_noticed():
    client = sasl.ScramClient("user", "pencil", NONCE)
    client.final(base64.b64encode(SERVER_FIRST))
    with pytest.raises(sasl.AuthenticationError, match="signature"):
        client.verify(base64.b64encode(b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAA="))


def test_scram_answer_to_somebody_else_is_refused():
    client = sasl.ScramClient("user", "pencil", "ours")
    with pytest.raises(sasl.AuthenticationError, match="nonce"):
        client.final(base64.b64encode(SERVER_FIRST))


def test_stored_keys_are_those_of_mongooseim():
    stored_key, server_key = sasl.stored_and_server_key("misio", base64.b64decode("inKXODlSY5y5SCsLxibi0w=="), 4096)
    assert base64.b64encode(stored_key) == b"tmi5IE+9pceRV/jkPLFHEaVY33c="
    assert base64.b64encode(server_key) == b"MiWNa8T3dniVDwmh77ufJ41fpAQ="

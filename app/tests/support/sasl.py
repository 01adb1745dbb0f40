"""The client's half of the SASL mechanisms, written from the RFCs and independent of the server's library."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass, field


def b64(data: bytes) -> str:
    """Base64 as SASL uses it on the wire; ``=`` stands for an empty initial response (RFC 6120, 6.4.2)."""
    return base64.b64encode(data).decode() or "="


def plain(authcid: str, password: str, authzid: str = "") -> bytes:
    """The message of PLAIN (RFC 4616)."""
    return f"{authzid}\0{authcid}\0{password}".encode()


def prepared(password: str) -> str:
    """The password as both sides hash it (RFC 8265, 4.2.2): spaces of all kinds are one, the form is NFC."""
    spaces = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    return unicodedata.normalize("NFC", spaces)


def _escape(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


@dataclass
class Scram:
    """One SCRAM exchange (RFC 5802). ``binding`` is the channel binding's name and data for the -PLUS forms.

    ``flag`` is the GS2 channel binding flag: ``n`` (not supported), ``y`` (supported, thought to be unavailable) or,
    with ``binding``, ``p=NAME``.
    """

    hash_name: str
    user: str
    password: str
    binding: tuple[str, bytes] | None = None
    flag: str = "n"
    authzid: str = ""
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    _auth_message: bytes = b""
    _salted: bytes = b""

    @property
    def _gs2_header(self) -> str:
        flag = f"p={self.binding[0]}" if self.binding else self.flag
        return f"{flag},{f'a={_escape(self.authzid)}' if self.authzid else ''},"

    @property
    def _first_bare(self) -> str:
        return f"n={_escape(self.user)},r={self.nonce}"

    def first(self) -> bytes:
        """The client's first message."""
        return (self._gs2_header + self._first_bare).encode()

    def final(self, server_first: bytes) -> bytes:
        """The client's final message, the answer to the server's challenge."""
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        assert fields["r"].startswith(self.nonce), "the server's nonce does not start with ours"
        assert len(fields["r"]) >= len(self.nonce) + 16, "the server adds too short a nonce"
        iterations = int(fields["i"])
        assert iterations >= 4096, "RFC 7677 wants 4096 iterations at least"
        self._salted = hashlib.pbkdf2_hmac(
            self.hash_name, prepared(self.password).encode(), base64.b64decode(fields["s"]), iterations
        )
        bound = self._gs2_header.encode() + (self.binding[1] if self.binding else b"")
        without_proof = f"c={b64(bound)},r={fields['r']}"
        self._auth_message = b",".join((self._first_bare.encode(), server_first, without_proof.encode()))
        client_key = self._hmac(self._salted, b"Client Key")
        stored_key = hashlib.new(self.hash_name, client_key).digest()
        signature = self._hmac(stored_key, self._auth_message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{without_proof},p={b64(proof)}".encode()

    def verify(self, server_final: bytes) -> None:
        """Fail unless the server has proved that it knows the credentials too."""
        expected = self._hmac(self._hmac(self._salted, b"Server Key"), self._auth_message)
        assert server_final == b"v=" + base64.b64encode(expected), "the server's signature is wrong"

    def _hmac(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self.hash_name)


HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}

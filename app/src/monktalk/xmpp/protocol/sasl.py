"""The server's side of SASL PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677) as value machines: no I/O.

    exchange = start("SCRAM-SHA-256", "example.org", bindings={}, plus_offered=False)
    step = exchange.respond(message)            # NeedKeys("alice", "sha256")
    step = exchange.supply(keys_of_alice)       # Challenge(b"r=...,s=...,i=4096")
    step = exchange.respond(next_message)       # Success("alice", b"v=...")

Messages are the bytes inside the base64 of `<auth/>`, `<response/>`, `<challenge/>` and `<success/>`. Every
refusal is a `SaslFailure`; one that depends on the account or its password is always `not-authorized` with
the same text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from monktalk.common.jid import JID, InvalidJID, prepare_local
from monktalk.common.scram import ITERATIONS, SALT_BYTES, ScramKeys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONDITIONS: Final = frozenset(
    {
        "aborted",
        "account-disabled",
        "credentials-expired",
        "encryption-required",
        "incorrect-encoding",
        "invalid-authzid",
        "invalid-mechanism",
        "malformed-request",
        "mechanism-too-weak",
        "not-authorized",
        "temporary-auth-failure",
    }
)
"""The conditions of `<failure/>` (RFC 6120 section 6.5)."""

PLAIN: Final = "PLAIN"

MECHANISMS: Final = (
    "SCRAM-SHA-512-PLUS",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-512",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
    PLAIN,
)
"""What this module implements, strongest first: being sure who is at the other end of TLS counts most."""

_HASHES: Final = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
_PLUS: Final = "-PLUS"
_REFUSED: Final = "The user name or the password is wrong."

_NONCE: Final = re.compile(r"[!-+\--~]+").fullmatch
_ATTRIBUTE: Final = re.compile(r"[A-Za-z]=[^\0,]+").fullmatch
_BINDING_NAME: Final = re.compile(r"[A-Za-z0-9.\-]+").fullmatch
_NONCE_BYTES: Final = 24


class SaslFailure(Exception):
    """Authentication has failed: `condition` names the child of `<failure/>`, `text` tells a person why."""

    def __init__(self, condition: str, text: str = "") -> None:
        if condition not in CONDITIONS:
            raise ValueError(f"{condition!r} is no SASL failure condition of RFC 6120")
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text


@dataclass(frozen=True, slots=True)
class NeedPassword:
    """The caller has to check this password and `supply` the verdict. The name is a prepared localpart."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NeedKeys:
    """The caller has to `supply` the account's SCRAM keys: `fake_keys` where there is no such account.

    The name is a prepared localpart, `hash_name` one of "sha1", "sha256" and "sha512".
    """

    username: str
    hash_name: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send `data` in a `<challenge/>`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Success:
    """The client is `username`, a prepared localpart; send `data`, unless it is None, in the `<success/>`."""

    username: str
    data: bytes | None


Step = NeedPassword | NeedKeys | Challenge | Success


class Exchange(ABC):
    """One attempt to authenticate. After `Success` or a `SaslFailure` it is over."""

    def __init__(self, mechanism: str, host: str) -> None:
        self.mechanism = mechanism
        self.host = host
        self.username = ""

    @abstractmethod
    def respond(self, data: bytes | None) -> Step:
        """Take what the client sent; None is an `<auth/>` without initial response (RFC 6120 section 6.4.2).

        Raises:
            SaslFailure: the client is refused.
            RuntimeError: the caller owes a `supply`, or the exchange is over.
        """

    @abstractmethod
    def supply(self, result: bool | ScramKeys) -> Challenge | Success:
        """Take what `respond` asked for: the verdict on the password, or the keys of the account.

        Raises:
            SaslFailure: the client is refused.
            RuntimeError: nothing, or something else, was asked for.
        """

    def _identify(self, username: str, authzid: str) -> str:
        """Return the prepared user name, after a check that nobody else is meant.

        Raises:
            SaslFailure: the name cannot be one of an account; or the authorization identity, "" where none
            was
                given, is another than the account (RFC 6120 section 6.3.8).
        """
        try:
            self.username = prepare_local(username)
        except InvalidJID:
            # Told apart from a wrong password, this would say which accounts cannot exist; it costs nothing
            # not to.
            raise SaslFailure("not-authorized", _REFUSED) from None
        if authzid:
            self._check_authzid(authzid)
        return self.username

    def _check_authzid(self, authzid: str) -> None:
        try:
            identity = JID.parse(authzid)
        except InvalidJID:
            raise SaslFailure("invalid-authzid", "The authorization identity is not an address.") from None
        if identity.resource or identity.local != self.username or identity.domain != self.host:
            raise SaslFailure(
                "invalid-authzid", "The authorization identity must be the account itself; best leave it out."
            )


class PlainExchange(Exchange):
    """PLAIN: one message with everything in it."""

    def __init__(self, host: str) -> None:
        super().__init__(PLAIN, host)
        self._state = "message"

    def respond(self, data: bytes | None) -> Step:
        """Take the message: `authzid NUL authcid NUL passwd` (RFC 4616 section 2)."""
        if self._state != "message":
            raise RuntimeError(f"PLAIN: no message is due, but the {self._state}")
        if data is None:
            return Challenge(b"")
        self._state = "end"
        fields = _text(data).split("\0")
        if len(fields) != 3:
            raise SaslFailure("malformed-request", "The message of PLAIN has three fields.")
        authzid, username, password = fields
        if not username or not password:
            raise SaslFailure("malformed-request", "The user name and the password must not be empty.")
        self._identify(username, authzid)
        self._state = "verdict"
        return NeedPassword(self.username, password)

    def supply(self, result: bool | ScramKeys) -> Challenge | Success:
        """Take the verdict on the password."""
        if self._state != "verdict" or not isinstance(result, bool):
            raise RuntimeError(f"PLAIN: no verdict is due, but the {self._state}")
        self._state = "end"
        if not result:
            raise SaslFailure("not-authorized", _REFUSED)
        return Success(self.username, None)


class ScramExchange(Exchange):
    """SCRAM with any hash, with and without channel binding (RFC 5802 section 5).

    `bindings` has the channel binding data by type (`tls-server-end-point`, `tls-exporter`) of the client's
    TLS connection. `nonce` is the server's part of the nonce, fixed in tests only.
    """

    def __init__(
        self,
        mechanism: str,
        host: str,
        *,
        bindings: Mapping[str, bytes],
        plus_offered: bool,
        nonce: str | None = None,
    ) -> None:
        super().__init__(mechanism, host)
        self.hash_name = _HASHES[mechanism.removesuffix(_PLUS)]
        self._plus = mechanism.endswith(_PLUS)
        self._bindings = bindings
        self._plus_offered = plus_offered
        self._server_nonce = secrets.token_urlsafe(_NONCE_BYTES) if nonce is None else nonce
        self._state = "first message"
        self._nonce = ""
        self._client_first_bare = ""
        self._server_first = ""
        self._cbind_input = b""
        self._keys: ScramKeys | None = None

    def respond(self, data: bytes | None) -> Step:
        """Take client-first-message or client-final-message."""
        if self._state == "first message":
            if data is None:
                return Challenge(b"")
            self._state = "end"
            self._take_first(_text(data))
            self._state = "keys"
            return NeedKeys(self.username, self.hash_name)
        if self._state == "final message":
            self._state = "end"
            return self._take_final(_text(data or b""))
        raise RuntimeError(f"{self.mechanism}: no message is due, but the {self._state}")

    def supply(self, result: bool | ScramKeys) -> Challenge | Success:
        """Take the keys of the account, and give the server-first-message."""
        if self._state != "keys" or not isinstance(result, ScramKeys) or result.hash_name != self.hash_name:
            raise RuntimeError(f"{self.mechanism}: no keys of {self.hash_name} are due, but the {self._state}")
        self._state = "final message"
        self._keys = result
        self._server_first = f"r={self._nonce},s={_base64(result.salt)},i={result.iterations}"
        return Challenge(self._server_first.encode())

    def _take_first(self, message: str) -> None:
        """Read `gs2-cbind-flag "," [authzid] "," username "," nonce ["," extensions]`."""
        flag, comma, rest = message.partition(",")
        authzid, second_comma, bare = rest.partition(",")
        if not comma or not second_comma:
            raise SaslFailure("malformed-request", "The first message of SCRAM has no GS2 header.")
        binding = self._take_flag(flag)
        if authzid and not authzid.startswith("a="):
            raise SaslFailure("malformed-request", "The GS2 header has something else than an authorization identity.")
        self._cbind_input = f"{flag},{authzid},".encode() + binding
        name, *attributes = bare.split(",")
        if name.startswith("m="):
            raise SaslFailure("malformed-request", "A mandatory extension of SCRAM is asked for; there is none.")
        if not name.startswith("n=") or not attributes or not attributes[0].startswith("r="):
            raise SaslFailure("malformed-request", "The first message of SCRAM has no user name or no nonce.")
        nonce, *extensions = attributes
        _check_extensions(extensions)
        if not _NONCE(nonce[2:]):
            raise SaslFailure("malformed-request", "The nonce is empty or has characters that are not allowed.")
        self._client_first_bare = bare
        self._nonce = nonce[2:] + self._server_nonce
        self._identify(_saslname(name[2:]), _saslname(authzid[2:]) if authzid else "")

    def _take_flag(self, flag: str) -> bytes:
        """Return the channel binding data that the client's flag asks for (RFC 5802 section 6)."""
        if flag in ("n", "y"):
            if self._plus:
                raise SaslFailure("malformed-request", f"{self.mechanism} needs a channel binding.")
            if flag == "y" and self._plus_offered:
                # The client believes that no -PLUS was offered: somebody in between has taken it out.
                raise SaslFailure("not-authorized", "The offer of channel binding was removed on its way to you.")
            return b""
        kind = flag[2:]
        if not flag.startswith("p=") or not _BINDING_NAME(kind):
            raise SaslFailure("malformed-request", "The channel binding flag is none of n, y and p.")
        if not self._plus:
            raise SaslFailure("malformed-request", f"{self.mechanism} has no channel binding, its -PLUS form has.")
        if kind not in self._bindings:
            raise SaslFailure("not-authorized", "This type of channel binding is not offered.")
        return self._bindings[kind]

    def _take_final(self, message: str) -> Success:
        """Read `channel-binding "," nonce ["," extensions] "," proof`, and check all of them."""
        without_proof, found, proof = message.rpartition(",p=")
        binding, *attributes = without_proof.split(",")
        if not found or not binding.startswith("c=") or not attributes or not attributes[0].startswith("r="):
            raise SaslFailure("malformed-request", "The last message of SCRAM has no channel binding, nonce or proof.")
        nonce, *extensions = attributes
        _check_extensions(extensions)
        cbind_input, client_proof = _unbase64(binding[2:]), _unbase64(proof)
        if not hmac.compare_digest(cbind_input, self._cbind_input):
            raise SaslFailure("not-authorized", "The channel binding is not that of this connection.")
        if not hmac.compare_digest(nonce[2:].encode(), self._nonce.encode()):
            raise SaslFailure("not-authorized", "The nonce is not that of this exchange.")
        signature = self._verify(f"{self._client_first_bare},{self._server_first},{without_proof}", client_proof)
        return Success(self.username, b"v=" + _base64(signature).encode())

    def _verify(self, auth_message: str, proof: bytes) -> bytes:
        """Return the ServerSignature if the proof holds (RFC 5802 section 3)."""
        keys = self._keys
        assert keys is not None  # the state says so
        signed = auth_message.encode()
        client_signature = hmac.digest(keys.stored_key, signed, self.hash_name)
        if len(proof) != len(client_signature):
            raise SaslFailure("malformed-request", "The proof has the wrong length.")
        client_key = bytes(a ^ b for a, b in zip(proof, client_signature, strict=True))
        stored_key = hashlib.new(self.hash_name, client_key, usedforsecurity=False).digest()
        if not hmac.compare_digest(stored_key, keys.stored_key):
            raise SaslFailure("not-authorized", _REFUSED)
        return hmac.digest(keys.server_key, signed, self.hash_name)


def offered(mechanisms: Sequence[str], *, bindings: Sequence[str]) -> tuple[str, ...]:
    """Return the mechanisms to announce, strongest first.

    The -PLUS form of each SCRAM one is added where the connection has channel bindings, and left out, also
    when it is named, where it has none. Names of mechanisms that are not among `MECHANISMS` are left out.
    """
    wanted = set(mechanisms)
    if bindings:
        wanted |= {f"{name}{_PLUS}" for name in mechanisms if name in _HASHES}
    else:
        wanted = {name for name in wanted if not name.endswith(_PLUS)}
    return tuple(name for name in MECHANISMS if name in wanted)


def start(
    mechanism: str,
    host: str,
    *,
    bindings: Mapping[str, bytes],
    plus_offered: bool,
    nonce: str | None = None,
) -> Exchange:
    """Return a new exchange. That the mechanism is among those on offer is for the caller to check.

    Args:
        mechanism: what the client named in `<auth/>`.
        host: the prepared domain of the stream.
        bindings: channel binding data by type, of the TLS connection.
        plus_offered: whether any -PLUS mechanism was announced on this stream.
        nonce: the server's part of SCRAM's nonce, for tests.

    Raises:
        SaslFailure: `invalid-mechanism`.
    """
    if mechanism == PLAIN:
        return PlainExchange(host)
    if mechanism not in MECHANISMS or (mechanism.endswith(_PLUS) and not bindings):
        raise SaslFailure("invalid-mechanism", "This mechanism is not offered here.")
    return ScramExchange(mechanism, host, bindings=bindings, plus_offered=plus_offered, nonce=nonce)


def fake_keys(secret: bytes, username: str, host: str, hash_name: str, iterations: int = ITERATIONS) -> ScramKeys:
    """Return keys that no password fits, the same at each call: those of an account that is not there.

    `secret` must be the same in all processes and after a restart, or the salts give away who does not exist;
    `iterations` should be what most accounts have.
    """

    def derive(purpose: str, algorithm: str) -> bytes:
        message = f"{purpose}\0{hash_name}\0{username}\0{host}"
        return hmac.digest(secret, message.encode("utf-8", "surrogatepass"), algorithm)

    return ScramKeys(
        hash_name=hash_name,
        salt=derive("salt", "sha256")[:SALT_BYTES],
        iterations=iterations,
        stored_key=derive("stored key", hash_name),
        server_key=derive("server key", hash_name),
    )


def decode(text: str) -> bytes | None:
    """Return the message in the text of `<auth/>` or `<response/>`: None for none, b"" for an empty one.

    Raises:
        SaslFailure: `incorrect-encoding`: it is not base64 (RFC 6120 sections 6.4.2 and 13.9.1).
    """
    if not text:
        return None
    if text == "=":
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslFailure("incorrect-encoding", "The data is not base64.") from None


def encode(data: bytes) -> str:
    """Return the text of a `<challenge/>` or `<success/>` for a message."""
    return _base64(data) or "="


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SaslFailure("malformed-request", "The data is not UTF-8.") from None


def _saslname(text: str) -> str:
    """Return a name with its two escapes undone (RFC 5802 section 5.1)."""
    if not text or "\0" in text:
        raise SaslFailure("malformed-request", "A name is empty or has a NUL character.")
    if text.count("=") != text.count("=2C") + text.count("=3D"):
        raise SaslFailure("malformed-request", "A name has an equals sign that begins neither =2C nor =3D.")
    return text.replace("=2C", ",").replace("=3D", "=")


def _check_extensions(attributes: Sequence[str]) -> None:
    """Refuse what is no list of optional extensions; these may be ignored (RFC 5802 section 5.1)."""
    for attribute in attributes:
        if not _ATTRIBUTE(attribute) or attribute.startswith("m="):
            raise SaslFailure("malformed-request", "A message of SCRAM has an attribute that is not allowed there.")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslFailure("malformed-request", "A message of SCRAM has a field that is not base64.") from None

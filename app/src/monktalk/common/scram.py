"""Passwords as SCRAM keys (RFC 5802, RFC 7677), and the texts in which MongooseIM keeps them.

Three forms are read:

    ==SCRAM==,<StoredKey>,<ServerKey>,<salt>,<iterations>                      SHA-1, of MongooseIM before 3.7
    ==MULTI_SCRAM==,<salt>,<iterations>,===SHA1===<StoredKey>|<ServerKey>,…    one salt for all, of 3.7 to 4.0
    ==MULTI_SCRAM==,<iterations>,===SHA1===<salt>|<StoredKey>|<ServerKey>,…    one salt each, of later ones

The last one is written. Values are in Base64. Hashes are marked by ten characters: `===SHA1===`, `==SHA224==`,
`==SHA256==`, `==SHA384==`, `==SHA512==`.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scramp import ScramException
from scramp.utils import h, hi, saslprep
from scramp.utils import hmac as keyed_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SINGLE_PREFIX: Final = "==SCRAM==,"
MULTI_PREFIX: Final = "==MULTI_SCRAM==,"

HASHES: Final = ("sha1", "sha256", "sha512")
"""The hashes that new credentials get: those of the SASL mechanisms in use."""

ITERATIONS: Final = 4096
MAX_ITERATIONS: Final = 1_000_000
"""More than this in stored credentials is an error: whoever tries to log in would cost seconds."""

MAX_PASSWORD_BYTES: Final = 1023
"""Longest password in UTF-8. No protocol sets a limit, but its preparation costs time for each character."""

SALT_BYTES: Final = 16
_MAX_SALT_BYTES: Final = 256

_MARKS: Final = {
    "===SHA1===": "sha1",
    "==SHA224==": "sha224",
    "==SHA256==": "sha256",
    "==SHA384==": "sha384",
    "==SHA512==": "sha512",
}
_MARK_OF: Final = {name: mark for mark, name in _MARKS.items()}
_FUNCTIONS: Final = {name: getattr(hashlib, name) for name in _MARKS.values()}
_ANY_MARK: Final = re.compile(r"={2,3}[A-Z0-9_/-]+?={2,3}", re.ASCII).match

# Which hash checks a password when there are several. MongooseIM 4.1.0 to 6.3.1 computed all but SHA-1 wrongly
# on OpenSSL 3.4.1 and newer, and never noticed: it checks SHA-1 only. SHA-512 costs twice as much.
_CHECK_ORDER: Final = ("sha1", "sha256", "sha224", "sha512", "sha384")


class InvalidScram(ValueError):
    """A text is not stored SCRAM credentials; the message says why and holds nothing of the text."""


class InvalidPassword(ValueError):
    """A text cannot be a password; the message says why and holds nothing of the text."""


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server knows of a password for one hash.

    Attributes:
        hash_name: as in `hashlib`: "sha1", "sha256", "sha512" …
        salt: of this password and hash.
        iterations: of PBKDF2.
        stored_key: StoredKey, H(ClientKey): checks a client's proof.
        server_key: ServerKey: signs towards the client.
    """

    hash_name: str
    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        # Tracebacks and failed assertions must not show what logs somebody in.
        return f"ScramKeys({self.hash_name}, {self.iterations} iterations, [redacted])"


def prepare_password(password: str) -> str:
    """Return a password as SASLprep (RFC 4013) makes it, for hashing.

    Raises:
        InvalidPassword: it is empty, too long, or has characters that SASLprep prohibits.
    """
    if not password:
        raise InvalidPassword("The password is empty.")
    if len(password) > MAX_PASSWORD_BYTES:
        raise InvalidPassword(f"The password has more than {MAX_PASSWORD_BYTES} bytes.")
    if password.isascii() and password.isprintable():
        return password  # SASLprep changes nothing in these
    try:
        too_long = len(password.encode()) > MAX_PASSWORD_BYTES
        prepared: str = saslprep(password)
    except UnicodeEncodeError:
        raise InvalidPassword("The password has halves of surrogate pairs.") from None
    except ScramException as error:
        raise InvalidPassword(f"The password cannot be prepared (RFC 4013): {error}.") from None
    if too_long:
        raise InvalidPassword(f"The password has more than {MAX_PASSWORD_BYTES} bytes.")
    if not prepared:
        raise InvalidPassword("Nothing is left of the password after preparation (RFC 4013).")
    return prepared


def derive(password: str, hash_name: str, *, iterations: int = ITERATIONS, salt: bytes | None = None) -> ScramKeys:
    """Return the keys of a password, with a salt of its own unless one is given.

    Raises:
        InvalidPassword: see `prepare_password`.
    """
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    return _derive(prepare_password(password), hash_name, iterations, salt)


def derive_all(password: str, *, iterations: int = ITERATIONS, hashes: Iterable[str] = HASHES) -> dict[str, ScramKeys]:
    """Return the keys of a password by hash, each with a new salt.

    Raises:
        InvalidPassword: see `prepare_password`.
    """
    prepared = prepare_password(password)
    return {name: _derive(prepared, name, iterations, secrets.token_bytes(SALT_BYTES)) for name in hashes}


def verify_password(password: str, keys: ScramKeys) -> bool:
    """Return whether `keys` are those of `password`. The comparison takes the same time for all keys."""
    try:
        prepared = prepare_password(password)
    except InvalidPassword:
        # A refusal that is quicker than others would tell them apart.
        _derive("-", keys.hash_name, keys.iterations, keys.salt)
        return False
    derived = _derive(prepared, keys.hash_name, keys.iterations, keys.salt)
    same_stored = hmac.compare_digest(derived.stored_key, keys.stored_key)
    return hmac.compare_digest(derived.server_key, keys.server_key) and same_stored


def checking_keys(credentials: Mapping[str, ScramKeys]) -> ScramKeys:
    """Return those of an account's keys that its password is best checked against.

    Raises:
        InvalidScram: there are none.
    """
    for name in _CHECK_ORDER:
        if name in credentials:
            return credentials[name]
    raise InvalidScram("The credentials have keys of no hash.")


def is_scram(text: str) -> bool:
    """Return whether `text` claims to be SCRAM credentials, and so is no password; `parse` says if it is right."""
    return text.startswith((SINGLE_PREFIX, MULTI_PREFIX))


def parse(text: str) -> dict[str, ScramKeys]:
    """Return the keys in stored credentials of any form, by hash. Hashes that nobody here knows are left out.

    Raises:
        InvalidScram: the text is not one of the forms.
    """
    if text.startswith(SINGLE_PREFIX):
        fields = [field.strip() for field in text[len(SINGLE_PREFIX) :].split(",")]
        if len(fields) != 4:
            raise InvalidScram(f"The credentials have {len(fields)} fields instead of four.")
        stored_key, server_key, salt, iterations = fields
        return {"sha1": _keys("sha1", salt, _count(iterations), stored_key, server_key)}
    if text.startswith(MULTI_PREFIX):
        return _parse_multi([field.strip() for field in text[len(MULTI_PREFIX) :].split(",")])
    raise InvalidScram("The credentials do not begin like SCRAM ones.")


def format_single(keys: ScramKeys) -> str:
    """Return SHA-1 keys in the form that all versions of MongooseIM read.

    Raises:
        InvalidScram: the keys are of another hash, which that form does not have.
    """
    if keys.hash_name != "sha1":
        raise InvalidScram(f"The single form holds SHA-1 keys, not {keys.hash_name}.")
    return f"{SINGLE_PREFIX}{_b64(keys.stored_key)},{_b64(keys.server_key)},{_b64(keys.salt)},{keys.iterations}"


def format_multi(credentials: Mapping[str, ScramKeys]) -> str:
    """Return keys of several hashes as one text, in the newest form.

    Raises:
        InvalidScram: there are none, or they differ in their iterations, which that form has once.
    """
    iterations = {keys.iterations for keys in credentials.values()}
    if len(iterations) != 1:
        raise InvalidScram("The keys of an account must be some, and have one number of iterations.")
    parts = [
        f"{_MARK_OF[name]}{_b64(keys.salt)}|{_b64(keys.stored_key)}|{_b64(keys.server_key)}"
        for name, keys in sorted(credentials.items(), key=lambda item: len(item[1].stored_key))
    ]
    return f"{MULTI_PREFIX}{iterations.pop()},{','.join(parts)}"


def _parse_multi(fields: list[str]) -> dict[str, ScramKeys]:
    """Read what follows the prefix; the two forms differ in where salts are."""
    if len(fields) >= 2 and fields[0].isdigit() and _ANY_MARK(fields[1]):
        common_salt, iterations, entries = None, _count(fields[0]), fields[1:]
    elif len(fields) >= 3:
        common_salt, iterations, entries = fields[0], _count(fields[1]), fields[2:]
    else:
        raise InvalidScram("The credentials end before the first key.")
    found: dict[str, ScramKeys] = {}
    for entry in entries:
        name = _MARKS.get(entry[:10])
        if name is None:
            if _ANY_MARK(entry):
                continue
            raise InvalidScram("The credentials have a field without the name of its hash.")
        values = entry[10:].split("|")
        if common_salt is not None:
            values.insert(0, common_salt)
        if len(values) != 3 or name in found:
            raise InvalidScram(f"The keys of {name} are incomplete or there twice.")
        salt, stored_key, server_key = values
        found[name] = _keys(name, salt, iterations, stored_key, server_key)
    if not found:
        raise InvalidScram("The credentials have keys of no hash that is known here.")
    return found


def _keys(name: str, salt: str, iterations: int, stored_key: str, server_key: str) -> ScramKeys:
    size = _FUNCTIONS[name]().digest_size
    keys = ScramKeys(name, _bytes(salt), iterations, _bytes(stored_key), _bytes(server_key))
    if len(keys.stored_key) != size or len(keys.server_key) != size:
        raise InvalidScram(f"A key of {name} does not have {size} bytes.")
    if not 0 < len(keys.salt) <= _MAX_SALT_BYTES:
        raise InvalidScram(f"The salt of {name} does not have 1 to {_MAX_SALT_BYTES} bytes.")
    return keys


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 0 < int(text) <= MAX_ITERATIONS:
        raise InvalidScram(f"The number of iterations is not one between 1 and {MAX_ITERATIONS}.")
    return int(text)


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidScram("A field of the credentials is not Base64.") from None


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def _derive(prepared: str, hash_name: str, iterations: int, salt: bytes) -> ScramKeys:
    """SaltedPassword, ClientKey, StoredKey and ServerKey of RFC 5802 section 3."""
    function = _FUNCTIONS[hash_name]
    salted = hi(function, prepared.encode(), salt, iterations)
    client_key = keyed_hash(function, salted, b"Client Key")
    server_key = keyed_hash(function, salted, b"Server Key")
    return ScramKeys(hash_name, salt, iterations, h(function, client_key), server_key)

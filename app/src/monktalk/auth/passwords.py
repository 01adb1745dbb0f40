"""What authenticators do with passwords: compare, convert, and spend the time of a check where there is none to do."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from monktalk.common import scram

if TYPE_CHECKING:
    from monktalk.auth.cache import DigestCache

_DECOY_SALT: Final = b"no such account!"


def is_same(stored: str, given: str) -> bool:
    """Return whether a given password is the one that is stored as it is."""
    if hmac.compare_digest(stored.encode(), given.encode()):
        return True
    try:
        return hmac.compare_digest(scram.prepare_password(stored).encode(), scram.prepare_password(given).encode())
    except scram.InvalidPassword:
        return False


def spend_check(password: str, iterations: int) -> None:
    """Take as long as checking a password against SCRAM keys takes, for accounts that have none or do not exist."""
    scram.verify_password(password, scram.ScramKeys("sha1", _DECOY_SALT, iterations, b"", b""))


def to_scram(password: str, iterations: int) -> str:
    """Return new SCRAM keys of a password, as they are stored.

    Raises:
        InvalidPassword: no client could log in with it.
    """
    return scram.format_multi(scram.derive_all(password, iterations=iterations))


def to_scram_cached(cache: DigestCache[str], domain: str, user: str, password: str, iterations: int) -> str:
    """Return SCRAM keys of a password that stays stored as it is: the same ones, and quickly, at each call.

    Raises:
        InvalidPassword: no client could log in with it.
    """
    key = cache.key("scram", domain, user, password, str(iterations))
    keys = cache.get(key)
    if keys is None:
        keys = to_scram(password, iterations)
        cache.put(key, keys)
    return keys

"""Failed logins, counted: who has to wait before the next try, and how long a refusal is held back.

Passwords are guessed one try at a time, so tries are made slow: the answer to a failed login waits, longer
with each failure, and above the limits of the configuration an address has to wait before it may try at
all. Nobody can lock somebody else out: what strangers do to an account delays refusals only, never a login
that succeeds.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from monktalk.common.clock import Clock
    from monktalk.common.config import Settings

FIRST_DELAY: Final = 0.25
"""Seconds, about, that the refusal of a first failure is held back; each further failure doubles them."""

LONGEST_DELAY: Final = 8.0
"""Seconds, about, beyond which they do not double any more."""

CAPACITY: Final = 32_768
"""Entries of each table. Where strangers fill one, the entries that have rested longest are forgotten."""

_JITTER: Final = 0.25
_SLOTS: Final = 5
_NOTHING: Final = (0,) * (_SLOTS + 2)
_DIGEST_BYTES: Final = 12
_SUBNET_BYTES: Final = 8


class FailureCounter:
    """How often something happened within a sliding window, by key, for a bounded number of keys.

    Events are counted by slots of a fifth of the window, so a key needs the same few numbers however much
    happens, and an event counts for the window and up to one slot longer.
    """

    __slots__ = ("_capacity", "_counts")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._counts: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: bytes, now: float, window: float) -> None:
        """Count one event of `key` at the time `now`, in seconds."""
        slot = int(now // (window / _SLOTS))
        *older, newest = self._slots(key, slot)
        self._counts[key] = (slot, *older, newest + 1)
        self._counts.move_to_end(key)
        if len(self._counts) > self._capacity:
            self._counts.popitem(last=False)

    def count(self, key: bytes, now: float, window: float) -> int:
        """Return how many events of `key` the last `window` seconds saw."""
        return sum(self._slots(key, int(now // (window / _SLOTS))))

    def forget(self, key: bytes) -> None:
        """Drop what was counted of `key`."""
        self._counts.pop(key, None)

    def _slots(self, key: bytes, slot: int) -> tuple[int, ...]:
        """Return the counts of `key` in the slots that the window touches, `slot` being the last one."""
        latest, *counts = self._counts.get(key, _NOTHING)
        passed = min(max(slot - latest, 0), len(counts))
        return (*counts[passed:], *(0,) * passed)


class LoginThrottle:
    """Counts failed logins by address, by account, and by both together.

    Addresses are texts as sockets give them; IPv6 counts by /64, the smallest part that one customer is
    given. Accounts are bare JIDs as tried, existing or not: the answers must not tell which.

    Attributes:
        limits: the `limits` section, read at each call; a reload puts the new one here.
    """

    __slots__ = ("_accounts", "_addresses", "_clock", "_jitter", "_pairs", "limits")

    def __init__(self, limits: Settings, clock: Clock, *, capacity: int = CAPACITY) -> None:
        self.limits = limits
        self._clock = clock
        self._addresses = FailureCounter(capacity)
        self._accounts = FailureCounter(capacity)
        self._pairs = FailureCounter(capacity)
        self._jitter = secrets.SystemRandom().uniform

    def failed(self, address: str, account: str) -> None:
        """Count a login of `account` from `address` that was refused."""
        now, window = self._clock.monotonic(), self._window()
        source, target = address_key(address), _account_key(account)
        self._addresses.add(source, now, window)
        self._accounts.add(target, now, window)
        self._pairs.add(source + target, now, window)

    def succeeded(self, address: str, account: str) -> None:
        """Forget the failures of `account` from `address`: its owner has mistyped.

        Those of the address stay, or an account of one's own would pay for guesses at the accounts of others.
        """
        self._pairs.forget(address_key(address) + _account_key(account))

    def delay(self, address: str, account: str) -> float:
        """Return the seconds to wait before a failure, already counted, is answered.

        They grow with the failures of the account, from this address and from all together, and with those of
        the address; a quarter of them is chance, which also hides how long the check itself took.
        """
        now, window = self._clock.monotonic(), self._window()
        source, target = address_key(address), _account_key(account)
        share = self.limits.auth_failures_per_account / self.limits.auth_failures_per_address
        failures = max(
            self._pairs.count(source + target, now, window),
            self._accounts.count(target, now, window),
            self._addresses.count(source, now, window) * min(share, 1.0),
            1.0,
        )
        # The exponent is capped before the power is: thousands of failures are no reason for an
        # OverflowError.
        seconds = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures - 1, 32))
        return float(seconds * self._jitter(1 - _JITTER, 1 + _JITTER))

    def blocked(self, address: str, account: str | None = None) -> bool:
        """Return whether `address` has failed too often to try now: with any account or, given one, that.

        Tries that are refused for this reason are not to be counted as failures: whoever waits is let in
        again.
        """
        now, window = self._clock.monotonic(), self._window()
        source = address_key(address)
        if self._addresses.count(source, now, window) >= self.limits.auth_failures_per_address:
            return True
        if account is None:
            return False
        pair = self._pairs.count(source + _account_key(account), now, window)
        return bool(pair >= self.limits.auth_failures_per_account)

    def _window(self) -> float:
        return float(self.limits.auth_failure_window)


@functools.lru_cache(maxsize=4096)
def address_key(address: str) -> bytes:
    """Return what tells an address from others: IPv4 as it is, also mapped into IPv6, and IPv6 by its /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return b"?" + _digest(address)  # the peer of a UNIX socket, say
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return b"6" + parsed.packed[:_SUBNET_BYTES]
        parsed = parsed.ipv4_mapped
    return b"4" + parsed.packed


def _account_key(account: str) -> bytes:
    return b"@" + _digest(account)


def _digest(text: str) -> bytes:
    """Return a short stand-in for a text that a stranger may have made a kilobyte long."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()

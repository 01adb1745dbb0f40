"""Waits after wrong passwords, held against guessing without giving anybody a way to lock others out.

Failures are counted three times:

pair      one account from one client address: whoever guesses there waits, up to `delay_limit`
address   everything from one client address: whoever tries many accounts waits, up to `address_delay_limit`
account   one account from everywhere, against guessing from many addresses: up to `account_delay_limit`

The last two are short, seconds. A long wait of an account would be a weapon against its owner, and a long wait of an
address one against everybody behind the same network address translation. Neither holds for accounts at addresses from
which they have logged in lately.

A wait means that passwords are refused unchecked; nothing sleeps. Refused attempts are not counted, so a wait ends.
Accounts that do not exist are counted like others: a wait says nothing about them. Calls without a client address
are held only against the account, since they may come from anybody.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from monktalk.common.clock import Clock
    from monktalk.common.config import Settings

log = get_logger(__name__)

_JITTER: Final = 0.25
_PRECISION: Final = 1_000_000
_IPV6_NETWORK: Final = 64
_MAX_DOUBLINGS: Final = 30


@dataclass(slots=True)
class _Record:
    """Failures under one key: how many, the last one, and until when nothing is checked."""

    failures: int
    last: float
    until: float


class _Table:
    """Failures by key, at most so many keys; those that failed longest ago make room."""

    def __init__(self, free: int, delay: float, limit: float, window: float, entries: int) -> None:
        self._free = free
        self._delay = delay
        self._limit = limit
        self._window = window
        self._entries = entries
        self._records: OrderedDict[bytes, _Record] = OrderedDict()

    def wait(self, key: bytes, now: float) -> float:
        record = self._records.get(key)
        return 0.0 if record is None else max(0.0, record.until - now)

    def fail(self, key: bytes, now: float) -> float:
        """Count a failure and return the wait that it brings."""
        record = self._records.get(key)
        if record is None or record.last + self._window <= now:
            record = self._records[key] = _Record(0, now, 0.0)
            while len(self._records) > self._entries:
                self._records.popitem(last=False)
        self._records.move_to_end(key)
        record.failures += 1
        record.last = now
        excess = record.failures - self._free
        if excess <= 0:
            return 0.0
        wait = min(self._limit, self._delay * 2.0 ** min(excess - 1, _MAX_DOUBLINGS))
        # Without jitter, those who were refused together would come back together.
        wait *= 1 + _JITTER * secrets.randbelow(_PRECISION) / _PRECISION
        record.until = now + wait
        return wait

    def forget(self, key: bytes) -> None:
        self._records.pop(key, None)

    def __len__(self) -> int:
        return len(self._records)


class BackOff:
    """The waits of a process. May be used by many threads."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._enabled: bool = settings.enabled
        self._clock = clock
        self._lock = Lock()
        self._secret = secrets.token_bytes(16)
        self._entries: int = settings.entries
        common = (settings.window, settings.entries)
        self._pairs = _Table(settings.pair_failures, settings.delay, settings.delay_limit, *common)
        self._addresses = _Table(settings.address_failures, settings.delay, settings.address_delay_limit, *common)
        self._accounts = _Table(settings.account_failures, settings.delay, settings.account_delay_limit, *common)
        self._trusted: OrderedDict[bytes, None] = OrderedDict()

    def wait(self, domain: str, user: str, address: str) -> float:
        """Return for how many seconds no password of the account is checked for this client; 0 for go ahead."""
        if not self._enabled:
            return 0.0
        account, source, pair = self._keys(domain, user, address)
        now = self._clock.monotonic()
        with self._lock:
            if not address:
                return self._accounts.wait(account, now)
            wait = self._pairs.wait(pair, now)
            if pair in self._trusted:
                return wait
            return max(wait, self._accounts.wait(account, now), self._addresses.wait(source, now))

    def failed(self, domain: str, user: str, address: str) -> None:
        """Count a wrong password."""
        if not self._enabled:
            return
        account, source, pair = self._keys(domain, user, address)
        now = self._clock.monotonic()
        with self._lock:
            waits = {"account": self._accounts.fail(account, now)}
            if address:
                waits["pair"] = self._pairs.fail(pair, now)
                waits["address"] = self._addresses.fail(source, now)
        scope = max(waits, key=lambda name: waits[name])
        if waits[scope] > 0:
            log.warning(
                "back_off", scope=scope, domain=domain, user=user, address=address or "unknown", seconds=waits[scope]
            )

    def succeeded(self, domain: str, user: str, address: str) -> None:
        """Take note of a right password: it settles the failures of the pair, not those of the address."""
        if not self._enabled or not address:
            return
        pair = self._keys(domain, user, address)[2]
        with self._lock:
            self._pairs.forget(pair)
            self._trusted[pair] = None
            self._trusted.move_to_end(pair)
            while len(self._trusted) > self._entries:
                self._trusted.popitem(last=False)

    def __len__(self) -> int:
        return len(self._pairs) + len(self._addresses) + len(self._accounts) + len(self._trusted)

    def _keys(self, domain: str, user: str, address: str) -> tuple[bytes, bytes, bytes]:
        source = network(address)
        return (
            self._key("account", domain, user),
            self._key("address", source),
            self._key("pair", domain, user, source),
        )

    def _key(self, *values: str) -> bytes:
        """Return a short key: names of any length must not cost memory."""
        text = "\0".join(values).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._secret, digest_size=16).digest()


def network(address: str) -> str:
    """Return what failures of a client address are counted under: itself, of IPv6 its /64, which is one customer's."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), _IPV6_NETWORK), strict=False))
    return str(parsed)

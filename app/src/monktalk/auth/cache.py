"""Results of slow computations, remembered for a while under digests of what they were computed from."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from monktalk.common.clock import Clock

T = TypeVar("T")


class DigestCache(Generic[T]):
    """A map with a bound, an end of life for each entry, and no secret among its keys.

    Keys are digests with a key of the process, so that neither passwords nor names can be read, or compared
    with those of another process, by who sees its memory. May be used by many threads.
    """

    def __init__(self, entries: int, life: float, clock: Clock) -> None:
        self._entries = entries
        self._life = life
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._lock = Lock()
        self._values: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def key(self, *values: str) -> bytes:
        """Return the digest of some texts, in this order."""
        state = hashlib.blake2b(key=self._secret, digest_size=16)
        for value in values:
            data = value.encode("utf-8", "surrogatepass")
            state.update(len(data).to_bytes(4, "big"))  # keeps ("ab", "c") and ("a", "bc") apart
            state.update(data)
        return state.digest()

    def get(self, key: bytes) -> T | None:
        """Return what was put under `key`, None when there is nothing or it is too old."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            until, value = found
            if until <= self._clock.monotonic():
                del self._values[key]
                return None
            self._values.move_to_end(key)
            return value

    def put(self, key: bytes, value: T) -> None:
        """Remember `value`; what was not asked for longest is forgotten for it when there is no room."""
        with self._lock:
            self._values[key] = (self._clock.monotonic() + self._life, value)
            self._values.move_to_end(key)
            while len(self._values) > self._entries:
                self._values.popitem(last=False)

    def __len__(self) -> int:
        return len(self._values)

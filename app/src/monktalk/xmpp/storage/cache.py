"""A bounded cache of what the database holds, that never keeps a value older than one that was announced."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from monktalk.xmpp.storage.interfaces import UNKNOWN, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Activity:
    """A read or a write of one key that is under way; `stale` when its result must not be cached any more."""

    __slots__ = ("stale",)

    def __init__(self) -> None:
        self.stale = False


class _Flight(Activity, Generic[V]):
    """A read of the database that everybody who asks for the key shares."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[V | None]) -> None:
        super().__init__()
        self.future = future


class ReadCache(Generic[K, V]):
    """Least recently used values, and keys known to be absent, each bounded; not thread-safe.

    A value that was being read while the key was written or invalidated goes to those who asked before, but
    not into the cache. The same holds for the result of a write when an invalidation arrives before it is
    finished: another process may have written in between.

    Args:
        entries: values kept at most, and absent keys kept at most.
        weight: sum of the weights of the values kept at most.
        weigh: the weight of a value, asked once when it is stored.
    """

    def __init__(self, entries: int, weight: int = 0, weigh: Callable[[V], int] = lambda _: 0) -> None:
        self._limit = max(1, entries)
        self._weight_limit = weight
        self._weigh = weigh
        self._weight = 0
        self._present: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._absent: OrderedDict[K, None] = OrderedDict()
        self._flights: dict[K, _Flight[V]] = {}
        self._writes: dict[K, list[Activity]] = {}
        self._trusted = True

    def __len__(self) -> int:
        return len(self._present) + len(self._absent)

    def peek(self, key: K) -> V | Unknown | None:
        """The cached value, None when it is known that there is none, or `UNKNOWN`."""
        entry = self._present.get(key)
        if entry is not None:
            self._present.move_to_end(key)
            return entry[0]
        if key in self._absent:
            self._absent.move_to_end(key)
            return None
        return UNKNOWN

    async def get(self, key: K, start: Callable[[], asyncio.Future[V | None]]) -> V | None:
        """The value from the cache, from a read that is under way, or from the read that `start` starts."""
        known = self.peek(key)
        if known is not UNKNOWN:
            return known
        if not self._trusted:
            # A read that is under way may have come too early for what another process has just written.
            future = start()
            future.add_done_callback(_seen)
            return await asyncio.shield(future)
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(start())
            self._flights[key] = flight
            flight.future.add_done_callback(partial(self._landed, key, flight))
        # One who gives up waiting must not cancel the read for the others.
        return await asyncio.shield(flight.future)

    def begin_write(self, key: K) -> Activity:
        """Note that a write of a key is under way; ended by `written` or `not_written`."""
        activity = Activity()
        self._writes.setdefault(key, []).append(activity)
        return activity

    def written(self, key: K, activity: Activity, value: V | None) -> None:
        """A write is durable: `value` is what the database holds now (None: nothing)."""
        self._end_write(key, activity)
        self._forget(key)
        if not activity.stale:
            self._store(key, value)

    def not_written(self, key: K, activity: Activity) -> None:
        """A write failed, or its fate is unknown: what the database holds has to be read again."""
        self._end_write(key, activity)
        self._forget(key)

    def invalidate(self, key: K) -> None:
        """Another process has written the key."""
        self._forget(key)
        for activity in self._writes.get(key, ()):
            activity.stale = True

    def invalidate_where(self, concerned: Callable[[K], bool]) -> None:
        """Other processes have written any of the keys that `concerned` is true for."""
        known = {*self._present, *self._absent, *self._flights, *self._writes}
        for key in filter(concerned, known):
            self.invalidate(key)

    def clear(self) -> None:
        """Anything may have been written by other processes."""
        self.invalidate_where(lambda _: True)

    def trust(self, trusted: bool) -> None:
        """While not trusted, nothing is kept and every get starts a read of its own. Either change clears."""
        self._trusted = trusted
        self.clear()

    def _end_write(self, key: K, activity: Activity) -> None:
        activities = self._writes[key]
        activities.remove(activity)
        if not activities:
            del self._writes[key]

    def _forget(self, key: K) -> None:
        entry = self._present.pop(key, None)
        if entry is not None:
            self._weight -= entry[1]
        self._absent.pop(key, None)
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.stale = True

    def _landed(self, key: K, flight: _Flight[V], future: asyncio.Future[V | None]) -> None:
        if not flight.stale:
            del self._flights[key]
        # Asking for the exception also marks it as seen: those who asked for the value may all have given up.
        if not future.cancelled() and future.exception() is None and not flight.stale:
            self._store(key, future.result())

    def _store(self, key: K, value: V | None) -> None:
        if not self._trusted:
            return
        if value is None:
            self._absent[key] = None
            if len(self._absent) > self._limit:
                self._absent.popitem(last=False)
            return
        weight = self._weigh(value)
        self._present[key] = (value, weight)
        self._weight += weight
        while len(self._present) > self._limit or self._weight > self._weight_limit:
            _, (_, dropped) = self._present.popitem(last=False)
            self._weight -= dropped


def _seen(future: asyncio.Future[V | None]) -> None:
    """Mark an exception as seen: the one who asked for the value may have given up."""
    if not future.cancelled():
        future.exception()

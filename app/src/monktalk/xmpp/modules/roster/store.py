"""Rosters in the key-value store: reading, and changing them so that no change is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakValueDictionary

from monktalk.common.logging import get_logger
from monktalk.xmpp.modules.roster.value import CODEC, EMPTY, Roster
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.storage.interfaces import UNKNOWN, VersionConflict, Versioned

if TYPE_CHECKING:
    from monktalk.xmpp.storage.interfaces import Storage

TABLE: Final = "roster"
ATTEMPTS: Final = 30
LONGEST_PAUSE: Final = 0.05
"""Seconds; another worker that changes a roster many times in a row is let through, and done by then."""

CACHED_ROSTERS: Final = 20_000
CACHED_BYTES: Final = 32 * 1024 * 1024

Edit = Callable[[Roster], Roster]
"""Makes the new roster of the present one. It may be called several times, and may raise to leave all as it is."""

_KEY: Final = ""  # an account has one roster
_ABSENT: Final = Versioned(EMPTY, 0)

log = get_logger(__name__)

_JITTER: Final = random.SystemRandom()
"""So that two workers do not meet again and again."""


class Change(NamedTuple):
    """The outcome of an edit; ``version`` is the one of ``after``."""

    before: Roster
    after: Roster
    version: int


class RosterStore:
    """The rosters of one host. An account without a stored roster has an empty one of version 0."""

    def __init__(self, storage: Storage, host: str) -> None:
        self._values = storage.keyvalue(TABLE, CODEC, CACHED_ROSTERS, CACHED_BYTES)
        self._host = host
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def peek(self, user: str) -> Versioned[Roster] | None:
        """The roster if it is at hand, else None: then only :meth:`get` knows."""
        known = self._values.peek(self._host, user, _KEY)
        if known is UNKNOWN:
            return None
        return known or _ABSENT

    async def get(self, user: str) -> Versioned[Roster]:
        """The roster. Raises :class:`StorageUnavailable`."""
        return await self._values.get(self._host, user, _KEY) or _ABSENT

    async def users(self) -> list[str]:
        """Everybody who has a stored roster. Raises :class:`StorageUnavailable`."""
        return await self._values.owners(self._host)

    async def change(self, user: str, edit: Edit) -> Change:
        """Store what ``edit`` makes of the roster; the change is durable when this returns.

        Edits of one roster take place in the order of the calls. A roster that another process changes at the same time is
        read again. Raises :class:`StorageUnavailable`, :class:`StanzaError` (``resource-constraint``) when others keep being
        faster, and whatever ``edit`` raises.
        """
        # Held by its users alone: the lock goes with the last of them.
        turn = self._turns.setdefault(user, asyncio.Lock())
        async with turn:
            for attempt in range(ATTEMPTS):
                found = await self.get(user)
                after = edit(found.value)
                if after is found.value:
                    return Change(after, after, found.version)
                try:
                    version = await self._values.put(self._host, user, _KEY, after, found.version)
                except VersionConflict:
                    await _pause(attempt)
                    continue
                return Change(found.value, after, version)
        log.warning("roster_contended", user=user, host=self._host, attempts=ATTEMPTS)
        raise StanzaError("resource-constraint", "the roster is being changed from many sides, try again later")

    async def delete(self, user: str) -> Roster:
        """Delete the roster and return what it was. Raises as :meth:`change`."""
        turn = self._turns.setdefault(user, asyncio.Lock())
        async with turn:
            for attempt in range(ATTEMPTS):
                found = await self.get(user)
                if not found.version:
                    return EMPTY
                try:
                    await self._values.delete(self._host, user, _KEY, found.version)
                except VersionConflict:
                    await _pause(attempt)
                    continue
                return found.value
        raise StanzaError("resource-constraint", "the roster is being changed from many sides, try again later")


async def _pause(attempt: int) -> None:
    """Another worker was faster: read again at once, and after a while if that has happened before."""
    await asyncio.sleep(min(LONGEST_PAUSE, 0.005 * attempt) * _JITTER.uniform(0.5, 1.0))

"""Presence for one user in the order of its arrival, where handling it has to wait for the storage."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import Stanza

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from monktalk.xmpp.core.server import Server

LONGEST: Final = 1000
"""Stanzas that may wait for one user; more are refused."""

log = get_logger(__name__)


class Inboxes:
    """A queue for each user for whom something waits, and one task that works it off.

    Args:
        server: keeps the tasks.
        handle: handles one stanza; what it raises is logged.
    """

    def __init__(self, server: Server, handle: Callable[[Stanza], Awaitable[None]]) -> None:
        self._server = server
        self._handle = handle
        self._waiting: dict[str, deque[Stanza | asyncio.Future[None]]] = {}

    def busy(self, user: str) -> bool:
        """Whether anything waits for the user, so that what comes now has to queue up behind it."""
        return user in self._waiting

    def put(self, user: str, stanza: Stanza) -> None:
        """Have the stanza handled after all that came before. Raises :class:`StanzaError` when too much waits."""
        waiting = self._waiting.get(user)
        if waiting is None:
            self._waiting[user] = deque((stanza,))
            _ = self._server.spawn(self._work(user))
        elif len(waiting) < LONGEST:
            waiting.append(stanza)
        else:
            raise StanzaError("resource-constraint", "too much presence waits for this user, try again later")

    async def settled(self, user: str) -> None:
        """Wait until what has come for the user so far is handled."""
        waiting = self._waiting.get(user)
        if waiting is not None:
            mark = asyncio.get_running_loop().create_future()
            waiting.append(mark)
            await mark

    async def _work(self, user: str) -> None:
        waiting = self._waiting[user]
        try:
            while waiting:
                entry = waiting[0]
                if isinstance(entry, Stanza):
                    try:
                        await self._handle(entry)
                    except Exception:
                        log.exception("presence_failed", user=user, type=entry.type)
                elif not entry.done():
                    entry.set_result(None)
                waiting.popleft()
        finally:
            del self._waiting[user]
            for entry in waiting:
                if isinstance(entry, asyncio.Future):
                    entry.cancel()

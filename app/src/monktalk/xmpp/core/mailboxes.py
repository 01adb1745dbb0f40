"""Looks for messages that were put into mailboxes of users who are here, in case word of it was lost on the bus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.server import Server

log = get_logger(__name__)

LOOK_SECONDS: Final = 5.0
"""How often it looks. One query serves all users."""

OVERLAP: Final = 500
"""Ids that are looked at once more, because they may become visible late."""

AT_ONCE: Final = 5000
"""Messages that one look goes through."""


class MailboxWatch:
    """The watch of one worker."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from time to time from now on."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Look now."""
        if self._timer is not None:
            self._timer.cancel()
            self.start()
            _ = self._server.spawn(self._look())

    async def _look(self) -> None:
        after = None if self._seen is None else max(0, self._seen - OVERLAP)
        try:
            newest, found = await self._server.storage.offline.arrivals(after, AT_ONCE)
        except StorageUnavailable as error:
            log.warning("mailboxes_not_looked_at", reason=str(error))
            return
        self._seen = newest
        for domain, user in found:
            host = self._server.hosts.get(domain)
            if host is not None and user in host.sessions:
                host.hooks.mailbox_filled(user)

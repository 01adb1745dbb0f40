"""Leading clients away from a worker that is about to be stopped: in portions, so that they do not all come back at once."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.protocol.errors import StreamError

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server

log = get_logger(__name__)

PAUSE_SECONDS: Final = 0.5
"""The time between two portions."""


class Draining:
    """The draining of one worker. ``wanted`` is set from its beginning until it serves as before."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.wanted = False

    async def run(self, seconds: float) -> int:
        """Tell the other workers that this one takes no new users, and end its sessions; returns how many.

        Clients are told to connect again (``system-shutdown``); sessions that are stored can be resumed at other workers.
        Those who come back here meanwhile are in the next portion.
        Streams of clients whose sessions are at other workers end too; their sessions stay there to be resumed.
        """
        self.wanted = True
        self._server.bus.drain()
        clock, ended = self._server.clock, 0
        deadline = clock.monotonic() + seconds
        log.info("draining", sessions=self._server.hub.sessions(), seconds=seconds)
        while self.wanted:
            await self._server.continuity.flush()
            left = deadline - clock.monotonic()
            ended += self._portion(max(math.ceil(left / PAUSE_SECONDS), 1))
            if left <= 0 or not (self._users() or self._server.hub.relays.relayed()):
                break
            await asyncio.sleep(min(PAUSE_SECONDS, left))
        log.info("drained", ended=ended, sessions=self._server.hub.sessions())
        return ended

    def stop(self) -> None:
        """Take users again."""
        self.wanted = False
        self._server.bus.drain(False)

    def _users(self) -> list[tuple[VirtualHost, str]]:
        return [(host, user) for host in self._server.hosts.values() for user in host.sessions]

    def _portion(self, portions: int) -> int:
        """End the first of so many portions of what is here. All sessions of a user go at once: then his home is free."""
        error = StreamError("system-shutdown", "this server takes a rest, connect again")
        relayed = self._server.hub.relays.relayed()
        for stream in relayed[: math.ceil(len(relayed) / portions)]:
            stream.fail(error)
        users = self._users()
        ended = 0
        for host, user in users[: math.ceil(len(users) / portions)]:
            for arriving in host.arrivals(user):
                arriving.fail(error)
            sessions = host.user_sessions(user)
            self._server.leave_sessions(sessions, error)
            ended += len(sessions)
        return ended

"""The bus of a server that is alone: every user is here, nobody else wants notices."""

from __future__ import annotations

import secrets
import socket
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from monktalk.xmpp.cluster.bus import Peer

if TYPE_CHECKING:
    from monktalk.xmpp.cluster.bus import Hub, Notice


class LocalBus:
    """See :class:`monktalk.xmpp.cluster.bus.Bus`."""

    alone = True

    def __init__(self, node: str | None = None) -> None:
        self._node = node or socket.gethostname()
        self._started = time.time()
        self._hub: Hub | None = None
        self._draining = False
        self.worker = f"{self._node}-0-{secrets.token_hex(4)}"

    async def start(self, hub: Hub) -> None:
        """Nothing to connect to."""
        self._hub = hub

    async def close(self) -> None:
        """Nothing to disconnect from."""

    async def arrive(self, host: str, user: str) -> None:
        """Every user's home is here."""

    def leave(self, host: str, user: str) -> None:
        """Nobody to tell."""

    def insist(self, host: str, user: str) -> None:
        """Nobody to tell."""

    def is_home(self, host: str, user: str) -> bool:
        """Every user's home is here."""
        return True

    def send(self, worker: str, kind: int, *fields: Any) -> None:
        """There is no other worker."""

    def to_user(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """No other worker has him."""
        assert self._hub is not None
        self._hub.homeless(host, user, kind, fields, certain=True)

    def cast(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """No other worker has him."""

    def notify(self, topic: str, *arguments: str) -> None:
        """Nobody to tell."""

    def on_notice(self, topic: str, handler: Notice) -> None:
        """No notice ever comes."""

    def peers(self) -> list[Peer]:
        """This worker."""
        sessions = self._hub.sessions() if self._hub is not None else 0
        return [
            Peer(self.worker, self._node, 0, version("monktalk"), self._started, sessions, self._draining),
        ]

    def missing(self) -> list[Peer]:
        """There is no other worker."""
        return []

    def forget(self, node: str) -> None:
        """There is no other worker."""

    connected = True

    def drain(self, draining: bool = True) -> None:
        """Nobody to tell."""
        self._draining = draining

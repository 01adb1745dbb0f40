"""The bus of a server that is alone: nobody else has sessions, nobody else wants notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monktalk.xmpp.cluster.bus import Notice


class LocalBus:
    """See :class:`monktalk.xmpp.cluster.bus.Bus`."""

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to disconnect from."""

    def user_online(self, host: str, user: str) -> None:
        """Nobody to tell."""

    def user_offline(self, host: str, user: str) -> None:
        """Nobody to tell."""

    def forward(self, host: str, user: str, raw: bytes) -> bool:
        """No other process has the user."""
        return False

    def notify(self, topic: str, *arguments: str) -> None:
        """Nobody to tell."""

    def on_notice(self, topic: str, handler: Notice) -> None:
        """No notice ever comes."""

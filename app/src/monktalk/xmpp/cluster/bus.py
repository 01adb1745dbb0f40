"""The bus between the processes that serve the same users: what the core asks of it.

Messages on the bus may be lost; truth is in the storage. A back end announces which users have sessions here, forwards
stanzas to wherever a user's sessions are, and spreads notices such as cache invalidations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Notice = Callable[[str, tuple[str, ...]], None]
"""Called with the topic and the arguments of a notice of another process."""


class Bus(Protocol):
    """A back end of the bus."""

    async def start(self) -> None:
        """Connect. Raises OSError when that is impossible."""

    async def close(self) -> None:
        """Disconnect."""

    def user_online(self, host: str, user: str) -> None:
        """The first session of the user was opened here."""

    def user_offline(self, host: str, user: str) -> None:
        """The last session of the user was closed here."""

    def forward(self, host: str, user: str, raw: bytes) -> bool:
        """Hand a stanza to the processes where the user has sessions; False when no process has any."""

    def notify(self, topic: str, *arguments: str) -> None:
        """Send a notice to all other processes."""

    def on_notice(self, topic: str, handler: Notice) -> None:
        """Call ``handler`` for the notices of others on that topic."""

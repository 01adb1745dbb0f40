"""The core of a server as the bus sees it, without a server: takes everything, does nothing."""

from __future__ import annotations

from typing import Any


class IdleHub:
    """See :class:`monktalk.xmpp.cluster.bus.Hub`.

    Attributes:
        frames: how many have come for users whose home is here.
        lost: how many of ours found no home.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.lost = 0

    def user_frame(self, worker: str, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """Count it."""
        self.frames += 1

    def homeless(self, host: str, user: str, kind: int, fields: tuple[Any, ...], *, certain: bool) -> None:
        """Count it."""
        self.lost += 1

    def astray(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> bool:
        """Have it sent again."""
        return False

    def worker_frame(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """Nothing comes for the worker."""

    def unsent(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """Nothing is sent to workers."""

    def worker_gone(self, worker: str) -> None:
        """Nobody is missed."""

    def stalled(self) -> None:
        """Nothing is taken over."""

    def conflict(self, host: str, user: str, worker: str, *, older: bool) -> None:
        """There are no sessions."""

    def connected(self, connected: bool) -> None:
        """The bus is there from beginning to end."""

    def news_lost(self) -> None:
        """Nothing is remembered."""

    def sessions(self) -> int:
        """There are none."""
        return 0

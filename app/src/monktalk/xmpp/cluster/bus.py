"""The bus between the workers that serve the same users: what the core asks of it, and what it asks of the core.

A user has one home: the worker at which all of his sessions are (ADR 8). The bus finds homes, makes this worker one, and
carries frames (see :mod:`frames`) to workers and to users' homes, in order between two workers. Frames may be lost; truth is
in the storage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Notice = Callable[[str, tuple[str, ...]], None]
"""Called with the topic and the arguments of a notice of another worker."""


class BusDown(ConnectionError):
    """The other workers can't be reached, so nobody knows where a user's home is."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A worker as the others see it. ``name`` is new with every start, ``node`` the host's name, ``number`` counts on it."""

    name: str
    node: str
    number: int
    version: str
    started: float
    sessions: int = 0
    draining: bool = False


class Hub(Protocol):
    """The core, as the bus sees it. All methods are called on the event loop and do not wait."""

    def user_frame(self, worker: str, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame has come from ``worker`` for a user whose home is here."""

    def homeless(self, host: str, user: str, kind: int, fields: tuple[Any, ...], *, certain: bool) -> None:
        """A frame for a user has found no home of his; he has none, or, unless ``certain``, it is not known where."""

    def astray(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> bool:
        """A frame did not find a user where he was last. True: it need not be sent again."""

    def worker_frame(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame has come for this worker."""

    def unsent(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame for a worker could not be sent, because the bus does not work."""

    def worker_gone(self, worker: str) -> None:
        """A worker has ended, or can't be reached any more."""

    def stalled(self) -> None:
        """This worker did nothing for so long that the others may have taken over its sessions."""

    def conflict(self, host: str, user: str, worker: str, *, older: bool) -> None:
        """Another worker is the user's home, too; ``older`` is true when this one has been it for longer."""

    def connected(self, connected: bool) -> None:
        """The bus works (again), or does not work any more."""

    def news_lost(self) -> None:
        """Notices may have been missed: what is remembered of others' changes is not to be trusted."""

    def sessions(self) -> int:
        """How many sessions there are here."""


class Bus(Protocol):
    """A back end of the bus."""

    worker: str
    """The name of this worker, by which others address it."""

    alone: bool
    """There are no other workers, and never will be: every user's home is here."""

    async def start(self, hub: Hub) -> None:
        """Connect. Raises OSError when that is impossible."""

    async def close(self) -> None:
        """Say good-bye and disconnect."""

    async def arrive(self, host: str, user: str) -> str | None:
        """A client of the user has shown who it is: find his home, or make it here (None).

        Raises :class:`BusDown`.
        """

    def leave(self, host: str, user: str) -> None:
        """Nobody of the user is here any more: be his home no longer."""

    def insist(self, host: str, user: str) -> None:
        """Tell other homes of the user that this one is older."""

    def is_home(self, host: str, user: str) -> bool:
        """Whether the user's home is here."""

    def send(self, worker: str, kind: int, *fields: Any) -> None:
        """Send a frame to a worker."""

    def to_user(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """Send a frame to the home of a user that is not here; without one it goes to :meth:`Hub.homeless`."""

    def cast(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """Send a frame to the home of a user that is not here, if he has one."""

    def notify(self, topic: str, *arguments: str) -> None:
        """Send a notice to all other workers."""

    def on_notice(self, topic: str, handler: Notice) -> None:
        """Call ``handler`` for the notices of others on that topic."""

    def peers(self) -> list[Peer]:
        """All workers that are there, this one included, sorted by node and number."""

    def missing(self) -> list[Peer]:
        """Workers that have vanished without a good-bye, and whose place on their node no other one has taken."""

    def forget(self, node: str) -> None:
        """The workers of that node that are missing will not come back."""

    @property
    def connected(self) -> bool:
        """Whether the other workers can be reached at the moment."""

    def drain(self, draining: bool = True) -> None:
        """Let the others know that this worker takes no new users, or does again."""

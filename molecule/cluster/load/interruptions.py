"""How long a client could not do its work: without a usable stream, or waiting for an acknowledgement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Interruptions:
    """The longest waits of one client in one round, in seconds; `now` is the loop's time everywhere.

    Attributes:
        gap: the longest time without a usable stream.
        wait: the longest time between sending a message and its acknowledgement.
    """

    gap: float = 0.0
    wait: float = 0.0
    _down_since: float = 0.0

    def down(self, since: float) -> None:
        """There is no usable stream since then; called again before `up` it changes nothing."""
        if not self._down_since:
            self._down_since = since

    def up(self, now: float) -> None:
        """There is one again."""
        if self._down_since:
            self.gap = max(self.gap, now - self._down_since)
            self._down_since = 0.0

    def waited(self, seconds: float) -> None:
        """A message was acknowledged after that time."""
        self.wait = max(self.wait, seconds)

    def close_round(self, now: float) -> float:
        """The longest interruption since the last time, one that lasts included."""
        if self._down_since:
            self.gap = max(self.gap, now - self._down_since)
        longest = max(self.gap, self.wait)
        self.gap = self.wait = 0.0
        return longest

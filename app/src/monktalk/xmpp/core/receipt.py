"""What a sender waits for: the effect of one stanza becoming durable, so that it may be acknowledged (XEP-0198)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Receipt:
    """Counts what is still to be done for one stanza; ``settled`` is called when nothing is left.

    It is made with one thing to be done, the routing. ``origin`` and ``number`` name the stanza for as long as its sender may
    repeat it: the token of his session, and its number in his stream. ``origin`` is empty for one that nobody repeats.
    """

    __slots__ = ("_left", "_settled", "number", "origin")

    def __init__(self, origin: str, number: int, settled: Callable[[], None]) -> None:
        self.origin = origin
        self.number = number
        self._left = 1
        self._settled = settled

    def hold(self) -> None:
        """One more thing is to be done."""
        self._left += 1

    def release(self) -> None:
        """One thing is done, or has failed and the sender was told."""
        self._left -= 1
        if self._left == 0:
            self._settled()

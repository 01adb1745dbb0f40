"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def until(question: Callable[[], T], what: str, seconds: float = 30, pause: float = 0.1) -> T:
    """Ask until the answer is true, and return it.

    Raises:
        AssertionError: It was not within the time; says what was waited for, and the last answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; the last answer was {answer!r}")
        time.sleep(pause)

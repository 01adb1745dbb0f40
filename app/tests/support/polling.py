"""Wait for what happens in its own time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T]], satisfied: Callable[[T], bool], what: str, patience: float = 10.0
) -> T:
    """Ask again and again until the answer satisfies; fails with the last answer when it does not in time."""
    deadline = time.monotonic() + patience
    while not satisfied(answer := await ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience:g} s; the last answer was {answer!r}")
        await asyncio.sleep(0.05)
    return answer

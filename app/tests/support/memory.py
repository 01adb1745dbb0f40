"""Whether something that is done again and again makes a program grow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.support.program import Program

KIB = 1024
MIB = 1024 * KIB


async def growth(
    program: Program, action: Callable[[], Awaitable[None]], *, warm_up: int, rounds: int, batches: int = 3
) -> float:
    """Bytes by which the program grows each time that ``action`` is done.

    Caches and the allocator's pools are filled by ``warm_up`` rounds first. Then the smallest growth of several batches
    counts: a leak shows in all of them, a pool that grows once in a while does not.
    """
    for _ in range(warm_up):
        await action()
    grown: list[float] = []
    for _ in range(batches):
        before = program.rss()
        for _ in range(rounds):
            await action()
        grown.append((program.rss() - before) / rounds)
    return min(grown)

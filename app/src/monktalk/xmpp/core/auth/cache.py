"""Answers about accounts, remembered for a short while, without the names and passwords asked with.

Answers hang on their account, so that all of them can be dropped when it changes. Accounts that exist and
names that strangers made up are kept apart, so that the latter push nobody else out.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

from monktalk.common.metrics import Counter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from monktalk.common.clock import Clock

T = TypeVar("T")

CAPACITY: Final = 10_000
"""Accounts with a positive answer that are remembered, and as many without one."""

ANSWERS_PER_ACCOUNT: Final = 8

_DIGEST_BYTES: Final = 16


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""The result of `AnswerCache.peek` when nothing is remembered."""


class CacheClosed(Exception):
    """The cache was closed while the answer was being fetched."""


class Remembered(NamedTuple):
    """An answer with the moment of its fetch, and of its end."""

    value: object
    positive: bool
    fetched: float
    until: float


Answers = OrderedDict[bytes, Remembered]


class AnswerCache:
    """Remembers answers for `life` seconds (0: not at all) and lets identical calls share one fetch.

    Owners (accounts) and questions are digests made by `digest`, with a key of this cache: whoever reads the
    memory finds no password, and whoever picks names cannot make them collide.
    """

    def __init__(
        self,
        clock: Clock,
        life: float,
        *,
        capacity: int = CAPACITY,
        hits: Counter | None = None,
        misses: Counter | None = None,
    ) -> None:
        self._clock = clock
        self._life = life
        self._capacity = capacity
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, Answers] = OrderedDict()
        self._unknown: OrderedDict[bytes, Answers] = OrderedDict()
        self._flights: dict[bytes, dict[tuple[bytes, str], asyncio.Task[Any]]] = {}
        self.hits = hits or Counter("hits", "", {})
        self.misses = misses or Counter("misses", "", {})

    def digest(self, *values: str | bytes) -> bytes:
        """Return a keyed digest that stands for these values, in this order."""
        state = hashlib.blake2b(key=self._key, digest_size=_DIGEST_BYTES)
        for value in values:
            data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            # Lengths keep ("ab", "c") and ("a", "bc") apart.
            state.update(len(data).to_bytes(4, "big"))
            state.update(data)
        return state.digest()

    def peek(self, owner: bytes, question: bytes) -> object:
        """Return the remembered answer, or MISSING."""
        for table in (self._known, self._unknown):
            answers = table.get(owner)
            if answers is not None:
                found = answers.get(question)
                if found is None or found.until <= self._clock.monotonic():
                    return MISSING
                table.move_to_end(owner)
                return found.value
        return MISSING

    async def ask(
        self,
        owner: bytes,
        question: bytes,
        fetch: Callable[[], Coroutine[Any, Any, T]],
        positive: Callable[[T], bool] = bool,
        *,
        asker: str = "",
    ) -> T:
        """Return the remembered answer, else that of `fetch()`: one for all who ask the same meanwhile.

        `positive` tells whether an answer proves that the account exists. Exceptions of `fetch` reach
        everybody who waits, and nothing is remembered. A caller that is cancelled does not cancel the
        fetch. Where an exception may be meant for one `asker` (an address), others have a fetch of their own.

        Raises:
            CacheClosed: `close` was called meanwhile.
        """
        known = self.peek(owner, question)
        if known is not MISSING:
            self.hits.inc()
            return cast("T", known)  # what is stored below under this question
        self.misses.inc()
        flights = self._flights.setdefault(owner, {})
        task = flights.get((question, asker))
        if task is None:
            task = asyncio.create_task(self._fly(owner, (question, asker), fetch, positive))
            task.add_done_callback(_retrieve)
            flights[question, asker] = task
        try:
            return cast("T", await asyncio.shield(task))
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and caller is not None and not caller.cancelling():
                raise CacheClosed("the server is closing") from None
            raise

    def put(self, owner: bytes, question: bytes, value: object, *, positive: bool) -> None:
        """Remember an answer."""
        if self._life <= 0:
            return
        now = self._clock.monotonic()
        answers = self._answers(owner, positive=positive)
        answers[question] = Remembered(value, positive, now, now + self._life)
        answers.move_to_end(question)
        if len(answers) > ANSWERS_PER_ACCOUNT:
            # Wrong passwords make way before right ones do.
            oldest = next((key for key, answer in answers.items() if not answer.positive), next(iter(answers)))
            del answers[oldest]

    def renew(self, owner: bytes, age: float) -> set[bytes]:
        """Let what is remembered of `owner` end when it is `age` seconds old, if that is sooner.

        Returns the questions whose answers have ended now.
        """
        now = self._clock.monotonic()
        ended = set()
        for table in (self._known, self._unknown):
            for question, answer in list(table.get(owner, {}).items()):
                until = min(answer.until, answer.fetched + age)
                if until <= now:
                    del table[owner][question]
                    ended.add(question)
                else:
                    table[owner][question] = answer._replace(until=until)
        return ended

    def drop(self, owner: bytes) -> None:
        """Forget what is known of `owner`; answers under way are given to who waits, not remembered."""
        self._known.pop(owner, None)
        self._unknown.pop(owner, None)
        self._flights.pop(owner, None)

    def clear(self) -> None:
        """Forget everything, as `drop` does."""
        self._known.clear()
        self._unknown.clear()
        self._flights.clear()

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def _answers(self, owner: bytes, *, positive: bool) -> Answers:
        """Return the answers of `owner` in the table where they belong now, as its most recent ones."""
        answers = self._known.get(owner)
        if answers is not None:
            self._known.move_to_end(owner)
            return answers
        table = self._known if positive else self._unknown
        answers = self._unknown.pop(owner, None)
        table[owner] = answers = OrderedDict() if answers is None else answers
        if len(table) > self._capacity:
            table.popitem(last=False)
        return answers

    async def _fly(
        self,
        owner: bytes,
        flight: tuple[bytes, str],
        fetch: Callable[[], Coroutine[Any, Any, T]],
        positive: Callable[[T], bool],
    ) -> T:
        current = asyncio.current_task()
        try:
            answer = await fetch()
            if self._flights.get(owner, {}).get(flight) is current:
                self.put(owner, flight[0], answer, positive=positive(answer))
            return answer
        finally:
            flights = self._flights.get(owner, {})
            if flights.get(flight) is current:
                del flights[flight]
                if not flights:
                    del self._flights[owner]

    async def close(self) -> None:
        """Cancel what is under way and forget everything."""
        tasks = [task for flights in self._flights.values() for task in flights.values()]
        self.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the task's exception as seen: all who waited for it may have gone away."""
    if not task.cancelled():
        task.exception()

"""A circuit breaker: after some failures in a row nobody calls for a while, then one probe may.

A service that is down is neither waited for by every login nor met by all of them at once when it comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from monktalk.common.clock import Clock
    from monktalk.common.metrics import Counter

log = get_logger(__name__)

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half-open"


class BreakerOpen(Exception):
    """The call is not made: the last ones failed, and it is too early for the next try."""


class CircuitBreaker:
    """Guards calls: `with breaker.attempt(): …` for each one.

    `failures` in a row open it, for `reset` seconds; the first attempt after them is the probe whose outcome
    closes it again or starts the wait anew. Exceptions of the type `counted` are failures; any other
    outcome is proof that the service answers, except a cancellation, which says nothing.
    """

    __slots__ = (
        "_clock",
        "_counted",
        "_failed",
        "_failures",
        "_opened_at",
        "_probing",
        "_reset",
        "name",
        "opened",
    )

    def __init__(
        self,
        name: str,
        failures: int,
        reset: float,
        clock: Clock,
        *,
        counted: type[Exception] = Exception,
        opened: Counter | None = None,
    ) -> None:
        self.name = name
        self.opened = opened
        self._failures = failures
        self._reset = reset
        self._clock = clock
        self._counted = counted
        self._failed = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """CLOSED, OPEN, or HALF_OPEN: when the next attempt is the probe, and while it lasts."""
        if self._opened_at is None:
            return CLOSED
        return HALF_OPEN if self._probing or self.wait() <= 0 else OPEN

    def wait(self) -> float:
        """Return the seconds until the next probe is allowed; 0 when it is, or when the breaker is closed."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._reset - self._clock.monotonic())

    def attempt(self) -> Attempt:
        """Return the context of one call.

        Raises:
            BreakerOpen: the call must not be made now.
        """
        if self._opened_at is None:
            return Attempt(self, probe=False)
        if self._probing:
            raise BreakerOpen(f"{self.name} does not answer, and is being tried")
        wait = self.wait()
        if wait > 0:
            raise BreakerOpen(f"{self.name} does not answer, and is tried again in {wait:.1f} s")
        self._probing = True
        return Attempt(self, probe=True)

    def ended(self, error: BaseException | None, *, probe: bool) -> None:
        """Take the outcome of an attempt: what it raised, if anything."""
        if probe:
            self._probing = False
        if isinstance(error, self._counted):
            self._note_failure(probe=probe)
        elif error is None or isinstance(error, Exception):
            self._note_answer()

    def _note_failure(self, *, probe: bool) -> None:
        self._failed += 1
        if probe:
            self._opened_at = self._clock.monotonic()
        elif self._opened_at is None and self._failed >= self._failures:
            self._opened_at = self._clock.monotonic()
            log.error("breaker_opened", service=self.name, failures=self._failed, retry_seconds=self._reset)
            if self.opened is not None:
                self.opened.inc()

    def _note_answer(self) -> None:
        self._failed = 0
        if self._opened_at is not None:
            self._opened_at = None
            log.info("breaker_closed", service=self.name)


class Attempt:
    """One guarded call; the breaker learns how it ends."""

    __slots__ = ("_breaker", "_probe")

    def __init__(self, breaker: CircuitBreaker, *, probe: bool) -> None:
        self._breaker = breaker
        self._probe = probe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker.ended(error, probe=self._probe)

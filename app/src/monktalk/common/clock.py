"""Time, passed in so that tests can move it, and XMPP's way to write it (XEP-0082)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Protocol


class Clock(Protocol):
    """What a component needs to know about time."""

    def monotonic(self) -> float:
        """Return seconds that only grow, for time-outs and durations."""
        ...

    def now(self) -> float:
        """Return seconds since the epoch, for stamps that leave the process."""
        ...


class SystemClock:
    """The clock of the machine."""

    __slots__ = ()

    # The functions themselves, not methods around them: they are called for every stanza.
    monotonic = staticmethod(time.monotonic)
    now = staticmethod(time.time)


class ManualClock:
    """A clock that stands still until a test moves it."""

    __slots__ = ("_monotonic", "_now")

    def __init__(self, now: float = 1_000_000_000.0, monotonic: float = 0.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self._monotonic

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass.

        Raises:
            ValueError: `seconds` is negative; use `set_now` to turn the wall clock back.
        """
        if seconds < 0:
            raise ValueError(f"Time does not go back: advance({seconds}).")
        self._monotonic += seconds
        self._now += seconds

    def set_now(self, epoch: float) -> None:
        """Set the wall clock, as an administrator or NTP may; the monotonic time stays."""
        self._now = epoch


_DATETIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
).fullmatch


def xmpp_datetime(epoch: float) -> str:
    """Return a moment as XEP-0082 DateTime in UTC, with milliseconds unless they are zero.

    Raises:
        ValueError: the moment lies outside of the years 1 to 9999.
    """
    milliseconds = round(epoch * 1000)
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise ValueError(f"{epoch} is not a moment between the years 1 and 9999.") from None
    if milliseconds % 1000:
        return moment.isoformat(timespec="milliseconds")[:-6] + "Z"
    return moment.isoformat(timespec="seconds")[:-6] + "Z"


def parse_xmpp_datetime(text: str) -> float:
    """Return the seconds since the epoch of an XEP-0082 DateTime.

    Raises:
        ValueError: `text` is not a DateTime of XEP-0082 section 3.2, or no such moment exists.
    """
    match = _DATETIME(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is not a DateTime like 2002-09-10T23:41:07Z (XEP-0082).")
    *fields, fraction, sign, hours, minutes = match.groups()
    try:
        year, month, day, hour, minute, second = map(int, fields)
        zone = _zone(sign, int(hours), int(minutes)) if sign else UTC
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
        elapsed = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} is not a DateTime: {error}.") from error
    return elapsed.total_seconds() + (float(fraction) if fraction else 0.0)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _zone(sign: str, hours: int, minutes: int) -> timezone:
    if hours > 23 or minutes > 59:
        raise ValueError("its time zone is out of range")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(offset if sign == "+" else -offset)

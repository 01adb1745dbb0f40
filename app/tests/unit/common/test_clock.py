from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.common.clock import Clock, ManualClock, SystemClock, parse_xmpp_datetime, xmpp_datetime


def test_the_system_clock_is_the_machine_s():
    clock: Clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    assert clock.monotonic() <= clock.monotonic()


def test_a_manual_clock_moves_when_it_is_told():
    clock = ManualClock(now=1000.0)
    before = clock.monotonic()
    clock.advance(2.5)
    assert clock.now() == 1002.5
    assert clock.monotonic() - before == 2.5
    clock.set_now(5.0)
    assert clock.now() == 5.0
    assert clock.monotonic() - before == 2.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1031700067, "2002-09-10T23:21:07Z"),
        (1031700067.25, "2002-09-10T23:21:07.250Z"),
        (1031700067.9996, "2002-09-10T23:21:08Z"),
        (-1, "1969-12-31T23:59:59Z"),
    ],
)
def test_datetimes_are_written_in_utc(epoch, text):
    assert xmpp_datetime(epoch) == text


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("1969-07-21T02:56:15Z", -14159025),
        ("1969-07-20T21:56:15-05:00", -14159025),
        ("2002-09-10T23:21:07.5Z", 1031700067.5),
        ("2002-09-11T01:51:07+02:30", 1031700067),
        ("1970-01-01T00:00:00.123456789Z", 0.123456789),
    ],
)
def test_datetimes_are_read_with_zone_and_fraction(text, epoch):
    assert parse_xmpp_datetime(text) == pytest.approx(epoch, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2002-09-10",
        "20020910T23:21:07",
        "2002-09-10T23:21:07",
        "2002-09-10 23:21:07Z",
        "2002-13-10T23:21:07Z",
        "2002-09-31T23:21:07Z",
        "2002-09-10T24:21:07Z",
        "2002-09-10T23:21:07+24:00",
        "2002-09-10T23:21:07+01:60",
        "0000-01-01T00:00:00Z",
        "٢٠٠٢-09-10T23:21:07Z",
        "2002-09-10T23:21:07Z\n",
    ],
)
def test_what_is_not_a_datetime_is_refused(text):
    with pytest.raises(ValueError, match="is not a DateTime"):
        parse_xmpp_datetime(text)


def test_a_moment_beyond_the_calendar_is_refused():
    with pytest.raises(ValueError, match="between the years"):
        xmpp_datetime(1e12)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_000))
def test_every_millisecond_survives_writing_and_reading(milliseconds):
    assert round(parse_xmpp_datetime(xmpp_datetime(milliseconds / 1000)) * 1000) == milliseconds

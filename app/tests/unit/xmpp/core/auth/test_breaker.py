from __future__ import annotations

import asyncio

import pytest

from monktalk.common.clock import ManualClock
from monktalk.common.metrics import Counter
from monktalk.xmpp.core.auth.breaker import CLOSED, HALF_OPEN, OPEN, BreakerOpen, CircuitBreaker


class ServiceDown(Exception):
    pass


class Refused(Exception):
    pass


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def opened():
    return Counter("opened_total", "Opened.", {})


@pytest.fixture
def breaker(clock, opened):
    return CircuitBreaker("the service", 3, 2.0, clock, counted=ServiceDown, opened=opened)


def attempt(breaker, error=None):
    with breaker.attempt():
        if error is not None:
            raise error


def fail(breaker, times=1):
    for _ in range(times):
        with pytest.raises(ServiceDown):
            attempt(breaker, ServiceDown())


def test_opens_after_failures_in_a_row(breaker, opened):
    fail(breaker, 2)
    assert breaker.state == CLOSED
    fail(breaker)
    assert breaker.state == OPEN
    assert opened.value == 1
    with pytest.raises(BreakerOpen, match=r"tried again in 2\.0 s"):
        breaker.attempt()


def test_an_answer_in_between_starts_the_count_anew(breaker):
    fail(breaker, 2)
    attempt(breaker)
    fail(breaker, 2)
    assert breaker.state == CLOSED


def test_a_refusal_is_an_answer(breaker):
    fail(breaker, 2)
    with pytest.raises(Refused):
        attempt(breaker, Refused())
    fail(breaker, 2)
    assert breaker.state == CLOSED


def test_one_probe_after_the_wait_and_its_answer_closes(breaker, clock):
    fail(breaker, 3)
    clock.advance(1.99)
    with pytest.raises(BreakerOpen):
        breaker.attempt()
    clock.advance(0.01)
    assert breaker.state == HALF_OPEN
    with breaker.attempt():
        with pytest.raises(BreakerOpen, match="is being tried"):
            breaker.attempt()
        assert breaker.state == HALF_OPEN
    assert breaker.state == CLOSED
    attempt(breaker)


def test_a_probe_that_fails_starts_the_wait_anew(breaker, clock, opened):
    fail(breaker, 3)
    clock.advance(2)
    fail(breaker)
    assert breaker.state == OPEN
    assert breaker.wait() == 2.0
    assert opened.value == 1, "it was open all the time"


def test_a_cancelled_probe_lets_the_next_one_through(breaker, clock):
    fail(breaker, 3)
    clock.advance(2)
    with pytest.raises(asyncio.CancelledError):
        attempt(breaker, asyncio.CancelledError())
    assert breaker.state == HALF_OPEN
    attempt(breaker)
    assert breaker.state == CLOSED


def test_calls_that_began_before_it_opened_do_not_prolong_the_wait(breaker, clock):
    late = breaker.attempt()
    fail(breaker, 3)
    clock.advance(1)
    with pytest.raises(ServiceDown), late:
        raise ServiceDown
    assert breaker.wait() == 1.0


def test_a_late_answer_closes_it(breaker):
    late = breaker.attempt()
    fail(breaker, 3)
    with late:
        pass
    assert breaker.state == CLOSED

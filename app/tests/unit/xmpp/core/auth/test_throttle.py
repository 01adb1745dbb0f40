from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.common.clock import ManualClock
from monktalk.common.config import Schema, parse
from monktalk.xmpp.core.auth.throttle import (
    FIRST_DELAY,
    LONGEST_DELAY,
    FailureCounter,
    LoginThrottle,
    address_key,
)
from monktalk.xmpp.core.settings import LIMITS

ALICE = "alice@example.org"
BOB = "bob@example.org"
HERE = "192.0.2.1"
ELSEWHERE = "198.51.100.7"


def limits(text=""):
    return parse(f"[limits]\n{text}", "test", Schema([LIMITS])).section("limits")


@pytest.fixture
def clock():
    return ManualClock(monotonic=1_000.0)


@pytest.fixture
def throttle(clock):
    return LoginThrottle(limits("auth_failures_per_address = 6\nauth_failures_per_account = 3"), clock)


def fail(throttle, address=HERE, account=ALICE, times=1):
    for _ in range(times):
        throttle.failed(address, account)


def test_an_account_is_blocked_for_the_address_that_guessed_only(throttle):
    fail(throttle, times=2)
    assert not throttle.blocked(HERE, ALICE)
    fail(throttle)
    assert throttle.blocked(HERE, ALICE)
    assert not throttle.blocked(HERE), "the address may try other accounts"
    assert not throttle.blocked(HERE, BOB)
    assert not throttle.blocked(ELSEWHERE, ALICE), "strangers must not lock Alice out"


def test_an_address_is_blocked_whatever_accounts_it_tries(throttle):
    for number in range(6):
        assert not throttle.blocked(HERE, BOB)
        fail(throttle, account=f"user{number}@example.org")
    assert throttle.blocked(HERE)
    assert throttle.blocked(HERE, BOB)
    assert not throttle.blocked(ELSEWHERE, BOB)


def test_waiting_lifts_the_block(throttle, clock):
    fail(throttle, times=6)
    assert throttle.blocked(HERE)
    clock.advance(600)
    assert not throttle.blocked(HERE, ALICE)


def test_the_window_slides(throttle, clock):
    for _ in range(6):
        fail(throttle)
        clock.advance(10)
    assert throttle.blocked(HERE)
    clock.advance(300 - 60 - 0.1)
    assert throttle.blocked(HERE), "all six are still within five minutes"
    clock.advance(60 + 0.2)
    assert not throttle.blocked(HERE)


def test_success_forgets_what_the_owner_mistyped_but_not_the_address(throttle):
    fail(throttle, times=3)
    throttle.succeeded(HERE, ALICE)
    assert not throttle.blocked(HERE, ALICE)
    fail(throttle, account=BOB, times=3)
    throttle.succeeded(HERE, ALICE)
    assert throttle.blocked(HERE), "an account of one's own must not pay for guesses at others"


def test_the_delay_doubles_up_to_its_limit(throttle):
    for step in range(12):
        fail(throttle)
        expected = min(LONGEST_DELAY, FIRST_DELAY * 2**step)
        delays = [throttle.delay(HERE, ALICE) for _ in range(20)]
        assert all(0.75 * expected <= delay <= 1.25 * expected for delay in delays)
        assert len(set(delays)) > 1, "chance is part of it"


def test_the_delay_grows_with_guesses_from_everywhere(throttle):
    for number in range(5):
        throttle.failed(f"203.0.113.{number}", ALICE)
    assert throttle.delay(ELSEWHERE, ALICE) >= 0.75 * FIRST_DELAY * 2**4
    assert throttle.delay(ELSEWHERE, BOB) <= 1.25 * FIRST_DELAY


def test_the_delay_grows_with_guesses_of_one_address_at_many_accounts(throttle):
    for number in range(6):
        fail(throttle, account=f"user{number}@example.org")
    # Six of the address count like three of one account.
    assert throttle.delay(HERE, BOB) >= 0.75 * FIRST_DELAY * 2**2


def test_a_flood_of_failures_does_not_overflow_the_delay(throttle):
    fail(throttle, times=5_000)
    assert throttle.delay(HERE, ALICE) <= 1.25 * LONGEST_DELAY


def test_new_limits_count_at_once(throttle):
    fail(throttle, times=4)
    throttle.limits = limits("auth_failures_per_address = 4")
    assert throttle.blocked(HERE)


def test_known_and_unknown_accounts_are_treated_alike(throttle):
    # There is nothing to tell them apart with: the throttle never learns which accounts exist.
    fail(throttle, account="nobody@example.org", times=3)
    fail(throttle, ELSEWHERE, ALICE, times=3)
    assert throttle.blocked(HERE, "nobody@example.org")
    assert throttle.blocked(ELSEWHERE, ALICE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_addresses_that_count_as_one(one, other):
    assert address_key(one) == address_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:db8:0:1::1"),
        ("192.0.2.1", "192.0.2.2"),
        ("192.0.2.1", "::c000:201"),
        ("", "unix"),
    ],
)
def test_addresses_that_do_not(one, other):
    assert address_key(one) != address_key(other)


def test_memory_is_bounded_whatever_strangers_send(clock):
    throttle = LoginThrottle(limits(), clock, capacity=100)
    for number in range(1_000):
        throttle.failed(f"2001:db8:{number:x}::1", "a" * 1000 + f"{number}@example.org")
    tables = (throttle._addresses, throttle._accounts, throttle._pairs)
    assert [len(table) for table in tables] == [100, 100, 100]
    keys = [key for table in tables for key in table._counts]
    assert max(map(len, keys)) < 64, "long names are not kept"


def test_a_persistent_guesser_is_not_pushed_out_by_newcomers(clock):
    throttle = LoginThrottle(limits("auth_failures_per_account = 3"), clock, capacity=100)
    for number in range(1_000):
        throttle.failed(f"2001:db8:{number:x}::1", f"user{number}@example.org")
        if number % 50 == 0:
            throttle.failed(HERE, ALICE)
    assert throttle.blocked(HERE, ALICE)


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(1, 100))
def test_an_event_counts_for_the_window_and_at_most_a_fifth_longer(steps, window):
    counter = FailureCounter()
    times = []
    now = 0.0
    for step in steps:
        now += step
        times.append(now)
        counter.add(b"key", now, window)
        within = sum(1 for time in times if time > now - window * 0.999)
        longer = sum(1 for time in times if time >= now - window * 1.201)
        assert within <= counter.count(b"key", now, window) <= longer
    counter.forget(b"key")
    assert counter.count(b"key", now, window) == 0


def test_a_shorter_window_after_a_reload_does_not_lose_the_way():
    counter = FailureCounter()
    counter.add(b"key", 1_000.0, 300.0)
    assert counter.count(b"key", 1_000.0, 1.0) in (0, 1)
    counter.add(b"key", 1_000.0, 1.0)
    assert counter.count(b"key", 1_000.0, 300.0) >= 1

from __future__ import annotations

from typing import Any

import pytest

from monktalk.auth.backoff import BackOff, network
from monktalk.auth.settings import schema
from monktalk.common.clock import ManualClock
from monktalk.common.config import parse

HERE = "192.0.2.1"
THERE = "198.51.100.7"


class Bench:
    def __init__(self, **options: Any) -> None:
        lines = [f"{name} = {str(value).lower()}" for name, value in options.items()]
        text = "[service]\npassword = '12345678'\n[database]\nurl = 'sqlite:///x'\n[back_off]\n" + "\n".join(lines)
        self.clock = ManualClock()
        self.back_off = BackOff(parse(text, "auth.toml", schema()).section("back_off"), self.clock)

    def fail(self, times: int, user: str = "alice", address: str = HERE) -> None:
        """Fail so often, waiting each time as long as it takes until a password is checked again."""
        for _ in range(times):
            self.clock.advance(self.wait(user, address))
            assert self.wait(user, address) == 0
            self.back_off.failed("example.org", user, address)

    def wait(self, user: str = "alice", address: str = HERE) -> float:
        return self.back_off.wait("example.org", user, address)


def test_some_failures_are_free_and_further_ones_cost_twice_as_much_each_time():
    bench = Bench()
    bench.fail(5)
    assert bench.wait() == 0
    waits = []
    for _ in range(12):
        bench.fail(1)
        waits.append(bench.wait())
    assert all(expected <= wait <= expected * 1.25 for wait, expected in zip(waits, [1, 2, 4, 8, 16, 32], strict=False))
    assert 300 <= waits[-1] <= 375


def test_other_accounts_and_other_addresses_do_not_wait():
    bench = Bench()
    bench.fail(8)
    assert bench.wait() > 0
    assert bench.wait(user="bob") == 0
    assert bench.wait(address=THERE) == 0


def test_an_address_that_tries_many_accounts_waits_for_all_of_them():
    bench = Bench()
    for number in range(31):
        bench.fail(1, user=f"user{number}")
    assert bench.wait(user="alice") >= 1
    assert bench.wait(user="alice", address=THERE) == 0


def test_many_people_behind_one_address_wait_for_seconds_only_and_not_where_they_have_logged_in():
    bench = Bench()
    bench.back_off.succeeded("example.org", "alice", HERE)
    for number in range(500):
        bench.fail(1, user=f"user{number}")
    assert 0 < bench.wait(user="bob") <= 19
    assert bench.wait(user="alice") == 0
    bench.fail(6, user="alice")
    assert bench.wait(user="alice") > 0


def test_nobody_is_locked_out_from_elsewhere_for_longer_than_a_moment():
    bench = Bench()
    for number in range(500):
        bench.fail(1, address=f"203.0.113.{number % 250}")
    wait = bench.wait(address=THERE)
    assert 0 < wait <= 2.5


def test_an_address_from_which_the_account_has_logged_in_does_not_even_wait_that_moment():
    bench = Bench()
    bench.back_off.succeeded("example.org", "alice", HERE)
    for number in range(500):
        bench.fail(1, address=f"203.0.113.{number % 250}")
    assert bench.wait(address=THERE) > 0
    assert bench.wait(address=HERE) == 0


def test_callers_without_address_are_never_held_for_long():
    bench = Bench()
    bench.fail(500, address="")
    assert 0 < bench.wait(address="") <= 2.5


def test_a_right_password_settles_the_failures_of_the_pair_but_not_of_the_address():
    bench = Bench()
    bench.fail(7)
    bench.clock.advance(bench.wait())
    bench.back_off.succeeded("example.org", "alice", HERE)
    bench.fail(5)
    assert bench.wait() == 0
    for number in range(30):
        bench.fail(1, user=f"user{number}")
        bench.back_off.succeeded("example.org", "own", HERE)
    assert bench.wait(user="bob") > 0


def test_failures_are_forgotten_after_the_window():
    bench = Bench()
    bench.fail(9)
    bench.clock.advance(1800)
    bench.fail(5)
    assert bench.wait() == 0


def test_refused_attempts_do_not_prolong_the_wait():
    bench = Bench()
    bench.fail(6)
    before = bench.wait()
    for _ in range(100):
        assert bench.wait() == before
    bench.clock.advance(before)
    assert bench.wait() == 0


def test_memory_is_bounded_whatever_is_tried():
    bench = Bench(entries=100)
    for number in range(1000):
        bench.back_off.failed("example.org", f"user{number}" * 50, f"192.0.2.{number}")
        bench.back_off.succeeded("example.org", f"user{number}", f"192.0.2.{number}")
    assert len(bench.back_off) <= 400


def test_it_can_be_switched_off():
    bench = Bench(enabled=False)
    for _ in range(100):
        bench.back_off.failed("example.org", "alice", HERE)
    assert bench.wait() == 0
    assert len(bench.back_off) == 0


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("not an address", "not an address"),
    ],
)
def test_addresses_of_one_customer_count_as_one(address, counted):
    assert network(address) == counted

from __future__ import annotations

from collections import Counter

from bench.cluster.traffic import BETWEEN, HALF, INSIDE, Traffic, places


def test_inside_nobody_crosses_and_pairs_are_spread():
    seats = places(200, 2, INSIDE)
    assert all(sender == recipient for sender, recipient in seats)
    assert Counter(sender for sender, _ in seats) == {0: 100, 1: 100}


def test_between_everybody_crosses_in_both_directions():
    assert Counter(places(200, 2, BETWEEN)) == {(0, 1): 100, (1, 0): 100}


def test_half_of_the_pairs_of_each_worker_cross():
    assert Counter(places(200, 2, HALF)) == {(0, 0): 50, (0, 1): 50, (1, 0): 50, (1, 1): 50}


def test_cost_of_a_message_is_that_of_everybody():
    assert Traffic(10.0, 2.0, 30.0, 1000.0, 1.0, 0.5, {}).total_us == 42.0

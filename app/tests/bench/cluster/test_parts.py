from __future__ import annotations

import pytest

from bench.cluster.parts import gain, summary
from bench.cluster.traffic import Traffic


def traffic(workers: float, bus: float = 0.0, **faults: int) -> Traffic:
    return Traffic(workers, bus, 0.0, 1000.0, 1.0, 1.0, faults)


def test_summary_has_medians_and_sums_of_faults():
    record = summary([traffic(10.0, lost=1), traffic(30.0), traffic(20.0, 1.0, lost=2)])
    assert (record["workers_us"], record["bus_us"], record["total_us"]) == (20.0, 0.0, 21.0)
    assert record["samples"] == [10.0, 30.0, 21.0]
    assert record["faults"] == {"lost": 3}


def test_two_workers_whose_messages_cost_no_more_route_twice_as_many():
    assert gain(traffic(20.0), traffic(20.0)) == (2.0, 2.0)


def test_what_the_bus_takes_of_the_two_cores_is_in_the_second_gain():
    assert gain(traffic(20.0), traffic(25.0, 7.0)) == pytest.approx((1.6, 1.25))

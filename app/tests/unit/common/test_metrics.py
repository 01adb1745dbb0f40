from __future__ import annotations

import math

import pytest

from monktalk.common.metrics import Registry


@pytest.fixture
def registry():
    return Registry()


def test_a_counter_counts(registry):
    counter = registry.counter("stanzas_total", "Stanzas routed.")
    counter.inc()
    counter.inc(4)
    counter.value += 1
    assert registry.snapshot() == {"stanzas_total": 6}


def test_asking_again_gives_the_same_metric(registry):
    assert registry.counter("stanzas_total", "Stanzas.") is registry.counter("stanzas_total", "Stanzas.")
    assert registry.histogram("seconds", "Time.") is registry.histogram("seconds", "Time.")


def test_labels_tell_metrics_of_one_name_apart(registry):
    registry.counter("logins_total", "Logins.", host="a").inc()
    registry.counter("logins_total", "Logins.", host="b").inc(2)
    assert registry.snapshot() == {'logins_total{host="a"}': 1, 'logins_total{host="b"}': 2}


def test_a_gauge_is_read_when_somebody_looks(registry):
    sessions: list[int] = []
    registry.gauge("sessions", "Sessions.", lambda: len(sessions))
    sessions.append(1)
    assert registry.snapshot() == {"sessions": 1}
    registry.gauge("sessions", "Sessions.", lambda: 7)
    assert registry.snapshot() == {"sessions": 7}


def test_a_histogram_spreads_values_over_buckets(registry):
    histogram = registry.histogram("seconds", "Time.", (1, 2.5))
    for value in (0.5, 1, 2, 100):
        histogram.observe(value)
    assert histogram.buckets() == {1: 2, 2.5: 3, math.inf: 4}
    assert registry.snapshot() == {"seconds": {"count": 4, "sum": 103.5, "buckets": {"1": 2, "2.5": 3, "+Inf": 4}}}


def test_the_text_form_is_prometheus_own(registry):
    registry.counter("logins_total", "Logins\nby host.", host='a"\\b').inc(3)
    registry.gauge("load", "Load.", lambda: 0.5)
    registry.histogram("seconds", "Time.", (0.1, 1), op="put").observe(0.5)
    assert registry.exposition() == (
        "# HELP load Load.\n"
        "# TYPE load gauge\n"
        "load 0.5\n"
        "# HELP logins_total Logins\\nby host.\n"
        "# TYPE logins_total counter\n"
        'logins_total{host="a\\"\\\\b"} 3\n'
        "# HELP seconds Time.\n"
        "# TYPE seconds histogram\n"
        'seconds_bucket{op="put",le="0.1"} 0\n'
        'seconds_bucket{op="put",le="1"} 1\n'
        'seconds_bucket{op="put",le="+Inf"} 1\n'
        'seconds_sum{op="put"} 0.5\n'
        'seconds_count{op="put"} 1\n'
    )


def test_a_removed_metric_is_gone_and_its_name_free(registry):
    counter = registry.counter("x_total", "X.", host="a")
    other = registry.counter("x_total", "X.", host="b")
    registry.remove(counter)
    registry.remove(counter)
    assert registry.snapshot() == {'x_total{host="b"}': 0}
    registry.remove(other)
    assert registry.exposition() == ""
    registry.gauge("x_total", "Now a gauge.", lambda: math.nan)
    assert "x_total NaN" in registry.exposition()


def test_removing_a_metric_that_was_replaced_leaves_its_successor(registry):
    former = registry.gauge("sessions", "Sessions.", lambda: 1)
    registry.gauge("sessions", "Sessions.", lambda: 2)
    registry.remove(former)
    assert registry.snapshot() == {"sessions": 2}


def test_a_name_means_one_kind(registry):
    registry.counter("x_total", "X.")
    with pytest.raises(ValueError, match="is a counter"):
        registry.gauge("x_total", "X.", lambda: 1)


@pytest.mark.parametrize("name", ["", "1x", "a-b", "a b", "a\n"])
def test_names_are_checked(registry, name):
    with pytest.raises(ValueError, match="names are letters"):
        registry.counter(name, "X.")


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1), (1, math.inf)])
def test_bounds_are_checked(registry, bounds):
    with pytest.raises(ValueError, match="must be finite and grow"):
        registry.histogram("x", "X.", bounds)

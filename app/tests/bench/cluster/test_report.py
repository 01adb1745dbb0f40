from __future__ import annotations

from bench.cluster.parts import BEATS, CAPACITY, GUARANTEE, HOMES, MESSAGES
from bench.cluster.report import tables

COST = {"workers_us": 20.0, "bus_us": 2.0, "database_us": 3.0, "total_us": 25.0, "wall_per_s": 1234.0, "p50_ms": 1.5}


def rows(*records):
    lines = tables(records).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_messages_inside_and_between_are_one_row():
    cell = {"part": MESSAGES, "tls": True, "window": 10}
    _, _, row = rows({**cell, **COST, "total_us": 10.0}, {**cell, **COST, "ratio": 2.5})
    assert row == ["TLS, window 10", "10.0", "25.0", "20.0", "2.0", "2.50"]


def test_guarantee_shows_the_database_apart():
    _, _, row = rows({"part": GUARANTEE, "database": "PostgreSQL", "crossing": "inside", "window": 1, **COST})
    assert row == ["inside, window 1", "PostgreSQL", "25.0", "20.0", "2.0", "3.0", "1,234", "1.5"]


def test_capacity_is_that_of_all_workers():
    record = {"part": CAPACITY, "window": 1, **COST}
    _, _, one, two = rows(
        {**record, "workers": 1}, {**record, "workers": 2, "gain": 2.0, "gain_with_bus": 1.8, "workers_us": 25.0}
    )
    assert one[4:] == ["50,000", "", ""]
    assert two[4:] == ["80,000", "2.00", "1.80"]


def test_memory_is_for_each_user():
    kib = {"worker": 1100, "bus": 2100, "far_bus": 150}
    empty = {"worker": 100, "bus": 100, "far_bus": 100}
    cpu = {"worker": 20.0, "bus": 10.0, "far_bus": 5.0}
    users = {"users": 1000, "kib": kib, "kib_empty": empty, "login_us": cpu, "p50_ms": 0.1, "p99_ms": 0.25}
    found = {"found": 1000, "find_us": cpu, "found_kib": {"worker": 250}}
    _, _, row = rows({"part": HOMES, **users}, {"part": HOMES, **found})
    assert row == ["1,000", "1.00", "2.00", "0.05", "20.0", "10.0", "5.0", "0.10", "0.25"]
    assert "Finding 1,000 homes from another worker: 20 µs" in tables(
        [{"part": HOMES, **found}, {"part": HOMES, **users}]
    )


def test_heartbeats_are_a_share_of_a_core():
    _, _, row = rows({"part": BEATS, "workers": 64, "worker_share": 0.0025, "bus_share": 0.1, "beat_us": 12.0})
    assert row == ["64", "0.25 %", "12.0", "10.0 %"]


def test_parts_that_were_not_measured_are_left_out():
    assert tables([]) == ""

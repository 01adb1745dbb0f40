"""The records as tables in Markdown, as docs/benchmark.md shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cluster.parts import BEATS, CAPACITY, GUARANTEE, HOMES, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.cluster.parts import Record


def tables(records: Iterable[Record]) -> str:
    """All of them; parts that were not measured are left out."""
    everything = list(records)
    parts: list[tuple[str, Callable[[Sequence[Record]], str]]] = [
        (MESSAGES, _messages),
        (GUARANTEE, _guarantee),
        (CAPACITY, _capacity),
        (HOMES, _homes),
        (BEATS, _beats),
    ]
    found = []
    for part, table in parts:
        mine = [record for record in everything if record["part"] == part]
        if mine:
            found.append(table(mine))
    return "\n\n".join(found)


def _messages(records: Sequence[Record]) -> str:
    rows = []
    for inside, between in zip(records[::2], records[1::2], strict=True):
        conditions = f"{'TLS' if inside['tls'] else 'plain'}, window {inside['window']}"
        rows.append(
            [
                conditions,
                _us(inside["total_us"]),
                _us(between["total_us"]),
                *_shares(between),
                f"{between['ratio']:.2f}",
            ]
        )
    head = ["CPU for each message, µs", "inside a worker", "between workers", "workers", "NATS", "ratio"]
    return _table(head, rows)


def _shares(record: Record) -> list[str]:
    return [_us(record["workers_us"]), _us(record["bus_us"])]


def _guarantee(records: Sequence[Record]) -> str:
    rows = [
        [
            f"{record['crossing']}, window {record['window']}",
            record["database"],
            _us(record["total_us"]),
            *_shares(record),
            _us(record["database_us"]),
            f"{record['wall_per_s']:,.0f}",
            f"{record['p50_ms']:.1f}",
        ]
        for record in records
    ]
    head = ["with acks", "guarantee", "CPU µs", "workers", "NATS", "PostgreSQL", "messages/s", "p50 ms"]
    return _table(head, rows)


def _capacity(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        row = [f"{record['workers']}, window {record['window']}", *_shares(record), f"{record['wall_per_s']:,.0f}"]
        row.append(f"{record['workers'] * 1e6 / record['workers_us']:,.0f}")
        row += [f"{record[name]:.2f}" if name in record else "" for name in ("gain", "gain_with_bus")]
        rows.append(row)
    head = ["workers", "workers' CPU µs", "NATS CPU µs", "messages/s seen", "capacity/s", "gain", "gain with NATS"]
    return _table(head, rows)


def _homes(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        if "users" not in record:
            continue
        users, kib, empty, login = record["users"], record["kib"], record["kib_empty"], record["login_us"]
        rows.append(
            [
                f"{users:,}",
                *(f"{(kib[who] - empty[who]) / users:.2f}" for who in ("worker", "bus", "far_bus")),
                *(_us(login[who]) for who in ("worker", "bus", "far_bus")),
                f"{record['p50_ms']:.2f}",
                f"{record['p99_ms']:.2f}",
            ]
        )
    head = ["users", "KiB a user: worker", "NATS", "other node's NATS", "CPU µs a login: worker", "NATS"]
    head += ["other node's NATS", "time alone, ms", "99 %"]
    text = _table(head, rows)
    for record in records:
        if "found" in record:
            found, kib, cpu = record["found"], record["found_kib"], record["find_us"]
            text += (
                f"\n\nFinding {found:,} homes from another worker: {cpu['worker']:.0f} µs of both workers and "
                f"{cpu['bus']:.0f} µs of NATS each, {kib['worker'] / found:.2f} KiB each to remember them."
            )
    return text


def _beats(records: Sequence[Record]) -> str:
    rows = [
        [
            str(record["workers"]),
            f"{record['worker_share'] * 100:.2f} %",
            f"{record['beat_us']:.1f}",
            f"{record['bus_share'] * 100:.1f} %",
        ]
        for record in records
    ]
    return _table(["workers", "of a core, each worker", "µs for a beat taken", "of a core, one NATS for all"], rows)


def _us(value: float) -> str:
    return f"{value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

"""The table on the terminal and the file of records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.results import CHAT, IDLE, LOGIN, Cell, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_COLUMNS: Mapping[str, Sequence[tuple[str, str, int]]] = {
    CHAT: (
        ("CPU µs", "cpu_us", 1),
        ("messages/s", "wall_per_s", 0),
        ("p50 ms", "p50_ms", 1),
        ("p99 ms", "p99_ms", 1),
        ("lost", "lost", 0),
        ("doubled", "duplicated", 0),
    ),
    LOGIN: (
        ("CPU µs", "cpu_us", 0),
        ("auth µs", "auth_cpu_us", 0),
        ("cached µs", "cached_cpu_us", 0),
        ("first µs", "first_cpu_us", 0),
        ("first auth µs", "first_auth_cpu_us", 0),
        ("logins/s", "wall_per_s", 0),
        ("p50 ms", "p50_ms", 1),
        ("p99 ms", "p99_ms", 1),
    ),
    IDLE: (("KiB a session", "kib", 1), ("sessions", "sessions", 0)),
}
_TITLES = {
    CHAT: "chat: server CPU for each routed message",
    LOGIN: "login: server CPU for each login",
    IDLE: "idle: memory of each session",
}


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write the records as JSON; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def tables(records: Iterable[Record], subject: str) -> str:
    """The records as text, one table for each workload.

    Args:
        records: what was measured.
        subject: the server that the last column compares with: how many times its cost a server's cost is.
    """
    everything = list(records)
    parts = [_table(workload, everything, subject) for workload in (CHAT, LOGIN, IDLE)]
    return "\n\n".join(part for part in parts if part)


def _table(workload: str, records: Sequence[Record], subject: str) -> str:
    mine = [record for record in records if record["workload"] == workload]
    if not mine:
        return ""
    ratios = {
        (_cell(record), peer): ratio
        for record in mine
        if isinstance(by_peer := record.get("ratios"), dict)
        for peer, ratio in by_peer.items()
    }
    columns = _COLUMNS[workload]
    compare = any(ratios)
    rows = [["", "server", *(title for title, _, _ in columns), *([f"x {subject}"] if compare else [])]]
    previous: Cell | None = None
    for record in mine:
        cell = _cell(record)
        row = ["" if cell == previous else cell.conditions(), f"{record['server']} {record['version']}"]
        row += [_number(record.get(key), digits) for _, key, digits in columns]
        if compare:
            row.append(_number(ratios.get((cell, str(record["server"]))), 2))
        rows.append(row)
        previous = cell
    return f"{_TITLES[workload]}\n{_align(rows)}"


def _cell(record: Record) -> Cell:
    window = record["window"]
    return Cell(
        str(record["workload"]), bool(record["tls"]), window if isinstance(window, int) else None, bool(record["sm"])
    )


def _number(value: object, digits: int) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else "-"


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        # Two columns of words, then numbers.
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

"""What was measured, the medians of the repetitions, and the ratios between servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

CHAT = "chat"
LOGIN = "login"
IDLE = "idle"
WORKLOADS = (CHAT, LOGIN, IDLE)

Value = str | bool | int | float | None | list[float] | dict[str, float]
Record = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of measurement, the same for every server."""

    workload: str
    tls: bool
    window: int | None
    sm: bool

    def conditions(self) -> str:
        """What distinguishes it from the other cells of its workload, in a few words."""
        words = ["TLS" if self.tls else "plain"]
        if self.window is not None:
            words.append(f"window {self.window}")
        if self.sm:
            words.append("with acks")
        return ", ".join(words)


@dataclass(slots=True)
class Sample:
    """One measurement; what a workload does not give is None.

    Attributes:
        faults: what must not happen and did, by name: lost, duplicated, damaged, misdelivered, reordered,
            unacknowledged.
        extra: further numbers of this workload, that become fields of the record.
    """

    cpu_us: float | None = None
    wall_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    kib: float | None = None
    faults: dict[str, int] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)

    def cost(self) -> float | None:
        """The number that servers are compared by: all CPU of a message or login, or memory."""
        if self.cpu_us is None:
            return self.kib
        return self.cpu_us + self.extra.get("auth_cpu_us", 0.0)


Samples = Mapping[str, Sequence[Sample | None]]


def make_records(
    results: Mapping[Cell, Samples], versions: Mapping[str, str], mechanism: str, subject: str
) -> list[Record]:
    """The records of latest.json, by cell and server.

    Args:
        results: the samples of each server in each cell, one for each repetition, None where it failed.
        versions: of the servers.
        mechanism: the SASL mechanism that clients used.
        subject: the server whose records get the ratios to the others.
    """
    records = []
    for cell, samples in results.items():
        for server, repetitions in samples.items():
            good = [sample for sample in repetitions if sample is not None]
            if not good:
                continue
            record = _record(cell, server, versions[server], good)
            record["mechanism"] = mechanism
            record["repetitions"] = len(good)
            record["samples"] = [cost for sample in good if (cost := sample.cost()) is not None]
            if server == subject:
                record["ratios"] = {
                    peer: ratio
                    for peer, others in samples.items()
                    if peer != server and (ratio := ratio_of_costs(others, repetitions)) is not None
                }
            records.append(record)
    return records


def _record(cell: Cell, server: str, version: str, good: Sequence[Sample]) -> Record:
    faults = sorted({name for sample in good for name in sample.faults} | {"lost", "duplicated"})
    totals: Record = {name: sum(sample.faults.get(name, 0) for sample in good) for name in faults}
    record: Record = {
        "server": server,
        "version": version,
        "workload": cell.workload,
        "tls": cell.tls,
        "window": cell.window,
        "sm": cell.sm,
        "archive": False,
        "cpu_us": _median(sample.cpu_us for sample in good),
        "wall_per_s": _median(sample.wall_per_s for sample in good),
        "p50_ms": _median(sample.p50_ms for sample in good),
        "p99_ms": _median(sample.p99_ms for sample in good),
        "kib": _median(sample.kib for sample in good),
        "lost": totals.pop("lost"),
        "duplicated": totals.pop("duplicated"),
        **totals,
    }
    for name in sorted({name for sample in good for name in sample.extra}):
        record[name] = _median(sample.extra.get(name) for sample in good)
    return record


def ratio_of_costs(peer: Sequence[Sample | None], own: Sequence[Sample | None]) -> float | None:
    """How many times the cost of `own` that of `peer` is: median of the ratios within each repetition.

    Repetitions pair because both were measured within the same minute: what slows the machine slows both.
    """
    ratios = []
    for theirs, ours in zip(peer, own, strict=True):
        if theirs is None or ours is None:
            continue
        cost, other = ours.cost(), theirs.cost()
        if cost and other is not None and cost > 0:
            ratios.append(other / cost)
    return round(median(ratios), 2) if ratios else None


def _median(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return round(median(numbers), 3) if numbers else None


def faulty(records: Iterable[Record]) -> list[Record]:
    """The records in which a message was lost, doubled, damaged or went astray."""
    names = ("lost", "duplicated", "damaged", "misdelivered", "reordered", "unacknowledged")
    return [record for record in records if any(record.get(name) for name in names)]

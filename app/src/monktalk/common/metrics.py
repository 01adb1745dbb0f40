"""Counters, gauges and histograms of one process, and their text form for Prometheus.

Nothing here locks: a metric is changed by one thread, and `Counter.inc` costs no more than an addition.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds for durations in seconds."""

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*").fullmatch


class Metric:
    """What all metrics have: a name, a sentence, and labels that tell them from others of the name."""

    kind = ""
    __slots__ = ("doc", "labels", "name")

    def __init__(self, name: str, doc: str, labels: dict[str, str]) -> None:
        if not _NAME(name) or not all(_NAME(label) for label in labels):
            raise ValueError(f"Metric {name!r} {labels!r}: names are letters, digits and underscores.")
        self.name = name
        self.doc = doc
        self.labels = labels

    def snapshot(self) -> float | dict[str, object]:
        """Return the value now: a number, or for a histogram a dict."""
        raise NotImplementedError

    def lines(self) -> Iterator[str]:
        """Yield the sample lines of the Prometheus text format."""
        raise NotImplementedError


class Counter(Metric):
    """A number that grows. `value` may be read, and on a hot path added to, directly."""

    kind = "counter"
    __slots__ = ("value",)

    def __init__(self, name: str, doc: str, labels: dict[str, str]) -> None:
        super().__init__(name, doc, labels)
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Add `amount`."""
        self.value += amount

    def snapshot(self) -> float:
        """Return the value."""
        return self.value

    def lines(self) -> Iterator[str]:
        """Yield the one sample."""
        yield f"{self.name}{_labels(self.labels)} {self.value}"


class Gauge(Metric):
    """A number that is asked for when somebody looks."""

    kind = "gauge"
    __slots__ = ("read",)

    def __init__(self, name: str, doc: str, labels: dict[str, str], read: Callable[[], float]) -> None:
        super().__init__(name, doc, labels)
        self.read = read

    def snapshot(self) -> float:
        """Return the value."""
        return self.read()

    def lines(self) -> Iterator[str]:
        """Yield the one sample."""
        yield f"{self.name}{_labels(self.labels)} {_number(self.read())}"


class Histogram(Metric):
    """How observed values spread over buckets."""

    kind = "histogram"
    __slots__ = ("_counts", "bounds", "count", "sum")

    def __init__(self, name: str, doc: str, labels: dict[str, str], bounds: Sequence[float]) -> None:
        super().__init__(name, doc, labels)
        if not bounds or list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise ValueError(f"Metric {name!r}: the bounds of its buckets must be finite and grow.")
        self.bounds = tuple(bounds)
        self.count = 0
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.sum += value

    def buckets(self) -> dict[float, int]:
        """Return how many values were at most each bound; the last bound is infinity."""
        total = 0
        result = {}
        for bound, count in zip((*self.bounds, math.inf), self._counts, strict=True):
            total += count
            result[bound] = total
        return result

    def snapshot(self) -> dict[str, object]:
        """Return count, sum and buckets, these by their bound as text."""
        return {
            "count": self.count,
            "sum": self.sum,
            "buckets": {_number(bound): count for bound, count in self.buckets().items()},
        }

    def lines(self) -> Iterator[str]:
        """Yield a sample for each bucket, then sum and count."""
        for bound, count in self.buckets().items():
            yield f"{self.name}_bucket{_labels({**self.labels, 'le': _number(bound)})} {count}"
        yield f"{self.name}_sum{_labels(self.labels)} {_number(self.sum)}"
        yield f"{self.name}_count{_labels(self.labels)} {self.count}"


M = TypeVar("M", bound=Metric)


class Registry:
    """The metrics of a process by name and labels."""

    def __init__(self) -> None:
        self._metrics: dict[str, dict[tuple[tuple[str, str], ...], Metric]] = {}

    def counter(self, name: str, doc: str, **labels: str) -> Counter:
        """Return the counter of this name and these labels, made at the first call.

        Raises:
            ValueError: the name is not allowed, or belongs to a metric of another kind.
        """
        return self._obtain(Counter(name, doc, labels))

    def gauge(self, name: str, doc: str, read: Callable[[], float], **labels: str) -> Gauge:
        """Register a gauge whose value is `read()`, in the place of an earlier one of its name and labels.

        Raises:
            ValueError: the name is not allowed, or belongs to a metric of another kind.
        """
        gauge = Gauge(name, doc, labels, read)
        self._family(gauge)[_key(gauge)] = gauge
        return gauge

    def histogram(self, name: str, doc: str, bounds: Sequence[float] = DEFAULT_BUCKETS, **labels: str) -> Histogram:
        """Return the histogram of this name and these labels, made at the first call.

        Raises:
            ValueError: the name is not allowed, belongs to another kind, or the bounds do not grow.
        """
        return self._obtain(Histogram(name, doc, labels, bounds))

    def remove(self, metric: Metric) -> None:
        """Forget a metric, as a module does when it is unloaded; an unknown one is no error."""
        family = self._metrics.get(metric.name, {})
        if family.get(_key(metric)) is metric:
            del family[_key(metric)]
            if not family:
                del self._metrics[metric.name]

    def snapshot(self) -> dict[str, float | dict[str, object]]:
        """Return all values by name, labels after it as in the text form."""
        return {
            f"{name}{_labels(metric.labels)}": metric.snapshot()
            for name, family in sorted(self._metrics.items())
            for metric in family.values()
        }

    def exposition(self) -> str:
        """Return the Prometheus text format, version 0.0.4."""
        lines: list[str] = []
        for name, family in sorted(self._metrics.items()):
            first = next(iter(family.values()))
            lines.append(f"# HELP {name} {_escape(first.doc)}")
            lines.append(f"# TYPE {name} {first.kind}")
            for metric in family.values():
                lines.extend(metric.lines())
        return "".join(f"{line}\n" for line in lines)

    def _family(self, metric: Metric) -> dict[tuple[tuple[str, str], ...], Metric]:
        family = self._metrics.setdefault(metric.name, {})
        for other in family.values():
            if other.kind != metric.kind:
                raise ValueError(f"Metric {metric.name!r} is a {other.kind}, it cannot be a {metric.kind} too.")
        return family

    def _obtain(self, made: M) -> M:
        known = self._family(made).setdefault(_key(made), made)
        assert isinstance(known, type(made))  # _family has compared the kinds
        return known


def _key(metric: Metric) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(metric.labels.items()))


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    inner = ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) else repr(float(value))

"""The table of rounds: one line each, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS = (
    ("fault", 26),
    ("acknowledged", 12),
    ("lost", 5),
    ("doubled", 7),
    ("bounced", 7),
    ("order", 5),
    ("ghosts", 6),
    ("resumed", 7),
    ("new", 5),
    ("longest interruption", 20),
    ("untouched", 9),
)


def header() -> str:
    """The names of the columns."""
    return "  ".join(
        f"{name:<{width}}" if index == 0 else f"{name:>{width}}" for index, (name, width) in enumerate(_COLUMNS)
    )


def line(report: Mapping[str, Any]) -> str:
    """The line of one round.

    Args:
        report: as `Report.as_json` gives it.
    """
    findings = report["findings"]
    untouched = report["untouched"]
    values = (
        report["name"] or "none",
        findings["acknowledged"],
        findings["lost"],
        findings["duplicated"],
        sum(findings["bounced"].values()),
        findings["misordered"],
        len(report["ghosts"]),
        report["resumptions"],
        report["new_sessions"],
        f"{report['interruption']:.2f} s",
        "-" if untouched is None else f"{untouched:.2f} s",
    )
    return "  ".join(
        f"{value:<{width}}" if index == 0 else f"{value:>{width}}"
        for index, (value, (_, width)) in enumerate(zip(values, _COLUMNS, strict=True))
    )


def complaints(report: Mapping[str, Any], longest: float = 0, longest_untouched: float = 0) -> list[str]:
    """What must not be, one sentence each; empty when every acknowledged message arrived exactly once.

    Args:
        report: as `Report.as_json` gives it.
        longest: the longest interruption that may be, in seconds; 0 for any.
        longest_untouched: the same for clients that nothing has happened to.
    """
    findings = report["findings"]
    counted = {
        "acknowledged messages were lost": findings["lost"],
        "messages came more than once": findings["duplicated"],
        "messages were refused": sum(findings["bounced"].values()),
        "messages are not acknowledged": findings["unacknowledged"],
        "messages came in another order than they were sent": findings["misordered"],
        "messages were damaged": findings["damaged"],
        "messages came to somebody else": findings["misdelivered"],
        "messages came that nobody has sent": findings["strays"],
        "contacts are seen that are not there": len(report["ghosts"]),
        "contacts are not seen that are there": len(report["unseen"]),
    }
    found = [f"{count} {what}" for what, count in counted.items() if count]
    found += report["incomplete"]
    if not findings["acknowledged"]:
        found.append("no message was acknowledged")
    if longest and report["interruption"] > longest:
        found.append(f"the longest interruption took {report['interruption']:.1f} s, more than {longest:g} s")
    if longest_untouched and report["untouched"] is not None and report["untouched"] > longest_untouched:
        found.append(
            f"the longest interruption of clients that nothing had happened to took {report['untouched']:.1f} s, "
            f"more than {longest_untouched:g} s"
        )
    return found

"""CPU time and memory of a server with all its children, read from /proc (Linux)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One line of /proc/PID/stat.

    cpu_ticks holds user and system time of the process and of the children it has already waited for, so
    that a sum over living processes does not lose the time of those that ended meanwhile.
    """

    pid: int
    state: str
    parent: int
    session: int
    cpu_ticks: int
    started: int


def parse_stat(text: str) -> ProcessInfo:
    """Read one /proc/PID/stat; the command name in it may hold spaces and parentheses.

    Raises:
        ValueError: the line is not one of that file.
    """
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(")")[2].split()
    if len(fields) < 20:
        raise ValueError(f"not a line of /proc/PID/stat: {text[:80]!r}")
    # Field numbers of proc(5), minus the three that are gone and one because lists count from zero.
    return ProcessInfo(
        pid=int(pid),
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_ticks=sum(int(field) for field in fields[11:15]),
        started=int(fields[19]),
    )


def read_process(pid: int) -> ProcessInfo | None:
    """The process with this id, or None when there is none."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def all_processes() -> list[ProcessInfo]:
    """Every process of the machine."""
    numbers = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]
    return [info for number in numbers if (info := read_process(number)) is not None]


def tree(root: int, processes: list[ProcessInfo] | None = None) -> list[ProcessInfo]:
    """The process `root` with its descendants, and what was started in its session and lost its parent."""
    everything = all_processes() if processes is None else processes
    members = {root}
    grown = True
    while grown:
        more = {p.pid for p in everything if p.parent in members or p.session == root} - members
        members |= more
        grown = bool(more)
    return [process for process in everything if process.pid in members]


def cpu_seconds(processes: list[ProcessInfo]) -> float:
    """User and system time that these processes used since they were started."""
    return sum(process.cpu_ticks for process in processes) / _TICKS_PER_SECOND


def pss_kib(processes: list[ProcessInfo]) -> int:
    """Proportional set size: memory of its own, and its share of what it shares with others.

    Raises:
        PermissionError: a process belongs to another user and we are not root.
    """
    total = 0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total

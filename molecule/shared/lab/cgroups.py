"""Control groups: each host lives in one, and ending the group ends the host, whatever it has started."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from lab import locations
from lab.commands import LabError, run, succeeds

UNIFIED = Path("/sys/fs/cgroup")
# Where the hierarchy is mounted for the time of a lab on a machine that mounts version 1 only.
_OWN_MOUNT = Path("/run") / locations.APPLICATION / "cgroup"


def mounts(table: str) -> list[Path]:
    """Where cgroup2 is mounted, by /proc/self/mounts."""
    fields = [line.split() for line in table.splitlines()]
    return [Path(words[1]) for words in fields if len(words) > 2 and words[2] == "cgroup2"]


def _mounted() -> list[Path]:
    return mounts(Path("/proc/self/mounts").read_text(encoding="utf-8"))


def is_unified() -> bool:
    """Whether this machine has cgroup2 where systemd expects it, or has to be shown another picture."""
    return UNIFIED in _mounted()


def hierarchy() -> Path:
    """A mount of cgroup2; makes one if there is none."""
    found = _mounted()
    if found:
        return found[0]
    _OWN_MOUNT.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "cgroup2", "none", _OWN_MOUNT)
    return _OWN_MOUNT


def make(cgroup: str) -> None:
    """Make a host's group, with one for its keeper and one for itself."""
    top = hierarchy()
    try:
        for part in ("keeper", "machine"):
            (top / cgroup / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"Cannot make a control group below {top}: {error.strerror}.") from None
    # On a machine with version 2 only, hosts may limit memory and processes; elsewhere version 1 holds the controllers.
    group = top
    for part in ("", *Path(cgroup).parts):
        group /= part
        for controller in (group / "cgroup.controllers").read_text(encoding="ascii").split():
            if controller in {"cpu", "memory", "pids", "io"}:
                _try_write(group / "cgroup.subtree_control", f"+{controller}")


def enter(cgroup: str, top: Path) -> None:
    """Move this process into a group."""
    (top / cgroup / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def is_populated(cgroup: str) -> bool:
    """Whether a process lives in the group or below it."""
    try:
        events = (hierarchy() / cgroup / "cgroup.events").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return "populated 1" in events


def kill(cgroup: str, timeout: float = 20) -> None:
    """End every process in the group and below, without asking, and wait until they are gone."""
    if not (hierarchy() / cgroup).is_dir():
        return
    (hierarchy() / cgroup / "cgroup.kill").write_text("1", encoding="ascii")
    deadline = time.monotonic() + timeout
    while is_populated(cgroup):
        if time.monotonic() > deadline:
            raise LabError(f"Processes of the control group {cgroup} are still there {timeout:.0f} s after their end.")
        time.sleep(0.02)


def remove(cgroup: str) -> None:
    """Remove a group in which nobody lives, with those below it."""
    top = hierarchy() / cgroup
    if top.is_dir():
        groups = [entry for entry in top.rglob("*") if entry.is_dir()]
        for group in sorted([top, *groups], key=lambda entry: len(entry.parts), reverse=True):
            group.rmdir()


def unmount() -> None:
    """Undo what hierarchy() did; called when no lab is left."""
    if _OWN_MOUNT.is_dir():
        succeeds("umount", _OWN_MOUNT)
        _OWN_MOUNT.rmdir()
        _OWN_MOUNT.parent.rmdir()


def _try_write(file: Path, text: str) -> None:
    # What is not delegated to us the hosts do without.
    with suppress(OSError):
        file.write_text(text, encoding="ascii")

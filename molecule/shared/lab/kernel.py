"""Limits of this machine's kernel that are too low for many hosts; they are put back when the last lab is gone."""

from __future__ import annotations

from pathlib import Path

from lab import locations

# Counted for a user over the whole machine, and root of every host is the same user. systemd takes about 15 a host.
_INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
_ENOUGH = 4096


def _remembered() -> Path:
    return locations.labs() / ".max_user_instances"


def raise_limits() -> None:
    """Let as many hosts boot as a lab may have; the caller holds the network's lock."""
    former = _INOTIFY_INSTANCES.read_text(encoding="ascii").strip()
    if int(former) >= _ENOUGH:
        return
    _remembered().write_text(f"{former}\n", encoding="ascii")
    _INOTIFY_INSTANCES.write_text(f"{_ENOUGH}\n", encoding="ascii")


def restore_limits() -> None:
    """Put back what was there before; the caller holds the network's lock."""
    if _remembered().exists():
        _INOTIFY_INSTANCES.write_text(_remembered().read_text(encoding="ascii"), encoding="ascii")
        _remembered().unlink()

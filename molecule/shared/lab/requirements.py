"""What a machine must have for a lab."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from pathlib import Path

from lab import image, locations

_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "chroot": "coreutils",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
_KERNEL = (5, 14)


def kernel_version(release: str) -> tuple[int, int]:
    """The first two numbers of what `uname -r` says."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def problem() -> str | None:
    """The first reason why this machine cannot run a lab, as a sentence; None when it can."""
    if sys.platform != "linux":
        return "The lab needs Linux: its hosts are namespaces of this machine's kernel."
    if os.geteuid() != 0:
        return "The lab needs root, for it makes network namespaces, mounts and control groups: run it by sudo."
    if kernel_version(platform.release()) < _KERNEL:
        return f"The lab needs Linux 5.14 or newer, for it ends hosts by cgroup.kill; this is {platform.release()}."
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        return f"Programs are missing: apt install {' '.join(missing)}."
    if not image.KEYRING.exists():
        return "Debian's keys are missing: apt install debian-archive-keyring."
    file_systems = Path("/proc/filesystems").read_text(encoding="ascii").split()
    for needed in ("overlay", "cgroup2"):
        if needed not in file_systems and shutil.which("modprobe") is None:
            return f"The kernel has no {needed}; load the module, or use another kernel."
    return _file_system_problem()


def _file_system_problem() -> str | None:
    """Overlayfs writes its own attributes to the upper layer, which not every file system takes."""
    directory = locations.labs().parent
    directory.mkdir(parents=True, exist_ok=True)
    try:
        probe = directory / f".{locations.APPLICATION}-probe"
        probe.touch()
        try:
            os.setxattr(probe, "trusted.overlay.probe", b"y")
        finally:
            probe.unlink()
    except OSError:
        return (
            f"{directory} is on a file system that overlayfs cannot write to (or this container may not):"
            " set XDG_STATE_HOME to a directory on a disk or a tmpfs."
        )
    return None

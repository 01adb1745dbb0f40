"""The process that keeps one host running: it starts systemd-nspawn, and again when the host reboots.

It runs in a mount namespace of its own, which holds the host's file system: when the last process of the host ends, by
whatever means, nothing is left mounted. Started as `unshare --mount python -m lab.keeper LAB HOST`, not by people.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cgroups, state
from lab.commands import run

if TYPE_CHECKING:
    from lab.state import Host, Lab

# systemd-nspawn's exit status after `systemctl reboot` inside.
_REBOOT = 133


def overlay_options(lower: Path, directory: Path) -> str:
    """Mount options of the host's file system: the image below, what the host writes above."""
    return f"lowerdir={lower},upperdir={directory / 'upper'},workdir={directory / 'work'}"


def command(lab: Lab, host: Host) -> list[str]:
    """The command that boots the host."""
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={lab.host_directory(host) / 'root'}",
        f"--machine={lab.machine(host)}",
        f"--hostname={host.name}",
        f"--network-namespace-path=/run/netns/{lab.namespace(host)}",
        "--capability=CAP_NET_ADMIN",
        # This machine's systemd, if it has one, is told nothing: the host belongs to the lab alone.
        "--keep-unit",
        "--register=no",
        "--settings=no",
        "--link-journal=no",
        "--timezone=off",
        "--resolv-conf=off",
    ]


def keep(lab: Lab, host: Host) -> int:
    """Run the host until it is powered off; returns systemd-nspawn's last exit status."""
    private = not cgroups.is_unified()
    if private:
        # nspawn refuses to boot where version 1 is mounted, so in here, and only in here, version 2 is.
        run("umount", "--recursive", cgroups.UNIFIED)
        run("mount", "-t", "cgroup2", "none", cgroups.UNIFIED)
    cgroups.enter(f"{lab.cgroup(host)}/keeper", cgroups.UNIFIED)
    if lab.ending.exists() or not lab.directory.exists():
        return 0  # The lab is being taken away, and may have been searched before this process was part of it.
    directory = lab.host_directory(host)
    run("mount", "-t", "overlay", "overlay", "-o", overlay_options(Path(lab.image), directory), directory / "root")
    environment = dict(os.environ, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1", SYSTEMD_NSPAWN_LOCK="0")
    into_group = partial(cgroups.enter, f"{lab.cgroup(host)}/machine", cgroups.UNIFIED)
    while True:
        done = subprocess.run(command(lab, host), env=environment, preexec_fn=into_group, check=False)
        print(f"-- {host.name} has ended with status {done.returncode}", flush=True)
        if done.returncode != _REBOOT:
            return done.returncode


def main() -> int:
    """Keep the host that the arguments name."""
    lab = state.require(sys.argv[1])
    return keep(lab, lab.host(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(main())

"""Hosts: what is written onto one before it boots, its start, its end, and its faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab import access, cgroups, network
from lab.commands import LabError, run

if TYPE_CHECKING:
    from lab.state import Host, Lab

_BOOT_TIME = 60.0


def prepare(lab: Lab, host: Host) -> None:
    """Write what makes this host differ from the image into the layer above it."""
    directory = lab.host_directory(host)
    for name in ("work", "root"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    upper = directory / "upper"
    # A directory of the upper layer brings its own mode and hides that of the image's.
    for path, mode in {"": 0o755, "etc": 0o755, "etc/ssh": 0o755, "root": 0o700, "root/.ssh": 0o700}.items():
        (upper / path).mkdir(parents=True, exist_ok=True)
        (upper / path).chmod(mode)
    _write(upper / "etc/hostname", f"{host.name}\n")
    _write(upper / "etc/hosts", _hosts_file(lab))
    _write(upper / "etc/resolv.conf", _resolver())
    _write(upper / "root/.ssh/authorized_keys", access.public_key(lab), mode=0o600)
    key = upper / "etc/ssh/ssh_host_ed25519_key"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{host.name}", "-f", key)


def start(lab: Lab, host: Host) -> None:
    """Boot the host; returns at once."""
    cgroups.make(lab.cgroup(host))
    package = Path(__file__).resolve().parent.parent
    environment = dict(os.environ, PYTHONPATH=str(package))
    with (lab.host_directory(host) / "console.log").open("ab") as console:
        subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation=slave"),
                *(sys.executable, "-m", "lab.keeper", lab.name, host.name),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


def wait(lab: Lab, host: Host, timeout: float = _BOOT_TIME) -> None:
    """Wait until the host lets us in and has finished booting.

    Raises:
        LabError: It does not within the time, or a unit has failed.
    """
    deadline = time.monotonic() + timeout
    while True:
        done = access.ssh(lab, host, "systemctl is-system-running --wait", timeout=deadline - time.monotonic())
        if done.stdout.strip() == "running":
            return
        if done.stdout.strip() == "degraded":
            failed = access.ssh(lab, host, "systemctl --failed --plain --no-legend", timeout=10).stdout
            raise LabError(f"{host.name} has booted, but units have failed:\n{failed.rstrip()}")
        if time.monotonic() > deadline:
            raise LabError(f"{host.name} is not up after {timeout:.0f} s. Its console says:\n{console_tail(lab, host)}")
        time.sleep(0.2)


def is_running(lab: Lab, host: Host) -> bool:
    """Whether anything of the host lives."""
    return cgroups.is_populated(lab.cgroup(host))


def power_off(lab: Lab, host: Host) -> None:
    """Take the host's power away: every process ends at once, what was not written to disk is lost."""
    cgroups.kill(lab.cgroup(host))
    # Linux counts how often a group was killed, and ends what is born into another group of another count by a parent in
    # this one: the next boot needs new groups.
    cgroups.remove(lab.cgroup(host))


def power_on(lab: Lab, host: Host) -> None:
    """Boot a host that is off, and wait until it is up."""
    if is_running(lab, host):
        raise LabError(f"{host.name} is on already.")
    start(lab, host)
    wait(lab, host)


def console_tail(lab: Lab, host: Host, lines: int = 20) -> str:
    """The last lines of the host's console."""
    console = lab.host_directory(host) / "console.log"
    if not console.exists():
        return "(nothing)"
    return "\n".join(console.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def remove_traces(lab: Lab) -> None:
    """Remove what systemd-nspawn keeps about the lab's hosts, and leaves behind when it is killed."""
    for entry in Path("/run/systemd/nspawn").glob(f"*/{lab.machine_prefix}*"):
        shutil.rmtree(entry, ignore_errors=True)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _hosts_file(lab: Lab) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for host in lab.hosts:
        lines.append(f"{lab.address(host)} {host.name}")
        if network.has_ipv6():
            lines.append(f"{lab.address6(host)} {host.name}")
    return "\n".join(lines) + "\n"


def _resolver() -> str:
    uplink = Path("/run/systemd/resolve/resolv.conf")
    etc = Path("/etc/resolv.conf")
    return network.resolver(
        etc.read_text(encoding="utf-8") if etc.exists() else "",
        uplink.read_text(encoding="utf-8") if uplink.exists() else None,
    )

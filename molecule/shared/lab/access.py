"""Ways into the hosts: the lab's SSH key, the client's configuration, and Ansible's inventory."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from lab import network
from lab.commands import run, succeeds

if TYPE_CHECKING:
    from pathlib import Path

    from lab.state import Host, Lab


def key(lab: Lab) -> Path:
    """The private key that opens all hosts of the lab, and nothing else."""
    return lab.directory / "key"


def known_hosts(lab: Lab) -> Path:
    """The hosts' own public keys."""
    return lab.directory / "known_hosts"


def config(lab: Lab) -> Path:
    """A configuration for ssh that knows the hosts by name."""
    return lab.directory / "ssh_config"


def connections(lab: Lab) -> Path:
    """Where ssh keeps connections open for whoever comes next: Ansible, tests, people."""
    return lab.directory / "ssh"


def make_key(lab: Lab) -> None:
    """Make the lab's key."""
    if not key(lab).exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", key(lab))


def public_key(lab: Lab) -> str:
    """What goes into authorized_keys."""
    return key(lab).with_suffix(".pub").read_text(encoding="ascii")


def write(lab: Lab) -> None:
    """Write known_hosts and ssh_config; the hosts' keys have to be there."""
    known, blocks = [], []
    for host in lab.hosts:
        public = lab.host_directory(host) / "upper/etc/ssh/ssh_host_ed25519_key.pub"
        algorithm, value = public.read_text(encoding="ascii").split()[:2]
        names = ",".join(addresses(lab, host))
        known.append(f"{host.name},{names} {algorithm} {value}\n")
        blocks.append(f"Host {host.name} {names.replace(',', ' ')}\n")
        blocks.append(f"  HostName {lab.address(host)}\n  HostKeyAlias {host.name}\n")
    options = ["User=root", f"IdentityFile={key(lab)}", "ConnectTimeout=5", "LogLevel=ERROR", *_options(lab)]
    blocks.append("Host *\n" + "".join(f"  {option.replace('=', ' ', 1)}\n" for option in options))
    known_hosts(lab).write_text("".join(known), encoding="ascii")
    config(lab).write_text("".join(blocks), encoding="utf-8")
    connections(lab).mkdir(mode=0o700, exist_ok=True)


def addresses(lab: Lab, host: Host) -> list[str]:
    """The host's addresses, IPv4 first."""
    return [lab.address(host), lab.address6(host)] if network.has_ipv6() else [lab.address(host)]


def inventory(lab: Lab) -> str:
    """An inventory in which the hosts differ from real ones by nothing but the way in. JSON is YAML."""
    hosts = {}
    for host in lab.hosts:
        variables: dict[str, object] = {
            "ansible_host": lab.address(host),
            "ansible_port": 22,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key(lab)),
            "ansible_ssh_common_args": " ".join(f"-o {option}" for option in _options(lab)),
            "lab_addresses": addresses(lab, host),
        }
        hosts[host.name] = variables
    return json.dumps({"all": {"hosts": hosts}}, indent=2) + "\n"


def _options(lab: Lab) -> list[str]:
    # The name of a socket is short: a path of more than about 90 characters is too long for ssh.
    return [
        f"UserKnownHostsFile={known_hosts(lab)}",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "ControlMaster=auto",
        "ControlPersist=60s",
        f"ControlPath={connections(lab)}/%h",
    ]


def ssh_command(lab: Lab, host: Host) -> list[str]:
    """The command that logs in to the host, or runs what is appended to it there."""
    return ["ssh", "-F", str(config(lab)), host.name]


def ssh(lab: Lab, host: Host, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command on the host; what it prints is empty when the host cannot be reached."""
    words = [*ssh_command(lab, host), command]
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=max(timeout, 1)
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 255, "", "no answer in time")


def close(lab: Lab) -> None:
    """End the connections that are still open."""
    if connections(lab).is_dir():
        for socket in connections(lab).iterdir():
            succeeds("ssh", "-o", f"ControlPath={socket}", "-O", "exit", "lab")

"""The lab's network: a bridge, a namespace and a cable for each host, and the way out by masquerading."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lab import locations
from lab.commands import LabError, run, succeeds
from lab.state import load_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.state import Host, Lab

_RANGE = ipaddress.IPv4Network("172.16.0.0/12")
# The least preferred route of all: it takes what the bridge's own route does not, before and after the bridge is there.
_LAST = "4294967295"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def choose(name: str, used: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """A free /24 for the lab of that name: the same one again, as long as it is free."""
    taken = list(used)
    candidates = list(_RANGE.subnets(new_prefix=24))
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    for step in range(len(candidates)):
        candidate = candidates[(first + step) % len(candidates)]
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise LabError(f"All of {_RANGE} is in use on this machine: say by LAB_NETWORK which /24 the lab may have.")


def used_networks(routes: str) -> list[ipaddress.IPv4Network]:
    """The networks for which `ip -json route show table all` lists routes. The default route is not one."""
    found = []
    for route in json.loads(routes or "[]"):
        destination = str(route.get("dst", "default"))
        if destination != "default":
            found.append(ipaddress.IPv4Network(destination, strict=False))
    return found


def reserve(name: str) -> str:
    """Choose a network; the caller holds the network's lock until its route is there."""
    used = used_networks(run("ip", "-4", "-json", "route", "show", "table", "all"))
    used += [lab.subnet for lab in load_all() if lab.network]
    chosen = os.environ.get("LAB_NETWORK")
    if not chosen:
        return str(choose(name, used))
    try:
        network = ipaddress.IPv4Network(chosen)
    except ValueError:
        raise LabError(f"LAB_NETWORK is {chosen!r}: it has to be an IPv4 network such as 172.20.1.0/24.") from None
    if network.prefixlen != 24 or any(network.overlaps(other) for other in used):
        raise LabError(f"LAB_NETWORK is {chosen}: it has to be a /24 that this machine does not use yet.")
    return str(network)


def has_ipv6() -> bool:
    """Whether this machine does IPv6 at all."""
    disabled = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    return disabled.exists() and disabled.read_text(encoding="ascii").strip() == "0"


def make(lab: Lab) -> None:
    """Make the bridge, the blackhole and the way out; the caller holds the network's lock."""
    # First of all, so that no packet for a host that is not there (yet, or any more) ever leaves this machine.
    run("ip", "route", "add", "blackhole", lab.network, "metric", _LAST)
    run("ip", "link", "add", lab.bridge, "type", "bridge")
    run("ip", "address", "add", f"{lab.subnet[1]}/24", "dev", lab.bridge)
    if has_ipv6():
        run("ip", "-6", "address", "add", f"{lab.subnet6[1]}/64", "dev", lab.bridge, "nodad")
    run("ip", "link", "set", lab.bridge, "up")
    _enable_forwarding()
    rules = f"""
        table ip {lab.table} {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ip saddr {lab.network} oifname != "{lab.bridge}" masquerade
            }}
        }}
    """
    run("nft", "-f", "-", text=rules)


def connect(lab: Lab, host: Host) -> None:
    """Make a host's network namespace and its cable to the bridge.

    The namespace is made here, outside of the host's mount namespace, or nobody but the host could enter it.
    """
    namespace, outer = lab.namespace(host), lab.interface(host)
    run("ip", "netns", "add", namespace)
    run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    run("ip", "link", "set", outer, "master", lab.bridge, "up")
    inside = ("ip", "-netns", namespace)
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "address", "add", f"{lab.address(host)}/24", "dev", "eth0")
    if has_ipv6():
        run(*inside, "-6", "address", "add", f"{lab.address6(host)}/64", "dev", "eth0", "nodad")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "route", "add", "default", "via", str(lab.subnet[1]))


def set_link(lab: Lab, host: Host, *, up: bool) -> None:
    """Pull a host's cable, or plug it in again."""
    run("ip", "link", "set", lab.interface(host), "up" if up else "down")


def split(lab: Lab, sides: Sequence[Sequence[Host]]) -> None:
    """Let no frame pass from one side to another, in silence; a split that is there already is replaced.

    Args:
        lab: The lab.
        sides: Hosts that still reach each other. A host of no side reaches everybody.
    """
    names = [", ".join(f'"{lab.interface(host)}"' for host in side) for side in sides]
    drops = "\n".join(
        f"iifname {{ {one} }} oifname {{ {other} }} drop" for one in names for other in names if one != other
    )
    rules = f"""
        table bridge {lab.table}
        delete table bridge {lab.table}
        table bridge {lab.table} {{
            chain forward {{
                type filter hook forward priority filter;
                {drops}
            }}
        }}
    """
    run("nft", "-f", "-", text=rules)


def heal(lab: Lab) -> None:
    """End the split."""
    succeeds("nft", "delete", "table", "bridge", lab.table)


def remove(lab: Lab) -> None:
    """Take the network away, as much of it as there is; found by name, whatever is written down."""
    for line in run("ip", "netns", "list").splitlines():
        namespace = line.split()[0]
        if namespace.startswith(f"{lab.table}."):
            run("ip", "netns", "delete", namespace)
    for link in json.loads(run("ip", "-json", "link", "show") or "[]"):
        name = str(link["ifname"])
        if name == lab.bridge or name.startswith(f"{lab.bridge}-"):
            # The other end may have taken it along just now.
            succeeds("ip", "link", "delete", name)
    succeeds("nft", "delete", "table", "ip", lab.table)
    heal(lab)


def release(lab: Lab) -> None:
    """Give the addresses back, as the very last step, and forwarding too if no other lab is left."""
    if lab.network:
        succeeds("ip", "route", "delete", "blackhole", lab.network, "metric", _LAST)
    if all(other.name == lab.name for other in load_all()):
        _restore_forwarding()


def _remembered() -> Path:
    return locations.labs() / ".ip_forward"


def _enable_forwarding() -> None:
    if _FORWARDING.read_text(encoding="ascii").strip() == "1":
        return
    _remembered().write_text("0\n", encoding="ascii")
    _FORWARDING.write_text("1\n", encoding="ascii")


def _restore_forwarding() -> None:
    if _remembered().exists():
        _FORWARDING.write_text(_remembered().read_text(encoding="ascii"), encoding="ascii")
        _remembered().unlink()


def resolver(etc: str, uplink: str | None) -> str:
    """The resolv.conf for the hosts: this machine's, but never a resolver that listens on its loopback only.

    Args:
        etc: What /etc/resolv.conf holds.
        uplink: What systemd-resolved writes down about the servers that it asks itself, if it runs.
    """
    servers = [line.split()[1] for line in etc.splitlines() if line.startswith("nameserver") and len(line.split()) > 1]
    if uplink is not None and servers and all(server.startswith("127.") or server == "::1" for server in servers):
        return uplink
    return etc

"""Filters about lists of IPv4 and IPv6 networks."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an address nor a network such as 192.0.2.0/24.") from error


def firewall_networks(networks: Iterable[str], version: int) -> list[str]:
    """Give the networks of one version of IP, in a fixed order, those that others contain left out.

    nftables refuses a set in which one network contains another.
    """
    wanted = [network for network in map(_network, networks) if network.version == version]
    return [str(network) for network in ipaddress.collapse_addresses(wanted)]  # type: ignore[type-var]


def firewall_covers(networks: Iterable[str], address: str) -> bool:
    """Tell whether one of the networks contains the address; an IPv4 address may be written as a mapped one."""
    wanted = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(wanted, ipaddress.IPv6Address) and wanted.ipv4_mapped is not None:
        wanted = wanted.ipv4_mapped
    return any(wanted in network for network in map(_network, networks))


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Give the filters by their names in templates."""
        return {"firewall_covers": firewall_covers, "firewall_networks": firewall_networks}

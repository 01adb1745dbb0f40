"""Filters for the members of a cluster and for the configuration that they share."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def dbcl_network(text: str) -> str:
    """An address or a network in CIDR notation, as pg_hba.conf wants it."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an address nor a network such as 192.0.2.0/24.") from error


def dbcl_url(address: str, port: int, scheme: str = "https") -> str:
    """The URL of a port at an address; IPv6 addresses get their brackets."""
    return f"{scheme}://{dbcl_endpoint(address, port)}"


def dbcl_endpoint(address: str, port: int) -> str:
    """Address and port; IPv6 addresses get their brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def dbcl_rules(databases: Iterable[Mapping[str, str]], networks: Iterable[str]) -> list[str]:
    """The rules of pg_hba.conf that let the owners of databases in: by TLS, from these networks, with a password."""
    wanted = list(networks)
    return [
        f"hostssl {each['name']} {each['owner']} {network} scram-sha-256" for each in databases for network in wanted
    ]


def dbcl_epoch(text: str) -> int:
    """The seconds since 1970 of a time with its offset from UTC, such as 2026-03-01 14:05:00+01:00."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} does not say its offset from UTC.")
    return int(moment.timestamp())


def dbcl_newest(answers: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of what the members say of the cluster, what the one says that knows the latest leader."""

    def timeline(answer: Mapping[str, Any]) -> int:
        leaders = [member for member in answer["members"] if member["role"] == "leader"]
        return max((int(leader.get("timeline") or 0) for leader in leaders), default=-1)

    return max(answers, key=timeline, default={"members": []})


def dbcl_patch(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be sent to Patroni to turn the current configuration into the wanted one.

    Keys that nobody wants stay, except parameters of PostgreSQL, which are managed as a whole: `None` removes them.
    Nothing has to be sent when the result is empty.
    """
    patch = _difference(current, wanted)
    present = (current.get("postgresql") or {}).get("parameters") or {}
    stale = set(present) - set(wanted["postgresql"]["parameters"])
    if stale:
        parameters = patch.setdefault("postgresql", {}).setdefault("parameters", {})
        parameters.update(dict.fromkeys(sorted(stale)))
    return patch


def _difference(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for name, value in wanted.items():
        present = current.get(name)
        if isinstance(value, Mapping):
            below = _difference(present if isinstance(present, Mapping) else {}, value)
            if below:
                patch[name] = below
        elif present != value or isinstance(present, bool) != isinstance(value, bool):  # 1 is not true
            patch[name] = value
    return patch


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Give the filters by their names in templates."""
        return {
            "dbcl_epoch": dbcl_epoch,
            "dbcl_endpoint": dbcl_endpoint,
            "dbcl_newest": dbcl_newest,
            "dbcl_network": dbcl_network,
            "dbcl_patch": dbcl_patch,
            "dbcl_rules": dbcl_rules,
            "dbcl_url": dbcl_url,
        }

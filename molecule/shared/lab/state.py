"""What a lab consists of, written down before anything is made, so that all of it can be taken away again."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from lab import locations
from lab.commands import LabError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_HOST_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


def checked_name(name: str) -> str:
    """The name of a lab, refused when it is not one."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} is no name for a lab: a letter, then letters, digits and -, 31 at most (LAB_NAME).")
    return name


def checked_host_names(names: list[str]) -> list[str]:
    """The names of a lab's hosts, refused when one is none or comes twice."""
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise LabError(f"{name!r} is no host name: a letter, then letters, digits and -, 63 at most.")
    if len(set(names)) != len(names):
        raise LabError("A host is named twice.")
    if not 1 <= len(names) <= 200:
        raise LabError("A lab has 1 to 200 hosts.")
    return names


@dataclass(frozen=True)
class Host:
    """A host: its name and its number, from which its addresses follow."""

    name: str
    number: int


@dataclass(frozen=True)
class Lab:
    """A lab. Everything but the IPv4 network follows from its name."""

    name: str
    network: str = ""
    image: str = ""
    hosts: tuple[Host, ...] = field(default=())

    @property
    def directory(self) -> Path:
        """Where the lab's files are."""
        return locations.labs() / self.name

    @property
    def ending(self) -> Path:
        """The mark of a lab that is being taken away."""
        return self.directory / "ending"

    @property
    def digest(self) -> str:
        """Stands for the name where little room is: an interface's name has 15 characters."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:6]

    @property
    def bridge(self) -> str:
        """The bridge that joins the hosts."""
        return f"mt-{self.digest}"

    @property
    def table(self) -> str:
        """The nftables table, and the cgroup above those of the hosts."""
        return f"monktalk-lab.{self.name}"

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The hosts' network."""
        return ipaddress.IPv4Network(self.network)

    @property
    def subnet6(self) -> ipaddress.IPv6Network:
        """The hosts' IPv6 network, a unique local one that follows from the lab's name."""
        digits = hashlib.sha256(self.name.encode()).hexdigest()
        return ipaddress.IPv6Network(f"fd{digits[:2]}:{digits[2:6]}:{digits[6:10]}::/64")

    def interface(self, host: Host) -> str:
        """The outer end of the host's cable."""
        return f"{self.bridge}-{host.number}"

    def namespace(self, host: Host) -> str:
        """The host's network namespace, as `ip netns` names it."""
        return f"{self.table}.{host.name}"

    @property
    def machine_prefix(self) -> str:
        """What the names of the lab's hosts among all containers of this machine begin with."""
        return f"lab-{self.digest}-"

    def machine(self, host: Host) -> str:
        """The host's name among all containers of this machine."""
        return f"{self.machine_prefix}{host.number}"

    def cgroup(self, host: Host) -> str:
        """The host's cgroup, from the root of the hierarchy."""
        return f"{self.table}/{host.name}"

    def host_directory(self, host: Host) -> Path:
        """The host's files: what it has written, and what its console shows."""
        return self.directory / "hosts" / host.name

    def address(self, host: Host) -> str:
        """The host's IPv4 address."""
        return str(self.subnet[host.number])

    def address6(self, host: Host) -> str:
        """The host's IPv6 address."""
        return str(self.subnet6[host.number])

    def host(self, name: str) -> Host:
        """The host of that name."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts) or "none"
        raise LabError(f"The lab {self.name} has no host {name}; it has: {known}.")

    def save(self) -> None:
        """Write it down, whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.directory / "state.json.new"
        new.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        new.rename(self.directory / "state.json")


def current_name() -> str:
    """The name that LAB_NAME gives."""
    return checked_name(os.environ.get("LAB_NAME") or "single")


def load(name: str) -> Lab | None:
    """The lab of that name, as far as it is written down; None when there is none."""
    try:
        text = (locations.labs() / name / "state.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    table = json.loads(text)
    hosts = tuple(Host(str(host["name"]), int(host["number"])) for host in table["hosts"])
    return Lab(name=name, network=str(table["network"]), image=str(table["image"]), hosts=hosts)


def require(name: str) -> Lab:
    """The lab of that name, which must be there."""
    lab = load(name)
    if lab is None:
        raise LabError(f"There is no lab {name}; `python -m lab up HOST` makes one, LAB_NAME chooses another.")
    return lab


def load_all() -> list[Lab]:
    """All labs that are written down."""
    if not locations.labs().is_dir():
        return []
    found = [load(entry.name) for entry in sorted(locations.labs().iterdir()) if _NAME.fullmatch(entry.name)]
    return [lab for lab in found if lab]

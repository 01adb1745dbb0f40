"""What may break: each fault begins, is healed where somebody has to, and says which nodes it touches."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from checks.playbooks import PROJECT, Playbooks
from faults.installation import BUS, SERVER, ask
from lab import hosts, network

if TYPE_CHECKING:
    from checks.node import Node
    from faults.installation import Installation

ROLLING_UPDATE = "playbooks/rolling_update.yml"


class Fault:
    """A fault. Subclasses say what it is; a new object is made for each time.

    Attributes:
        name: what it is called on the command line and in the table.
        seconds: how long it lasts, before it is healed.
        longest: the longest interruption that any client may have, in seconds.
        longest_untouched: the longest one of clients on nodes that it does not touch.
        node: the node that it happens to, where it happens to one.
    """

    name: ClassVar[str]
    seconds: ClassVar[float] = 10
    longest: ClassVar[float] = 60
    longest_untouched: ClassVar[float] = 2

    def __init__(self, installation: Installation, number: int) -> None:
        """Choose what it happens to.

        Args:
            installation: the cluster.
            number: the how-many-eth run it is, for what takes turns.
        """
        self.installation = installation
        # One that came back has no clients yet, and nobody would notice what happens to it.
        self.node = installation.busiest()

    def touched(self) -> list[Node] | None:
        """The nodes whose clients it happens to; None for all of them."""
        return [self.node]

    def begin(self) -> None:
        """Break something."""

    def heal(self) -> None:
        """Take the cause away, where it does not go by itself. What follows from that, nobody helps with."""


class Nothing(Fault):
    """Nothing at all: what the figures are when all is well."""

    name = "nothing"
    longest = 2

    def touched(self) -> list[Node] | None:
        """No node."""
        return []


class WorkerKilled(Fault):
    """One worker of a node is killed; the others live."""

    name = "worker-killed"

    def begin(self) -> None:
        """Kill the youngest process of the unit: the oldest one is the parent of the workers, if there are several."""
        self.node.ok(f"kill -KILL {max(self.node.processes(SERVER))}")


class NodeKilled(Fault):
    """Every process of a node's unit is killed at once."""

    name = "node-killed"

    def begin(self) -> None:
        """Kill its control group."""
        group = self.node.property(SERVER, "ControlGroup")
        self.node.ok(f"echo 1 > /sys/fs/cgroup{group}/cgroup.kill")


class NodePowerOff(Fault):
    """A node loses its power, and gets it back."""

    name = "node-power-off"
    seconds = 20

    def begin(self) -> None:
        """Take it away."""
        _power(self.installation, self.node, on=False)

    def heal(self) -> None:
        """Give it back, and wait for the boot."""
        _power(self.installation, self.node, on=True)


class NodeCut(Fault):
    """A node is cut off the network, and connected again."""

    name = "node-cut"
    seconds = 20

    def begin(self) -> None:
        """Pull the cable."""
        lab = self.installation.lab
        network.set_link(lab, lab.host(self.node.name), up=False)

    def heal(self) -> None:
        """Plug it in."""
        lab = self.installation.lab
        network.set_link(lab, lab.host(self.node.name), up=True)


class NodesSplit(Fault):
    """One node does not reach the two others, nor they it; all of them reach clients and the database."""

    name = "nodes-split"
    seconds = 20

    def begin(self) -> None:
        """Drop what goes from one side to the other."""
        lab = self.installation.lab
        others = [lab.host(node.name) for node in self.installation.nodes if node is not self.node]
        network.split(lab, [[lab.host(self.node.name)], others])

    def heal(self) -> None:
        """Drop nothing any more."""
        network.heal(self.installation.lab)


class _Database(Fault):
    """The leader of the SQL cluster fails: nobody's stream breaks, but acknowledgements wait for the next leader."""

    seconds = 30
    longest = 30

    def __init__(self, installation: Installation, number: int) -> None:
        super().__init__(installation, number)
        self.leader = installation.leader()

    def touched(self) -> list[Node] | None:
        """Every node writes to the database."""
        return None


class DatabasePowerOff(_Database):
    """The leader of the SQL cluster loses its power, and gets it back."""

    name = "database-power-off"

    def begin(self) -> None:
        """Take it away."""
        _power(self.installation, self.leader, on=False)

    def heal(self) -> None:
        """Give it back, and wait for the boot."""
        _power(self.installation, self.leader, on=True)


class DatabaseKilled(_Database):
    """The leader's database and what watches over it are killed."""

    name = "database-killed"

    def begin(self) -> None:
        """Kill Patroni and PostgreSQL."""
        self.leader.ok("systemctl kill --signal=KILL --kill-whom=all patroni.service")


class BusRestarted(Fault):
    """NATS is restarted on all nodes at once."""

    name = "bus-restarted"
    longest = 30

    def touched(self) -> list[Node] | None:
        """All nodes."""
        return None

    def begin(self) -> None:
        """Restart it, without waiting for one before the next."""
        for node in self.installation.nodes:
            node.ok(f"systemctl restart --no-block {BUS}")


class ProxyPowerOff(Fault):
    """A join proxy loses its power, and gets it back: its clients come by the other one."""

    name = "proxy-power-off"
    seconds = 15

    def __init__(self, installation: Installation, number: int) -> None:
        super().__init__(installation, number)
        self.proxy = installation.proxies[number % len(installation.proxies)]

    def touched(self) -> list[Node] | None:
        """Clients of every node."""
        return None

    def begin(self) -> None:
        """Take it away."""
        _power(self.installation, self.proxy, on=False)

    def heal(self) -> None:
        """Give it back, and wait for the boot."""
        _power(self.installation, self.proxy, on=True)


class RollingUpdate(Fault):
    """The nodes are updated one after the other, by the playbook that operators run."""

    name = "rolling-update"
    seconds = 0

    def touched(self) -> list[Node] | None:
        """Each node in its turn."""
        return None

    def begin(self) -> None:
        """Run the playbook."""
        limit = ",".join(node.name for node in self.installation.nodes)
        Playbooks(self.installation.sources, limit).run(str(PROJECT / ROLLING_UPDATE))


def _power(installation: Installation, host: Node, *, on: bool) -> None:
    lab = installation.lab
    if on:
        hosts.power_on(lab, lab.host(host.name))
    else:
        hosts.power_off(lab, lab.host(host.name))
        # The connection that ssh keeps is to a host that is no more.
        ask(host, "true", seconds=10)


ALL: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        Nothing,
        WorkerKilled,
        NodeKilled,
        NodePowerOff,
        NodeCut,
        NodesSplit,
        DatabaseKilled,
        DatabasePowerOff,
        BusRestarted,
        ProxyPowerOff,
        RollingUpdate,
    )
}
"""Every fault by its name, in the order in which they happen."""

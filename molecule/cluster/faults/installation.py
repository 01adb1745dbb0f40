"""The cluster of the lab: its hosts, who is connected where, and whether it is whole."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from checks.node import Node, Result
from lab import state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from load.accounts import Account

SERVER = "mongooseim.service"
BUS = "mongooseim-bus.service"
_UNREACHABLE = 255


class NotWholeError(Exception):
    """The cluster has not become whole by itself; says what is missing."""


class Installation:
    """The hosts of the lab by what they do, from the inventory that operators use.

    Attributes:
        lab: the lab that the hosts are in.
        nodes: XMPP nodes.
        databases: members of the SQL cluster.
        proxies: join proxies.
        domain: the domain of the accounts.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        """Read the inventory.

        Args:
            sources: the inventory of the lab, and that of the operators.
        """
        self.lab = state.require(state.current_name())
        self.sources = list(sources)
        inventory = _inventory(sources)
        variables = inventory["_meta"]["hostvars"]

        def members(group: str) -> list[Node]:
            names = set(inventory.get(group, {}).get("hosts", []))
            return [Node(host.name, variables[host.name]) for host in self.lab.hosts if host.name in names]

        self.nodes = members("xmpp_nodes")
        self.databases = members("database_servers")
        self.proxies = members("join_proxies")
        of_node = variables[self.nodes[0].name]
        self.domain = str(of_node["public_name"]).replace("{{ base_domain }}", str(of_node["base_domain"]))
        self._database = str(of_node["database_name"])

    # ------------------------------------------------------------------------------------------- what is where

    def leader(self) -> Node:
        """The member of the SQL cluster that accepts writes now."""
        for member in self.databases:
            result = ask(member, "/usr/local/sbin/dbcl leader")
            if result.status == 0:
                name = result.stdout.strip()
                return next(each for each in self.databases if each.name == name)
        raise AssertionError("no member of the SQL cluster can tell which one is the leader")

    def users_of(self, node: Node) -> set[str]:
        """The users whose sessions are on a node."""
        result = ask(node, "mongooseimctl --json connected_users_info")
        assert result.status == 0, f"{node.name}: {result.output}"
        rows = json.loads(result.stdout)
        return {str(row["jid"]).partition("@")[0] for row in rows if node.name in str(row["node"])}

    def busiest(self) -> Node:
        """The node that most sessions are on."""
        return max(self.nodes, key=lambda node: len(self.users_of(node)))

    def sessions(self) -> set[str]:
        """The full addresses of all sessions, as the nodes tell it."""
        return set().union(*(ask(node, "mongooseimctl connected_users").lines for node in self.nodes))

    def authority(self) -> str:
        """The certificate that clients have to trust."""
        return self.nodes[0].read("/etc/mongooseim/ca.cer")

    def insert(self, accounts: Iterable[Account], prefix: str = "load") -> None:
        """Make accounts by the plain insert that operators have always used; those of earlier runs go.

        Args:
            accounts: the accounts.
            prefix: what the names of all of them, and of nobody else, begin with.
        """
        values = ",\n".join(f"('{each.user}', '{each.password}', '{each.domain}')" for each in accounts)
        statement = f"""
            delete from web_users where node like '{prefix}-%' and domain = '{self.domain}';
            insert into web_users (node, token, domain) values {values};
        """  # noqa: S608 - as operators do
        self.leader().ok(f"cd / && runuser -u postgres -- psql -qtAX -v ON_ERROR_STOP=1 {self._database}", statement)

    # ------------------------------------------------------------------------------------------- is it whole

    def problems(self) -> list[str]:
        """What is not as it should be, a sentence each; empty when the cluster is whole and all nodes agree."""
        nodes = [node.name for node in self.nodes]
        questions: list[tuple[Node, str, Callable[[Result], list[str]]]] = [
            *((node, "mongooseimctl --json cluster_status", partial(problems_of_node, nodes)) for node in self.nodes),
            *((member, "/usr/local/sbin/dbcl wait --seconds 1", problems_of_database) for member in self.databases),
            *((proxy, "/usr/local/sbin/joinproxy status --json", problems_of_proxy) for proxy in self.proxies),
        ]

        def answer(question: tuple[Node, str, Callable[[Result], list[str]]]) -> list[str]:
            host, command, judge = question
            return [f"{host.name}: {problem}" for problem in judge(ask(host, command))]

        with ThreadPoolExecutor(len(questions)) as pool:
            return [problem for problems in pool.map(answer, questions) for problem in problems]

    def wait_whole(self, seconds: float) -> None:
        """Wait until the cluster is whole.

        Raises:
            NotWholeError: it is not within the time; says why.
        """
        deadline = time.monotonic() + seconds
        while problems := self.problems():
            if time.monotonic() > deadline:
                raise NotWholeError(f"the cluster is not whole after {seconds:.0f} s: {'; '.join(problems)}")
            time.sleep(1)


def problems_of_node(expected: Sequence[str], result: Result) -> list[str]:
    """What a node's own view of the cluster lacks.

    Args:
        expected: the names of all nodes.
        result: of `mongooseimctl --json cluster_status`.
    """
    if result.status != 0:
        return [_shortened(result)]
    known = {str(member["node"]) for member in json.loads(result.stdout)["members"]}
    found = [f"does not know of {name}" for name in expected if name not in known]
    return found + [f"knows of {name}, which is not there" for name in sorted(known.difference(expected))]


def problems_of_database(result: Result) -> list[str]:
    """What a member of the SQL cluster complains about; `dbcl wait` has been asked."""
    return [] if result.status == 0 else [_shortened(result)]


def problems_of_proxy(result: Result) -> list[str]:
    """The nodes that a proxy leads nobody to; `joinproxy status --json` has been asked."""
    if result.status != 0:
        return [_shortened(result)]
    servers = json.loads(result.stdout)
    found = [f"{each['node']} is {each['state']} for {each['service']}" for each in servers if each["state"] != "UP"]
    return found if servers else ["has no nodes"]


def _shortened(result: Result) -> str:
    return " ".join(result.output.split())[:200] or f"status {result.status}"


def ask(host: Node, command: str, seconds: float = 15) -> Result:
    """Run a command on a host that may be gone: then the status is the one of ssh for that, and the output says so."""
    try:
        return host.run(command, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Result(command, _UNREACHABLE, "", f"no answer within {seconds:.0f} s")


def _inventory(sources: Sequence[str]) -> dict[str, Any]:
    options = [word for source in sources for word in ("--inventory", source)]
    done = subprocess.run(  # noqa: S603 - the inventory of this lab
        ["ansible-inventory", *options, "--list"],  # noqa: S607 - of the same tools as the playbooks
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return dict(json.loads(done.stdout))

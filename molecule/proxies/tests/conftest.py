"""The proxies, the nodes behind them, and clients that come over the network as from anywhere else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from checks.node import Node, inventory
from checks.playbooks import PROJECT, Playbooks
from checks.waiting import until

PROXIES = ["xmpp-joinproxy-preprod01", "xmpp-joinproxy-preprod02"]
NODES = ["xmpp-be-preprod01", "xmpp-be-preprod02"]
ABSENT = "xmpp-be-preprod03"

# First what only looks, then what changes something and puts it back; loss of power comes last.
ORDER = ["layout", "bus", "spreading", "draining", "reload", "nodes", "virtual_address"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def run_directory():
    """What belongs to this run: the log of Ansible, and Molecule's folder with the inventory of the lab."""
    return PROJECT / "var/lab" / os.environ.get("LAB_NAME", "proxies")


@pytest.fixture(scope="session")
def sources(run_directory):
    molecule = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY") or run_directory / "molecule")
    return [str(molecule / "inventory"), str(PROJECT / "inventories/monk")]


@pytest.fixture(scope="session")
def variables(sources):
    with pytest.MonkeyPatch.context() as patch:
        # What is asked here is all variables, secrets too, and would be in the log that is searched for secrets.
        patch.delenv("ANSIBLE_LOG_PATH", raising=False)
        return {name: inventory(sources, name) for name in (*PROXIES, *NODES)}


@pytest.fixture(scope="session")
def proxies(variables):
    return [Node(name, variables[name]) for name in PROXIES]


@pytest.fixture(scope="session")
def nodes(variables):
    return [Node(name, variables[name]) for name in NODES]


@pytest.fixture(scope="session")
def virtual_address(variables):
    return variables[PROXIES[0]]["join_proxy_virtual_address"].split("/")[0]


@pytest.fixture(scope="session")
def playbooks(sources):
    return Playbooks(sources, NODES[0])


@pytest.fixture(scope="session")
def lab():
    """Faults: `lab("power", host, "off")`."""

    def command(*words):
        environment = dict(os.environ, PYTHONPATH=str(PROJECT / "molecule/shared"))
        environment.setdefault("LAB_NAME", "proxies")
        subprocess.run([sys.executable, "-m", "lab", *words], env=environment, check=True, timeout=120)

    return command


class Client:
    """A client that stays connected."""

    def __init__(self, address, port=5222, patience=10):
        self.connection = socket.create_connection((address, port), timeout=patience)
        self.local = self.connection.getsockname()
        self.lines = self.connection.makefile("r", encoding="utf-8")
        greeting = self.lines.readline()
        if not greeting:
            raise ConnectionError("closed before a node has answered")
        self.told = json.loads(greeting)
        self.node = self.told["node"]

    def answers(self):
        """Whether the node still echoes on this connection."""
        try:
            self.connection.sendall(b"are you there?\n")
            return self.lines.readline() == "are you there?\n"
        except OSError:
            return False

    def ends(self, seconds):
        """Wait until the other side closes the connection, without a word; returns how long it took."""
        started = time.monotonic()
        self.connection.settimeout(seconds)
        with suppress(ConnectionResetError):
            assert self.connection.recv(1) == b""
        return time.monotonic() - started

    def close(self):
        self.lines.close()
        self.connection.close()


@pytest.fixture
def clients():
    """Connect clients; they are gone when the test is over."""
    made = []

    def connect(address, count=1, port=5222):
        some = [Client(address, port) for _ in range(count)]
        made.extend(some)
        return some

    yield connect
    for client in made:
        client.close()


class Coming:
    """Clients that come and go in a loop, at most 50 a second; remembers who was not served."""

    def __init__(self, address):
        self.address = address
        self.served = 0
        self.failures = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _loop(self):
        while not self._over.wait(0.02):
            try:
                client = Client(self.address)
                assert client.answers()
                client.close()
                self.served += 1
            except (OSError, AssertionError) as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {error!r}")


@pytest.fixture
def coming():
    return Coming


class Views:
    """What the proxies say of the nodes."""

    def __init__(self, proxies):
        self.proxies = proxies

    def states(self, proxy):
        rows = json.loads(proxy.ok("joinproxy status --json"))
        return {row["node"]: row["state"].split()[0] for row in rows}

    def wait(self, node, state, proxies=None):
        for proxy in proxies or self.proxies:
            until(lambda: self.states(proxy)[node] == state, f"{node} to be {state} for {proxy.name}", 30)  # noqa: B023

    def all_up(self):
        for node in NODES:
            self.wait(node, "UP")


@pytest.fixture(scope="session")
def views(proxies):
    return Views(proxies)


@pytest.fixture(autouse=True)
def everything_is_up(views):
    """Each test begins with two nodes that want clients."""
    views.all_up()

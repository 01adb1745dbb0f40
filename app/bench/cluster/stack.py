"""Several workers of MonkTalk on one NATS server, each a process of its own with a port of its own.

They are started without a supervisor: with one listener for all of them, nobody could say at which worker a client is.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench import procfs
from bench.child import Child, ServerError
from bench.servers.base import LOOPBACK, child_environment, free_ports
from bench.servers.monktalk import MonkTalk
from bench.session import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Costs = dict[str, float]
"""Seconds of CPU by what used them: workers, bus, database."""

WORKERS, BUS, DATABASE = "workers", "bus", "database"

_NATS_START_SECONDS = 10.0

_CLUSTER = """
[messages]
guarantee = "{guarantee}"
"""

_BUS = """
[cluster]
bus = "nats"
servers = ["{address}:{port}"]
node = "bench{number}"
"""


def nats_missing() -> str:
    """A sentence that says why there can be no bus here; empty when there can."""
    return "" if _nats_command() else "nats-server is not installed (Debian package nats-server)."


def nats_version() -> str:
    """The version of the NATS server."""
    command = _nats_command()
    if command is None:
        return ""
    answer = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, timeout=30)
    return answer.stdout.strip().rpartition(" ")[2]


def _nats_command() -> str | None:
    # Debian puts it where only root looks.
    return shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")


class NatsServer:
    """One NATS server; with peers, a member of their cluster.

    Attributes:
        port: for clients, on loopback.
        route: for other servers.
    """

    def __init__(self, folder: Path, cores: set[int], name: str = "nats", peers: Sequence[NatsServer] = ()) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerError: it does not come up.
        """
        command = _nats_command()
        if command is None:
            raise ServerError(nats_missing())
        self.port, self.route = free_ports(2)
        routes = ", ".join(f'"nats-route://{LOOPBACK}:{peer.route}"' for peer in peers)
        configuration = folder / f"{name}.conf"
        configuration.write_text(
            f"server_name: {name}\nlisten: {LOOPBACK}:{self.port}\n"
            f"cluster {{ name: bench, listen: {LOOPBACK}:{self.route}, routes: [{routes}] }}\n",
            encoding="ascii",
        )
        self.child = Child(
            [command, "-c", str(configuration)],
            environment=child_environment(),
            folder=folder,
            log=folder / f"{name}.log",
            cores=cores,
        )
        try:
            wait_for_port(self.child, self.port, name)
        except ServerError:
            self.stop()
            raise

    def cpu(self) -> float:
        """Seconds of CPU used so far."""
        return procfs.cpu_seconds(self.child.tree())

    def stop(self) -> None:
        """End it."""
        self.child.stop()


def wait_for_port(child: Child, port: int, name: str) -> None:
    """Return when somebody listens on the port.

    Raises:
        ServerError: the child has ended, or nobody does in time.
    """
    deadline = time.monotonic() + _NATS_START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        if not child.running() or time.monotonic() > deadline:
            raise ServerError(f"{name} does not start; {child.log} says:\n{child.last_lines()}")
        time.sleep(0.05)


class Stack(MonkTalk):
    """Workers that serve the same users.

    Args:
        folder: an existing folder for everything.
        cores: those of workers and bus.
        accounts: how many there are.
        workers: how many of them; a single one has no bus.
        guarantee: of messages, `memory` or `durable`.
        database: the address of an empty PostgreSQL database; without one there is an SQLite file.
        database_cpu: tells the CPU seconds that the database's processes have used.
    """

    def __init__(
        self,
        folder: Path,
        cores: set[int],
        accounts: int,
        *,
        workers: int = 2,
        guarantee: str = "memory",
        database: str | None = None,
        database_cpu: Callable[[], float] = float,
    ) -> None:
        super().__init__(folder, cores, accounts)
        self._guarantee = guarantee
        self._database = database
        self._database_cpu = database_cpu
        self._ports = [self.port_plain, *free_ports(workers - 1)]
        self._nats: NatsServer | None = None
        self._workers: list[Child] = []

    def configure(self) -> None:
        """See Server. Each worker has a file of its own."""
        super().configure()
        if self._database is not None:
            _upgrade(self._database)
        usual = (self.folder / "xmpp.toml").read_text(encoding="utf-8")
        for number in range(len(self._ports)):
            (self.folder / f"worker{number}.toml").write_text(self.configuration(usual, number), encoding="utf-8")

    def configuration(self, usual: str, number: int) -> str:
        """The configuration of one worker, made of that of a server that is alone."""
        text = usual.replace("control.sock", f"control{number}.sock")
        text = re.sub(rf"^port = {self.port_plain}$", f"port = {self._ports[number]}", text, flags=re.MULTILINE)
        if self._database is not None:
            text = re.sub(r'^url = "sqlite:.*$', lambda _: f'url = "{self._database}"', text, flags=re.MULTILINE)
        text += _CLUSTER.format(guarantee=self._guarantee)
        if self._nats is not None:
            text += _BUS.format(address=LOOPBACK, port=self._nats.port, number=number)
        return text

    def start(self) -> None:
        """See Server."""
        if len(self._ports) > 1 and self._nats is None:
            self._nats = NatsServer(self.folder, self.cores)
        super().start()
        for number, child in enumerate(self._workers):
            wait_for_port(child, self._ports[number], f"worker {number}")

    def launch(self) -> Child:
        """See Server. Returns the first worker."""
        self._start_auth()
        self._workers = [
            self._start(f"worker{number}", ["monktalk.xmpp", "--config", str(self.folder / f"worker{number}.toml")])
            for number in range(len(self._ports))
        ]
        return self._workers[0]

    def stop(self) -> None:
        """See Server."""
        workers, self._workers = self._workers, []
        for child in workers[1:]:
            child.stop()
        super().stop()
        nats, self._nats = self._nats, None
        if nats is not None:
            nats.stop()

    def endpoint_of(self, number: int, *, tls: bool) -> Endpoint:
        """Where clients connect to a worker."""
        usual = self.endpoint(tls=tls)
        return Endpoint((LOOPBACK, self._ports[number]), usual.domain, usual.tls, usual.direct)

    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [child.pid for child in self._workers]

    def costs(self) -> Costs:
        """Seconds of CPU that were used so far.

        Raises:
            ServerError: a worker has ended.
        """
        for number, child in enumerate(self._workers):
            if not child.running():
                raise ServerError(f"worker {number} is not running any more:\n{child.last_lines()}")
        return {
            WORKERS: sum(procfs.cpu_seconds(child.tree()) for child in self._workers),
            BUS: 0.0 if self._nats is None else self._nats.cpu(),
            DATABASE: self._database_cpu(),
        }


def _upgrade(url: str) -> None:
    upgrade = subprocess.run(
        [sys.executable, "-m", "monktalk.db", "upgrade", url], capture_output=True, text=True, check=False, timeout=60
    )
    if upgrade.returncode:
        raise ServerError(f"monktalk.db upgrade failed:\n{upgrade.stderr[-2000:]}")

"""Several workers under one supervisor: one that dies or hangs is replaced, and they reload and stop together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.accounts import Account
from tests.support.client import Client
from tests.support.ctl import Ctl
from tests.support.polling import eventually
from tests.support.stack import LOOPBACK, AuthService, XmppServer, free_port
from tests.support.toml import Table, merged
from tests.support.wire import Wire

pytestmark = pytest.mark.slow

WORKERS = 3
WORKERS_OF_A_NODE: Table = {
    "cluster": {"workers": WORKERS, "stop_time": "5 s"},
    "readiness": {"port": 0},
    "limits": {"connections_per_address": 1000},
}


class Node(XmppServer):
    """A supervisor with its workers."""

    def __init__(self, directory: Path, auth: AuthService, manager: socket.socket, watchdog: float | None) -> None:
        super().__init__(directory, auth, WORKERS_OF_A_NODE)
        self.ctl = Ctl(self.config)
        self.clients: list[Client] = []
        self.heard: list[str] = []
        self._manager = manager
        self._env |= {"NOTIFY_SOCKET": str(manager.getsockname())}
        if watchdog is not None:
            self._env |= {"WATCHDOG_USEC": str(int(watchdog * 1_000_000))}

    def reconfigure(self, overrides: Table) -> None:
        """Write another configuration file, which nobody reads yet."""
        self.configure(merged(WORKERS_OF_A_NODE, overrides))

    @property
    def facts(self) -> dict[str, object]:
        """What the ready file says."""
        found: dict[str, object] = json.loads(self._ready_file.read_text())
        return found

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [int(pid) for pid in self.facts["workers"]]  # type: ignore[attr-defined]

    async def replaced(self, pid: int) -> list[int]:
        """Wait until all workers serve again, and that one is not among them; returns them."""

        async def look() -> list[int]:
            self.heard += self._manager_says()
            return self.workers

        return await eventually(look, lambda pids: pid not in pids and len(pids) == WORKERS, "a new worker", 30)

    def told(self) -> list[str]:
        """What the service manager has heard since the last look."""
        lines, self.heard = self.heard + self._manager_says(), []
        return lines

    def _manager_says(self) -> list[str]:
        lines: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines += self._manager.recv(4096).decode().splitlines()
        return lines

    async def hears(self, text: str) -> None:
        """Wait until the service manager is told that."""

        async def look() -> list[str]:
            return self.told()

        await eventually(look, lambda lines: any(text in line for line in lines), f"{text} is told", 30)

    async def login(self, account: Account) -> Client:
        """A bound session, at whatever worker."""
        client = Client(await Wire.connect(LOOPBACK, self.clear_port), account.host)
        self.clients.append(client)
        await client.open_stream()
        await client.authenticate(account)
        await client.bind()
        return client

    async def served_by(self, client: Client) -> int:
        """The worker that has the connection of that client: it is the one that has a socket with its port."""
        port = client.wire._writer.get_extra_info("sockname")[1]
        inode = _inode_of(port, self.clear_port)
        return next(pid for pid in self.workers if inode in _sockets_of(pid))

    def state(self) -> str:
        """What a load balancer hears."""
        url = f"http://{LOOPBACK}:{self.facts['readiness_port']}/ready"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return f"{response.status} {response.read().decode().strip()}"
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.read().decode().strip()}"


def _inode_of(remote: int, local: int) -> str:
    """The inode of the server's end of the loopback connection between the two ports."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (int(fields[1].split(":")[1], 16), int(fields[2].split(":")[1], 16)) == (local, remote):
            return fields[9]
    raise AssertionError(f"there is no connection from port {remote}")


def _sockets_of(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def alive(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(*pids: int) -> None:
    async def look() -> list[int]:
        return [pid for pid in pids if alive(pid)]

    await eventually(look, lambda left: not left, "the processes have ended", 30)


async def answered(client: Client) -> bool:
    return (await client.get("<ping xmlns='urn:xmpp:ping'/>")).get("type") == "result"


@pytest.fixture(scope="module")
def auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthService]:
    service = AuthService(tmp_path_factory.mktemp("auth"))
    service.start()
    yield service
    service.program.stop()


@pytest.fixture
async def build(tmp_path: Path, auth: AuthService) -> AsyncIterator[Callable[..., Node]]:
    """A node that does not run yet; ``watchdog`` is how long the service manager waits for a sign of life."""
    nodes: list[Node] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        def new(watchdog: float | None = None) -> Node:
            nodes.append(Node(tmp_path / "node", auth, manager, watchdog))
            return nodes[-1]

        yield new
        for node in nodes:
            for client in node.clients:
                await client.wire.close()
            node.kill()
            assert "Traceback" not in node.log_text(), node.log_text()


@pytest.fixture
def node(build: Callable[..., Node]) -> Node:
    node = build()
    node.launch()
    return node


# -- start and stop ----------------------------------------------------------------------------------------------------


async def test_it_is_ready_when_all_workers_are(node):
    assert len(set(node.workers)) == WORKERS
    assert node.pid not in node.workers
    assert node.facts["pid"] == node.pid
    told = node.told()
    assert told.count("READY=1") == 1
    assert f"STATUS={WORKERS} of {WORKERS} workers serving 4 hosts" in told
    assert node.state() == "200 ready"
    assert "is started with status: started" in await node.ctl.text("status")


async def test_stopping_ends_all_streams_and_processes(node, auth):
    clients = [await node.login(auth.account()) for _ in range(6)]
    workers = node.workers
    os.kill(node.pid, signal.SIGTERM)
    for client in clients:
        await client.stream_error("system-shutdown")
    assert node.stop() == 0
    assert not any(map(alive, workers))
    assert not node.control_socket.exists()
    assert not node._ready_file.exists()
    assert "STOPPING=1" in node.told()


async def test_a_worker_that_was_stopped_is_woken_up_to_end(node):
    hung = node.workers[0]
    os.kill(hung, signal.SIGSTOP)
    assert node.stop() == 0
    assert not alive(hung)
    assert "it does not stop" not in node.log_text()


async def test_workers_end_with_their_supervisor(node, auth):
    client = await node.login(auth.account())
    workers = node.workers
    os.kill(node.pid, signal.SIGKILL)
    await client.stream_error("system-shutdown")
    await gone(*workers)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"listen": {"c2s": [{"address": "192.0.2.1", "port": 5222}]}}, "can't listen on 192.0.2.1 port 5222"),
        ({"database": {"url": "nonsense://database"}}, "worker . did not get ready: exit status 1"),
    ],
)
async def test_a_node_that_can_not_start_says_why(build, overrides, reason):
    node = build()
    node.reconfigure(overrides)
    with pytest.raises(AssertionError, match=reason) as caught:
        node.start(node._read_ready_file)
    assert "ended with 1" in str(caught.value)
    assert not node.control_socket.exists()


# -- death -------------------------------------------------------------------------------------------------------------


async def test_a_killed_worker_comes_back_and_others_go_on(node, auth):
    clients = [await node.login(auth.account()) for _ in range(12)]
    owners = [await node.served_by(client) for client in clients]
    victim = owners[0]
    assert set(owners) > {victim}, "they are spread"
    os.kill(victim, signal.SIGKILL)
    for client, owner in zip(clients, owners, strict=True):
        if owner != victim:
            assert await answered(client)
    newcomers = [await node.login(auth.account()) for _ in range(6)]
    assert all([await answered(client) for client in newcomers])
    workers = await node.replaced(victim)
    assert len(workers) == WORKERS
    assert "killed by SIGKILL" in node.log_text()
    await node.hears(f"{WORKERS} of {WORKERS} workers serving")
    assert node.state() == "200 ready"


async def test_connections_that_a_dead_worker_had_not_accepted_are_served_by_others(node, auth):
    """The queue of connections is common: it ends with the last worker only."""
    stopped = node.workers
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    waiting = [Client(await Wire.connect(LOOPBACK, node.clear_port), "localhost") for _ in range(20)]
    node.clients += waiting
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
    for client in waiting:
        await client.open_stream()


async def test_the_control_socket_answers_while_a_worker_is_stopped(node):
    stopped = node.workers[1]
    os.kill(stopped, signal.SIGSTOP)
    try:
        for _ in range(5):
            assert "is started with status: started" in await node.ctl.text("status")
    finally:
        os.kill(stopped, signal.SIGCONT)


async def test_a_worker_that_hangs_is_replaced(build, auth):
    node = build(watchdog=3.0)
    node.launch()
    client = await node.login(auth.account())
    owner = await node.served_by(client)
    hung = next(pid for pid in node.workers if pid != owner)
    os.kill(hung, signal.SIGSTOP)
    await node.replaced(hung)
    assert await answered(client)
    node.told()
    await node.hears("WATCHDOG=1")
    assert node.running
    assert "it does not answer" in node.log_text()


# -- reload ------------------------------------------------------------------------------------------------------------


async def hosts_of(node: Node, expected: bool) -> None:
    """All workers agree whether they serve new.example: the control socket is answered by any of them."""
    for _ in range(4 * WORKERS):
        assert ("new.example" in await node.ctl.lines("registered_vhosts")) is expected


async def test_a_reload_reaches_all_workers(node, auth):
    client = await node.login(auth.account())
    workers = node.workers
    node.reconfigure({"general": {"hosts": ["localhost", "new.example"]}})
    assert (await node.ctl.text("reload_local")).startswith("# Reloaded: mongooseim@")
    await hosts_of(node, expected=True)
    assert await answered(client)
    assert node.workers == workers


async def test_a_reload_by_signal_does_the_same(node):
    node.reconfigure({"general": {"hosts": ["localhost", "new.example"]}})
    node.told()
    os.kill(node.pid, signal.SIGHUP)
    await node.hears("workers serving 2 hosts")
    await hosts_of(node, expected=True)


async def test_a_refused_reload_changes_no_worker(node):
    node.reconfigure({"general": {"hosts": ["localhost", "new.example"]}, "limits": {"rat": 1}})
    refusal = await node.ctl.refused("reload_local")
    assert f"{node.config}:" in refusal
    assert "limits.rat" in refusal
    await hosts_of(node, expected=False)


async def test_a_worker_that_starts_later_has_what_was_reloaded_and_not_what_is_broken(node):
    node.reconfigure({"general": {"hosts": ["localhost", "new.example"]}})
    await node.ctl.text("reload_local")
    node.config.write_text("this is not TOML")
    for pid in node.workers:
        os.kill(pid, signal.SIGKILL)
        await node.replaced(pid)
    node.reconfigure({})
    await hosts_of(node, expected=True)


async def test_listeners_come_and_go(node, auth):
    new = free_port()
    listeners = [
        {"address": LOOPBACK, "port": 0, "starttls_required": True},
        {"address": LOOPBACK, "port": 0, "starttls_required": False},
    ]
    extra = {"address": LOOPBACK, "port": new, "starttls_required": False}
    node.reconfigure({"listen": {"c2s": [*listeners, extra]}})
    await node.ctl.text("reload_local")
    clients = []
    for _ in range(12):
        clients.append(Client(await Wire.connect(LOOPBACK, new), "localhost"))
        await clients[-1].open_stream()
    node.clients += clients
    node.reconfigure({"listen": {"c2s": listeners}})
    await node.ctl.text("reload_local")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(LOOPBACK, new)
    await node.login(auth.account())


async def test_a_port_in_use_refuses_the_reload(node, auth):
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        node.reconfigure(
            {
                "general": {"hosts": ["localhost", "new.example"]},
                "listen": {"c2s": [{"address": LOOPBACK, "port": port}]},
            }
        )
        assert f"can't listen on {LOOPBACK} port {port}" in await node.ctl.refused("reload_local")
    await hosts_of(node, expected=False)
    await node.login(auth.account())


# -- spreading ---------------------------------------------------------------------------------------------------------


async def test_connections_are_spread_over_the_workers(node):
    """Every worker takes its part of 200 connections that come as fast as they can; docs/workers.md has figures."""
    wires = [await Wire.connect(LOOPBACK, node.clear_port) for _ in range(200)]
    clients = [Client(wire, "localhost") for wire in wires]
    node.clients += clients
    await asyncio.gather(*(client.open_stream() for client in clients))
    inodes = {_inode_of(wire._writer.get_extra_info("sockname")[1], node.clear_port) for wire in wires}
    shares = [len(inodes & _sockets_of(pid)) for pid in node.workers]
    assert sum(shares) == 200
    assert all(shares), shares

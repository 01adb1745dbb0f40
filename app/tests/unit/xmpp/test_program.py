"""One server process: its start, its reloads, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509

from monktalk.common import logging as log_setup
from monktalk.common import sdnotify
from monktalk.common.config import ConfigError
from monktalk.common.jid import JID
from monktalk.xmpp import configuration, program
from monktalk.xmpp.core.server import Server
from monktalk.xmpp.net.tls import TlsError
from monktalk.xmpp.program import Program
from tests.support.accounts import Account
from tests.support.certificates import make_certificate
from tests.support.client import Client, client_context
from tests.support.inproc import Accounts
from tests.support.wire import Wire

LOOPBACK = "127.0.0.1"
ONE, TWO, THREE = "one.example", "two.example", "three.example"
PING = "<ping xmlns='urn:xmpp:ping'/>"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """A program that serves, its configuration file, and the clients of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "mongooseim.toml"
        self.control = directory / "control.sock"
        self.ready = directory / "ready.json"
        self.port = free_port()
        self.certificate, self.key = make_certificate(directory, "server", [ONE, TWO])
        self._clients: list[Client] = []
        self.program: Program
        self.task: asyncio.Task[None]

    def configure(
        self, more: str = "", *, hosts: tuple[str, ...] = (ONE, TWO), general: str = "", listen: str = "", tls: str = ""
    ) -> None:
        """Write the configuration file."""
        usual = f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {self.port}\nstarttls_required = false\n"
        certificate = f"certificate = '{self.certificate}'\nkey = '{self.key}'\n"
        self.file.write_text(
            f"[general]\nhosts = {list(hosts)}\ncontrol_socket = '{self.control}'\n{general}"
            f"[database]\nurl = 'memory:'\n{listen or usual}[tls]\n{tls or certificate}{more}"
        )

    async def start(self) -> None:
        """Run the program until it is ready."""
        self.program = Program(self.file, configuration.read(self.file), self.ready)
        self.task = asyncio.create_task(self.program.run())
        await self.until(lambda: self.ready.exists() or self.task.done(), "the program is ready")
        if self.task.done():
            await self.task
        self.give_accounts()

    def give_accounts(self) -> None:
        """Let romeo log in to every host, without an authentication service."""
        for host in self.program.server.hosts.values():
            accounts = Accounts(host.domain)
            accounts.passwords["romeo"] = "sesame"
            host.auth = accounts  # type: ignore[assignment]  # has the methods that logging in needs

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let the loop turn until the condition holds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10
        while not condition():
            assert loop.time() < deadline, f"{what}: it never happened"
            await asyncio.sleep(0.005)

    async def connect(self, host: str = ONE, port: int | None = None, *, tls: bool = False) -> Client:
        """An open stream."""
        context = client_context() if tls else None
        wire = await Wire.connect(LOOPBACK, port or self.port, tls=context, server_hostname=host if tls else None)
        client = Client(wire, host)
        self._clients.append(client)
        await client.open_stream()
        return client

    async def login(self, host: str = ONE, *, tls: bool = False) -> Client:
        """A bound session of romeo."""
        client = await self.connect(host, tls=tls)
        await client.authenticate(Account("romeo", host, "sesame"))
        await client.bind()
        return client

    async def certificate_shown(self) -> list[str]:
        """The names in the certificate that a new client gets to see."""
        client = await self.connect(tls=True)
        loaded = x509.load_der_x509_certificate(client.wire.peer_certificate())
        return loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )

    async def stop(self) -> None:
        """Stop, and wait for the end."""
        self.program.stop()
        await self.task
        for client in self._clients:
            await client.wire.close()


async def alive(client: Client) -> bool:
    """Whether the client's session is served."""
    return (await client.get(PING)).get("type") == "result"


@pytest.fixture(autouse=True)
def quiet_process(monkeypatch):
    """The garbage collector and the log level of the test process stay as they are."""
    monkeypatch.setattr(program, "_tune_garbage_collection", lambda: None)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS"):
        monkeypatch.delenv(name, raising=False)
    level = log_setup.get_level()
    yield
    log_setup.set_level(level)


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    running.configure()
    await running.start()
    yield running
    if not running.task.done():
        await running.stop()


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """What the service manager is told: call it for the lines that have come."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def told() -> list[str]:
            lines: list[str] = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    lines += receiver.recv(4096).decode().splitlines()
            return lines

        yield told


def logged(caplog, event: str) -> list[dict[str, object]]:
    """The fields of the records of that event."""
    return [record.fields for record in caplog.records if record.getMessage() == event]


# -- start and stop ----------------------------------------------------------------------------------------------------


async def test_what_answers_is_written_to_the_ready_file(server):
    facts = json.loads(server.ready.read_text())
    assert facts == {
        "pid": os.getpid(),
        "listeners": [{"kind": "c2s", "address": LOOPBACK, "port": server.port}],
        "control_socket": str(server.control),
    }
    assert server.control.is_socket()
    assert await alive(await server.login())


async def test_stopping_ends_streams_and_removes_the_files(server):
    bound, waiting = await server.login(), await server.connect(TWO)
    await server.stop()
    await bound.stream_error("system-shutdown")
    await waiting.stream_error("system-shutdown")
    assert not server.ready.exists()
    assert not server.control.exists()
    with pytest.raises(ConnectionRefusedError):
        await server.connect()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it(server, number):
    os.kill(os.getpid(), number)
    await asyncio.wait_for(server.task, 10)


async def test_a_port_in_use_is_told_and_nothing_is_left_behind(server, tmp_path):
    directory = tmp_path / "second"
    directory.mkdir()
    second = Running(directory)
    second.port = server.port
    second.configure()
    with pytest.raises(OSError, match=f"can't listen on {LOOPBACK} port {server.port}: .*in use"):
        await second.start()
    assert not second.control.exists()
    assert await alive(await server.login())


async def test_a_control_socket_in_use_is_told(server, tmp_path):
    directory = tmp_path / "second"
    directory.mkdir()
    second = Running(directory)
    second.control = server.control
    second.configure()
    with pytest.raises(OSError, match="another server answers on the control socket"):
        await second.start()
    assert server.control.is_socket()
    with pytest.raises(ConnectionRefusedError):
        await second.connect()


# -- service manager ---------------------------------------------------------------------------------------------------


async def test_the_service_manager_is_told(tmp_path, manager):
    running = Running(tmp_path)
    running.configure()
    await running.start()
    assert manager() == ["READY=1", "STATUS=serving 2 hosts"]
    before = time.monotonic_ns() // 1000
    os.kill(os.getpid(), signal.SIGHUP)
    heard: list[str] = []

    def reloaded() -> bool:
        heard.extend(manager())
        return "READY=1" in heard

    await running.until(reloaded, "the reload is over")
    assert [line for line in heard if not line.startswith("MONOTONIC_USEC=")] == [
        *("RELOADING=1", "READY=1", "STATUS=serving 2 hosts"),
    ]
    [stamp] = [int(line.partition("=")[2]) for line in heard if line.startswith("MONOTONIC_USEC=")]
    assert before <= stamp <= time.monotonic_ns() // 1000
    await running.stop()
    assert manager() == ["STOPPING=1"]


async def test_the_service_manager_is_told_that_a_reload_was_refused(tmp_path, manager):
    running = Running(tmp_path)
    running.configure()
    await running.start()
    running.configure("[limits]\nrat = 1\n")
    os.kill(os.getpid(), signal.SIGHUP)
    heard: list[str] = []

    def told() -> bool:
        heard.extend(manager())
        return any("reload was refused" in line for line in heard)

    await running.until(told, "the refusal is told")
    assert "limits.rat: unknown option" in heard[-1]
    await running.stop()


async def test_the_watchdog_is_fed(tmp_path, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    running = Running(tmp_path)
    running.configure()
    await running.start()
    heard: list[str] = []

    def fed() -> bool:
        heard.extend(manager())
        return heard.count("WATCHDOG=1") >= 3

    await running.until(fed, "the watchdog has been fed")
    await running.stop()


async def test_a_service_manager_that_does_not_listen_stops_nobody(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    running = Running(tmp_path)
    running.configure()
    await running.start()
    assert await alive(await running.login())
    await running.stop()
    assert len(logged(caplog, "manager_not_told")) == 2
    assert not running.control.exists()


async def test_sockets_of_the_service_manager_are_used(tmp_path, monkeypatch):
    running = Running(tmp_path)
    sock = socket.socket()
    sock.bind((LOOPBACK, running.port))
    sock.listen()
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setattr(sdnotify, "_FIRST_SOCKET", sock.detach())
    running.configure()
    await running.start()
    assert await alive(await running.login())
    await running.stop()


async def test_sockets_for_another_process_are_none_of_ours(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert sdnotify.inherited_sockets() == []


# -- reload ------------------------------------------------------------------------------------------------------------


async def test_a_reload_without_changes_changes_nothing(server):
    client = await server.login()
    modules = dict(server.program.server.hosts[ONE].modules)
    report = await server.program.reload()
    assert (report.applied, report.restart_needed) == ([], [])
    assert server.program.server.hosts[ONE].modules == modules
    assert await alive(client)


async def test_the_log_level_is_changed(server):
    server.configure(general="loglevel = 'error'\n")
    report = await server.program.reload()
    assert report.applied == ["general.loglevel"]
    assert log_setup.get_level() == "error"


async def test_hosts_come_and_go_without_the_others_noticing(server):
    stays, goes = await server.login(ONE), await server.login(TWO)
    server.configure(hosts=(ONE, THREE))
    report = await server.program.reload()
    assert report.applied == ["general.hosts"]
    await goes.stream_error("host-gone")
    server.give_accounts()
    assert await alive(await server.login(THREE))
    assert await alive(stays)
    assert server.program.server.default_domain == ONE


async def test_a_signal_removes_a_host_at_once(server):
    """The task that reloads must not wait for itself to end, nor cancel what others are doing."""
    stays, goes = await server.login(ONE), await server.login(TWO)
    server.configure(hosts=(ONE,))
    os.kill(os.getpid(), signal.SIGHUP)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await goes.stream_error("host-gone")
    await server.until(lambda: not server.program._reloading.locked(), "the reload is over")
    assert loop.time() - began < 3
    assert await alive(stays)
    assert await alive(await server.login(ONE))


async def test_modules_come_and_go_and_change(server):
    client = await server.login()
    server.configure("[modules.ping]\nenabled = false\n[modules.version]\nname = 'Chat'\n")
    await server.program.reload()
    assert (await client.get(PING)).get("type") == "error"
    version = await client.get("<query xmlns='jabber:iq:version'/>", to=ONE)
    assert version.findtext("{jabber:iq:version}query/{jabber:iq:version}name") == "Chat"
    server.configure()
    await server.program.reload()
    assert await alive(client)
    version = await client.get("<query xmlns='jabber:iq:version'/>", to=ONE)
    assert version.findtext("{jabber:iq:version}query/{jabber:iq:version}name") == "MonkTalk"


async def test_limits_hold_for_whoever_comes_now(server):
    client = await server.login()
    server.configure("[limits]\nconnections_per_address = 1\nauth_failures_per_address = 1\nsessions_per_account = 1\n")
    report = await server.program.reload()
    assert set(report.applied) == {
        "limits",
        *("limits.connections_per_address", "limits.sessions_per_account", "limits.auth_failures_per_address"),
    }
    with pytest.raises((AssertionError, ConnectionError)):
        await server.connect()
    assert server.program.server.throttle.limits.auth_failures_per_address == 1
    assert server.program.server.hosts[ONE].limits.sessions_per_account == 1
    assert await alive(client)


async def test_options_of_hosts_are_changed(server):
    client = await server.login()
    text = f"[host.'{TWO}'.sessions]\nisolated = true\n[stream_management]\nresume_time = 7\n"
    server.configure(text, general=f"administrators = ['romeo@{ONE}']\nlanguage = 'de'\n")
    await server.program.reload()
    hosts = server.program.server.hosts
    assert (hosts[ONE].isolated, hosts[TWO].isolated) == (False, True)
    assert hosts[ONE].is_administrator(JID.parse(client.full))
    await client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    assert (await client.next()).get("max") == "7"
    other = await server.connect()
    assert other.header["{http://www.w3.org/XML/1998/namespace}lang"] == "de"


async def test_the_authentication_service_is_changed(server):
    client = await server.login()
    before = server.program.server.hosts[ONE].auth
    server.configure("[auth]\nmechanisms = ['SCRAM-SHA-256']\n")
    await server.program.reload()
    assert server.program.server.hosts[ONE].auth is not before
    assert (await server.connect()).mechanisms == ["SCRAM-SHA-256"]
    assert await alive(client)


async def test_the_certificate_is_replaced_under_running_sessions(server):
    client = await server.login(tls=True)
    assert await server.certificate_shown() == [ONE, TWO]
    make_certificate(server.directory, "server", ["new.example"])
    await server.program.reload()
    assert await server.certificate_shown() == ["new.example"]
    assert await alive(client)


async def test_listeners_come_and_go_and_change(server):
    client, old, new = await server.login(), server.port, free_port()
    server.configure(listen=f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {new}\nstarttls_required = true\n")
    await server.program.reload()
    with pytest.raises(ConnectionRefusedError):
        await server.connect(port=old)
    assert "PLAIN" not in (await server.connect(port=new)).mechanisms
    assert await alive(client)
    server.configure(listen=f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {new}\nstarttls_required = false\n")
    await server.program.reload()
    assert "PLAIN" in (await server.connect(port=new)).mechanisms


async def test_what_needs_a_restart_is_told_until_there_was_one(server):
    server.configure("[limits]\ndepth = 32\nrate = 1000\n", general="log_file = 'x.log'\n")
    report = await server.program.reload()
    assert report.applied == ["limits", "limits.rate"]
    assert sorted(report.restart_needed) == ["general.log_file", "limits.depth"]
    report = await server.program.reload()
    assert report.applied == []
    assert sorted(report.restart_needed) == ["general.log_file", "limits.depth"]


async def test_a_reload_that_is_asked_for_too_early_waits(tmp_path):
    running = Running(tmp_path)
    running.configure()
    running.program = Program(running.file, configuration.read(running.file), running.ready)
    running.task = asyncio.create_task(running.program.run())
    await asyncio.sleep(0)
    report = await running.program.reload()
    assert report.applied == []
    await running.until(running.ready.exists, "the program is ready")
    await running.stop()


# -- reloads that are refused ------------------------------------------------------------------------------------------


async def assert_unchanged(server: Running, client: Client, config: object) -> None:
    """Everything is as it was before the reload."""
    assert server.program.config is config
    assert server.program.server.config is config
    assert list(server.program.server.hosts) == [ONE, TWO]
    assert await server.certificate_shown() == [ONE, TWO]
    assert await alive(client)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[limits]\nrat = 1\n", "limits.rat"),
        ("[limits\n", "not valid TOML"),
        ("[modules.roster]\nenabled = false\n", "requires module roster"),
    ],
)
async def test_a_file_with_mistakes_is_refused_as_a_whole(server, text, reason):
    client, config = await server.login(), server.program.config
    server.configure(text, hosts=(ONE,), general="loglevel = 'error'\n")
    with pytest.raises(ConfigError, match=reason):
        await server.program.reload()
    await assert_unchanged(server, client, config)


async def test_so_is_one_with_a_broken_certificate(server, tmp_path):
    client, config = await server.login(tls=True), server.program.config
    broken = tmp_path / "broken.pem"
    broken.write_text("nonsense")
    server.configure(hosts=(ONE,), tls=f"certificate = '{broken}'\nkey = '{server.key}'\n")
    with pytest.raises(ConfigError, match=r"broken\.pem"):
        await server.program.reload()
    await assert_unchanged(server, client, config)


async def test_so_is_one_whose_certificate_is_replaced_at_that_very_moment(server, monkeypatch):
    client, config = await server.login(), server.program.config

    def replaced(_config) -> None:
        raise TlsError("certificate a with key b can't be used: mismatch")

    monkeypatch.setattr(program, "read_certificates", replaced)
    server.configure(hosts=(ONE,), listen=f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {free_port()}\n")
    with pytest.raises(ConfigError, match=r"tls\.certificate: certificate a with key b"):
        await server.program.reload()
    await assert_unchanged(server, client, config)


async def test_so_is_one_with_a_port_that_is_in_use(server, tmp_path):
    client, config = await server.login(), server.program.config
    make_certificate(server.directory, "new", ["new.example"])
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {port}\n"
        new = f"certificate = '{server.directory / 'new.pem'}'\nkey = '{server.directory / 'new.key'}'\n"
        server.configure(hosts=(ONE,), listen=listen, tls=new)
        with pytest.raises(OSError, match=f"can't listen on {LOOPBACK} port {port}"):
            await server.program.reload()
    await assert_unchanged(server, client, config)


async def test_a_reload_by_signal_that_is_refused_is_logged(server, caplog):
    client, config = await server.login(), server.program.config
    server.configure("[limits]\nrat = 1\nburst = 1\n")
    os.kill(os.getpid(), signal.SIGHUP)
    await server.until(lambda: len(logged(caplog, "reload_refused")) == 2, "both problems are logged")
    assert [str(fields["reason"]).split(": ")[1] for fields in logged(caplog, "reload_refused")] == [
        *("limits.rat", "limits.burst"),
    ]
    assert not any(record.exc_info for record in caplog.records)
    await assert_unchanged(server, client, config)


async def test_a_bug_in_a_reload_by_signal_is_logged(server, caplog, monkeypatch):
    def broken(_path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(configuration, "read", broken)
    os.kill(os.getpid(), signal.SIGHUP)
    await server.until(lambda: bool(logged(caplog, "reload_failed")), "the bug is logged")
    assert await alive(await server.login())


# -- readiness ---------------------------------------------------------------------------------------------------------


async def state_of(port: int | None) -> str:
    """What a load balancer hears."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(b"GET /ready HTTP/1.1\r\n\r\n")
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return f"{head.split()[1]} {body.strip()}"


async def test_load_balancers_hear_when_to_send_nobody(tmp_path, manager):
    running = Running(tmp_path)
    running.configure("[readiness]\nport = 0\n")
    await running.start()
    assert await state_of(running.program.readiness.port) == "200 ready"
    client = await running.login()
    await running.program.drain()
    assert await state_of(running.program.readiness.port) == "503 draining"
    assert "STATUS=draining 2 hosts" in manager()
    assert await alive(client)
    assert await alive(await running.login()), "who comes all the same is served"
    await running.program.undrain()
    assert await state_of(running.program.readiness.port) == "200 ready"
    running.program.stop()
    assert await state_of(running.program.readiness.port) == "503 stopping"
    await running.stop()
    assert running.program.readiness.port is None


async def test_nobody_is_sent_before_everything_is_ready(tmp_path, monkeypatch):
    running = Running(tmp_path)
    port = free_port()
    running.configure(f"[readiness]\nport = {port}\n")
    seen: list[str] = []
    real = Server.start

    async def start(server: Server) -> None:
        seen.append(await state_of(port))
        await real(server)

    monkeypatch.setattr(Server, "start", start)
    await running.start()
    assert seen == ["503 starting"]
    await running.stop()


async def test_a_reload_turns_the_endpoint_on_and_off(server):
    port = free_port()
    server.configure(f"[readiness]\nport = {port}\n")
    report = await server.program.reload()
    assert set(report.applied) >= {"readiness.port"}
    assert await state_of(port) == "200 ready"
    server.configure()
    await server.program.reload()
    with pytest.raises(ConnectionRefusedError):
        await state_of(port)


async def test_a_refused_reload_leaves_the_endpoint_as_it_was(server):
    port = free_port()
    with socket.create_server((LOOPBACK, 0)) as taken:
        listen = f"[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {taken.getsockname()[1]}\n"
        server.configure(f"[readiness]\nport = {port}\n", listen=listen)
        with pytest.raises(OSError, match="can't listen"):
            await server.program.reload()
    with pytest.raises(ConnectionRefusedError):
        await state_of(port)

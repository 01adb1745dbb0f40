"""The server process: puts storage, bus, hosts, listeners and control socket together, reloads, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from monktalk.common import logging as log_setup
from monktalk.common import sdnotify
from monktalk.common.config import ConfigError, read_text
from monktalk.common.logging import get_logger
from monktalk.xmpp import configuration
from monktalk.xmpp.admin import operations
from monktalk.xmpp.admin.control import ControlSocket
from monktalk.xmpp.cluster.open import open_bus
from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.core.server import Server
from monktalk.xmpp.modules import ALL
from monktalk.xmpp.net.listener import Connections
from monktalk.xmpp.net.ports import Ports
from monktalk.xmpp.net.readiness import DRAINING, READY, STARTING, STOPPING, ReadinessEndpoint
from monktalk.xmpp.net.tls import TlsContexts, TlsError, read_certificates
from monktalk.xmpp.storage.open import open_storage

if TYPE_CHECKING:
    from pathlib import Path

    from monktalk.common.config import Config
    from monktalk.xmpp.configuration import ReloadReport
    from monktalk.xmpp.net.tls import Certificate

log = get_logger(__name__)

CLUSTER_PATIENCE: Final = 30.0
"""Seconds that a cluster waits for its database, which gets another leader in that time."""


@dataclass(frozen=True)
class Prepared:
    """A configuration that can be taken over: nothing of it has to be read any more."""

    config: Config
    certificates: dict[str, Certificate]


class Program:
    """One server process, the only one of its node or one of its workers, which are counted from 1.

    ``draining`` is set once it should get no new connections, though it still takes them.
    """

    def __init__(self, path: Path, config: Config, ready_file: Path | None = None, *, worker: int = 0) -> None:
        self.path = path
        self.config = config
        self.worker = worker
        self._started_with = config
        self.tls = TlsContexts()
        self.tls.load(config)
        patience = CLUSTER_PATIENCE if config.section("cluster").bus != "none" else 0.0
        storage = open_storage(config.section("database").url, patience=patience)
        self.server = Server(config, ALL, storage, open_bus(config.section("cluster"), worker), self.tls)
        self.connections: Connections | None = None
        self.ports: Ports | None = None
        self.control = ControlSocket(self)
        operations.offer(self)
        self.readiness = ReadinessEndpoint(lambda: self.state)
        self.draining = False
        self._started = False
        self._ready_file = ready_file
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or :meth:`stop`. SIGHUP reloads. Raises OSError when a port can't be had."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.server.spawn(self.reload_by_signal()))
        watchdog: asyncio.Task[None] | None = None
        try:
            async with self._reloading:
                await self.start()
            _tune_garbage_collection()
            self._started = True
            self.report_ready()
            watchdog = loop.create_task(_feed_watchdog())
            await self._stopping.wait()
        finally:
            sdnotify.tell("STOPPING=1")
            if watchdog is not None:
                watchdog.cancel()
            await self._shut_down()

    async def start(self) -> None:
        """Open everything. Raises OSError when a port can't be had."""
        await self.readiness.change(self.config.section("readiness"))
        await self.serve()

    async def serve(self) -> None:
        """Open storage, hosts and listeners. Raises OSError when a port can't be had."""
        await self.server.start()
        self.connections = Connections(self.server)
        self.ports = Ports(self.connections, self.tls)
        await self.listen(self.ports)

    async def listen(self, ports: Ports) -> None:
        """Open the listeners and the control socket. Raises OSError when one can't be had."""
        await ports.open(self.config.sections("listen", "c2s"), sdnotify.inherited_sockets())
        await self.control.start(self.config.section("general").control_socket)

    def stop(self) -> None:
        """Ask :meth:`run` to end."""
        self._stopping.set()

    async def drain(self) -> None:
        """Have load balancers send new connections elsewhere; those that come all the same are served."""
        self.draining = True
        log.info("draining")
        sdnotify.tell(f"STATUS={self._summary()}")

    async def undrain(self) -> None:
        """Have load balancers send new connections here again."""
        self.draining = False
        log.info("draining_ended")
        sdnotify.tell(f"STATUS={self._summary()}")

    @property
    def state(self) -> str:
        """What the readiness endpoint answers."""
        if self._stopping.is_set():
            return STOPPING
        if not self._started:
            return STARTING
        return DRAINING if self.draining else READY

    async def _shut_down(self) -> None:
        log.info("stopping")
        if self.ports is not None:
            await self.ports.close()
        if self.connections is not None:
            await self.connections.arrivals_served()
        await self.control.close()
        await self.server.stop()
        if self.connections is not None:
            await self.connections.close()
        self.readiness.close()
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)

    def report_ready(self) -> None:
        """Tell everybody who waits for it that the server serves."""
        log.info("ready", hosts=",".join(self.server.hosts), pid=os.getpid())
        sdnotify.tell("READY=1", f"STATUS={self._summary()}")
        if self._ready_file is None:
            return
        assert self.ports is not None
        facts = {
            "pid": os.getpid(),
            "listeners": [
                {"kind": "c2s", "address": listener.options.address, "port": listener.port} for listener in self.ports
            ],
            "control_socket": str(self.config.section("general").control_socket),
        }
        configuration.write_facts(self._ready_file, facts)

    # -- reload --------------------------------------------------------------------------------------------------

    def check(self) -> str:
        """Read the file and what it refers to; returns a digest of it. Raises :class:`ConfigError`, OSError."""
        text = read_text(self.path)
        prepare(configuration.parse(text, self.path))
        return blake2b(text.encode(), digest_size=16).hexdigest()

    async def reload_by_signal(self) -> None:
        """Reload, and tell the service manager and the log how it went."""
        # Units of Type=notify-reload want the time, to tell the answer to this reload from an older one.
        sdnotify.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            await self.reload()
        except (ConfigError, OSError) as error:
            lines = str(error).splitlines()
            for line in lines:
                log.error("reload_refused", reason=line)
            sdnotify.tell(
                "READY=1", f"STATUS={self._summary()}; the last reload was refused: {lines[0] if lines else error!r}"
            )
        except Exception:
            log.exception("reload_failed")
            sdnotify.tell("READY=1", f"STATUS={self._summary()}; the last reload has failed, see the log")
        else:
            sdnotify.tell("READY=1", f"STATUS={self._summary()}")

    def _summary(self) -> str:
        count = len(self.server.hosts)
        return f"{'draining' if self.draining else 'serving'} {count} host{'' if count == 1 else 's'}"

    async def reload(self) -> ReloadReport:
        """Read the file again and apply what can change at run time. No session is dropped, but of removed hosts.

        Raises :class:`ConfigError`, or OSError for a port that can't be had; then nothing has changed.
        """
        async with self._reloading:
            assert self.ports is not None
            prepared = prepare(configuration.read(self.path))
            config = prepared.config
            report = configuration.changes(self._started_with, self.config, config)
            readiness = await self.readiness.open(config.section("readiness"))
            try:
                await self.ports.change(config.sections("listen", "c2s"))
            except OSError:
                if readiness is not None:
                    readiness.close()
                raise
            self.readiness.use(config.section("readiness"), readiness)
            await self.apply(prepared)
            log.info("reloaded", applied=len(report.applied), restart_needed=",".join(report.restart_needed))
            return report

    async def apply(self, prepared: Prepared) -> None:
        """Take a configuration over, but for its listeners."""
        assert self.connections is not None
        config, server = prepared.config, self.server
        self.tls.use(prepared.certificates)
        self.config = server.config = config
        log_setup.set_level(config.section("general").loglevel)
        self.connections.limits = config.section("limits")
        server.throttle.limits = config.section("limits")
        domains: tuple[str, ...] = config.section("general").hosts
        for domain in list(server.hosts):
            if domain not in domains:
                await server.remove_host(domain)
        for domain in domains:
            host = server.hosts.get(domain)
            if host is None:
                await server.add_host(domain)
            else:
                await server.reload_host(host)
                await reload_modules(host, ALL)


def prepare(config: Config) -> Prepared:
    """Read what the configuration refers to. Raises :class:`ConfigError`."""
    try:
        return Prepared(config, read_certificates(config))
    except TlsError as error:  # replaced since the file was checked
        raise ConfigError([config.problem(("tls",), "certificate", str(error))]) from None


async def _feed_watchdog() -> None:
    """Tell the service manager that the loop turns, as often as it wants to hear it."""
    interval = sdnotify.watchdog_interval()
    if interval is None:
        return
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            sdnotify.tell("WATCHDOG=1")
            await asyncio.sleep(interval)


def _tune_garbage_collection() -> None:
    """Collect seldom: sessions live long, and stanzas form no cycles. What start-up made is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

"""The process of a node that has several workers: it serves nobody, and sees to it that they do.

It binds the ports and the control socket, on which all workers accept, starts a worker anew that dies or does not answer any
more, and is the one to whom the service manager talks. Storage and streams are none of its business, so that there is
little that could go wrong in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from monktalk.common import logging as log_setup
from monktalk.common import sdnotify
from monktalk.common.config import Config, ConfigError, read_text
from monktalk.common.logging import get_logger
from monktalk.xmpp import configuration
from monktalk.xmpp.admin import control
from monktalk.xmpp.net.readiness import DRAINING, READY, STARTING, STOPPING, ReadinessEndpoint
from monktalk.xmpp.supervisor.channel import Message, as_file, short
from monktalk.xmpp.supervisor.process import WorkerProcess
from monktalk.xmpp.supervisor.sockets import NodeSockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Iterator, Sequence
    from pathlib import Path

    from monktalk.xmpp.configuration import ReloadReport

log = get_logger(__name__)

STEADY_SECONDS: Final = 30.0
"""A worker that has served for so long is started at once when it dies."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
_LOADING_SECONDS = 60.0
_CHECK_SECONDS = 20.0
_APPLY_SECONDS = 60.0


class StartFailed(Exception):
    """The node could not begin to serve; the message says why."""


class ReloadRefused(Exception):
    """A worker does not take the new configuration; the message says which and why."""


def worker_count(config: Config) -> int:
    """How many workers the configuration asks for."""
    count: int = config.section("cluster").workers
    return count or len(os.sched_getaffinity(0))


def pause(deaths: int) -> float:
    """Seconds to wait before a worker is started that has died so often in a row."""
    return 0.0 if deaths <= 1 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (deaths - 2))


class Supervisor:
    """One node. ``text`` is what the file ``path`` had when ``config`` was read from it."""

    def __init__(self, path: Path, text: str, config: Config, ready_file: Path | None = None) -> None:
        self.path = path
        self.config = config
        self.draining = False
        self.readiness = ReadinessEndpoint(lambda: self.state)
        self._text = text
        self._started_with = config
        self._count = worker_count(config)
        self._ready_file = ready_file
        self._sockets = NodeSockets()
        self._control: socket.socket | None = None
        self._control_inode: tuple[int, int] | None = None
        self._workers: dict[int, WorkerProcess] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reloading = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._failure = ""
        self._started = False
        interval = sdnotify.watchdog_interval()
        self._patience = 2 * interval if interval is not None else None

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or :meth:`stop`. SIGHUP reloads.

        Raises OSError when a port can't be had, and :class:`StartFailed` when a worker can't be started at the beginning.
        """
        loop = asyncio.get_running_loop()
        for stopping in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stopping, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_by_signal()))
        try:
            await self._open()
            for number in range(1, self._count + 1):
                self._spawn(self._keep(number), vital=True)
            if self._patience is not None:
                self._spawn(self._watch(self._patience), vital=True)
            await self._stopping.wait()
        finally:
            sdnotify.tell("STOPPING=1")
            await self._shut_down()
        if self._failure:
            raise StartFailed(self._failure)

    async def _open(self) -> None:
        general = self.config.section("general")
        await self.readiness.change(self.config.section("readiness"))
        self._sockets.open(self.config.sections("listen", "c2s"), sdnotify.inherited_sockets())
        self._control = control.bind(general.control_socket)
        self._control_inode = control.inode(general.control_socket)
        log.info("supervising", workers=self._count, pid=os.getpid())
        if self.config.section("cluster").bus == "none":
            log.warning("no_bus", reason="users at different workers do not reach each other: set [cluster] bus")

    def stop(self) -> None:
        """Ask :meth:`run` to end."""
        self._stopping.set()

    async def _shut_down(self) -> None:
        log.info("stopping")
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        workers = [worker for worker in self._workers.values() if worker.running]
        for worker in workers:
            worker.terminate()
        if workers:
            endings = [worker.ended for worker in workers]
            await asyncio.wait(endings, timeout=self.config.section("cluster").stop_time)
            for worker in workers:
                if worker.running:
                    log.error("worker_killed", worker=worker.number, reason="it does not stop")
                    worker.kill()
            await asyncio.wait(endings)
        self._sockets.close()
        self.readiness.close()
        if self._control is not None:
            self._control.close()
            path = self._started_with.section("general").control_socket
            if control.inode(path) == self._control_inode:
                path.unlink()
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)

    def _spawn(self, work: Coroutine[Any, Any, None], *, vital: bool = False) -> None:
        """Run it as a task; without a ``vital`` one there is no supervising."""

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.error("task_failed", exc_info=task.exception())
                if vital:
                    self._failure = "a fault in the supervisor, see the log"
                    self.stop()

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(over)

    # -- workers -------------------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """See to it that there is a worker of that number."""
        deaths = 0
        while True:
            async with self._reloading:  # a worker begins with the configuration before a reload, or after it
                try:
                    worker = self._begin(number)
                except OSError as error:
                    worker, reason = None, str(error)
            if worker is not None:
                reason = _reason(await asyncio.shield(worker.ended))
                self._report()
            if worker is not None and worker.ready_at:
                log.error("worker_died", worker=number, pid=worker.pid, reason=reason)
                steady = asyncio.get_running_loop().time() - worker.ready_at >= STEADY_SECONDS
            else:
                log.error("worker_not_ready", worker=number, reason=reason)
                steady = False
                if not self._started:
                    self._failure = f"worker {number} did not get ready: {reason}; the log says why"
                    self.stop()
                    return
            deaths = 1 if steady else deaths + 1
            await asyncio.sleep(pause(deaths))

    def _begin(self, number: int) -> WorkerProcess:
        assert self._control is not None
        worker = self._workers[number] = WorkerProcess(number, self.path, self._asked)
        with _file(self._text) as text:
            descriptors = [text, self._control.fileno(), *self._sockets.descriptors]
            heartbeat = self._patience / 4 if self._patience is not None else None
            worker.channel.send("start", descriptors, heartbeat=heartbeat, draining=self.draining)
        return worker

    def _asked(self, worker: WorkerProcess, message: Message) -> None:
        """A worker has said something that is not an answer."""
        match message["type"]:
            case "ready":
                log.info("worker_ready", worker=worker.number, pid=worker.pid)
                self._report()
            case "drain":
                self.drain()
            case "undrain":
                self.undrain()
            case "reload":
                self._spawn(self._reload_for(worker, message["id"]))

    @property
    def _ready(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers.values() if worker.ready]

    @property
    def state(self) -> str:
        """What the readiness endpoint answers."""
        if self._stopping.is_set():
            return STOPPING
        if len(self._ready) < self._count:
            return STARTING
        return DRAINING if self.draining else READY

    def _report(self) -> None:
        """Tell everybody who waits for it how many serve."""
        if self._stopping.is_set():
            return
        complete = len(self._ready) == self._count
        if complete and not self._started:
            self._started = True
            log.info("ready", workers=self._count, pid=os.getpid())
            sdnotify.tell("READY=1")
        sdnotify.tell(f"STATUS={self._summary()}")
        if complete and self._ready_file is not None:
            listeners = [{"kind": "c2s", "address": address, "port": port} for address, port in self._sockets.places]
            configuration.write_facts(
                self._ready_file,
                {
                    "pid": os.getpid(),
                    "workers": [worker.pid for _, worker in sorted(self._workers.items())],
                    "listeners": listeners,
                    "readiness_port": self.readiness.port,
                    "control_socket": str(self._started_with.section("general").control_socket),
                },
            )

    def _summary(self) -> str:
        verb = "draining" if self.draining else "serving"
        hosts = len(self.config.section("general").hosts)
        return f"{len(self._ready)} of {self._count} workers {verb} {hosts} host{'' if hosts == 1 else 's'}"

    def drain(self) -> None:
        """Have load balancers send new connections elsewhere; those that come all the same are served."""
        if self.draining:
            return
        self.draining = True
        log.info("draining")
        for worker in self._workers.values():
            worker.channel.send("drain")
        self._report()

    def undrain(self) -> None:
        """Have load balancers send new connections here again."""
        if not self.draining:
            return
        self.draining = False
        log.info("draining_ended")
        for worker in self._workers.values():
            worker.channel.send("undrain")
        self._report()

    async def _watch(self, patience: float) -> None:
        """Kill who has not been heard of for ``patience`` seconds; the service manager hears from us meanwhile.

        A worker that is being loaded can't say anything yet, and gets more time.
        When a worker does not even die of that, the manager hears nothing any more, and does what it does then.
        """
        loop = asyncio.get_running_loop()
        interval = patience / 4
        looked = loop.time()
        while True:
            now = loop.time()
            running = [worker for worker in self._workers.values() if worker.running]
            if now - looked > 2 * interval:  # it is us who were away: what they said has to be read first
                for worker in running:
                    worker.heard = now
            silent = [
                worker
                for worker in running
                if now - worker.heard > (patience if worker.speaks else max(patience, _LOADING_SECONDS))
            ]
            for worker in silent:
                log.error("worker_killed", worker=worker.number, pid=worker.pid, reason="it does not answer")
                worker.kill()
            if not silent:
                sdnotify.tell("WATCHDOG=1")
            looked = loop.time()
            await asyncio.sleep(interval)

    # -- reload --------------------------------------------------------------------------------------------------

    async def _reload_by_signal(self) -> None:
        sdnotify.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            await self.reload()
        except (ConfigError, OSError, ReloadRefused) as error:
            lines = str(error).splitlines() or [repr(error)]
            for line in lines:
                log.error("reload_refused", reason=line)
            sdnotify.tell("READY=1", f"STATUS={self._summary()}; the last reload was refused: {lines[0]}")
        else:
            sdnotify.tell("READY=1", f"STATUS={self._summary()}")

    async def _reload_for(self, worker: WorkerProcess, number: int) -> None:
        """Reload since somebody has asked a worker to."""
        try:
            report = await self.reload()
        except (ConfigError, OSError, ReloadRefused) as error:
            worker.channel.send("reloaded", id=number, error=short(str(error) or repr(error)))
            return
        worker.channel.send(
            "reloaded", id=number, error="", applied=report.applied, restart_needed=report.restart_needed
        )

    async def reload(self) -> ReloadReport:
        """Read the file again and have all workers take it over, or none of them.

        A worker that dies meanwhile comes back with the new one. Raises ConfigError, OSError for a port that can't be had,
        and :class:`ReloadRefused`; then nothing has changed, unless the message says so.
        """
        async with self._reloading:
            text, config = await asyncio.to_thread(self._read)
            report = configuration.changes(self._started_with, self.config, config)
            await self._all_settled()
            readiness = await self.readiness.open(config.section("readiness"))
            sockets = None
            try:
                sockets = self._sockets.change(config.sections("listen", "c2s"))
                await self._all_check(text, sockets)
            except BaseException:
                if readiness is not None:
                    readiness.close()
                if sockets is not None:
                    sockets.let_go(of=self._sockets)
                raise
            old, self._sockets = self._sockets, sockets
            self._text, self.config = text, config
            self.readiness.use(config.section("readiness"), readiness)
            log_setup.set_level(config.section("general").loglevel)
            failed = await self._all_apply()
            old.let_go(of=sockets)
            self._report()
            if failed:
                raise ReloadRefused("\n".join(failed))
            log.info("reloaded", applied=len(report.applied), restart_needed=",".join(report.restart_needed))
            return report

    def _read(self) -> tuple[str, Config]:
        text = read_text(self.path)
        return text, configuration.parse(text, self.path)

    async def _all_settled(self) -> None:
        """Wait for workers that are being started: they have read the configuration already."""
        starting = [worker for worker in self._workers.values() if not worker.settled.is_set()]
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                for worker in starting:
                    await worker.settled.wait()
        except TimeoutError:
            raise ReloadRefused("Workers are being started; try again.") from None

    async def _all_check(self, text: str, sockets: NodeSockets) -> None:
        """Give the configuration to all workers. Raises :class:`ReloadRefused` when one can't use it."""
        workers = [worker for worker in self._workers.values() if worker.running]
        with _file(text) as file:
            failed = await self._ask(workers, "check", [file, *sockets.descriptors], _CHECK_SECONDS)
        if failed:
            for worker in workers:
                worker.channel.send("forget")
            raise ReloadRefused("\n".join(f"Worker {number}: {reason}" for number, reason in failed.items()))

    async def _all_apply(self) -> list[str]:
        """Have it taken over; returns what went wrong, which is a fault in the program."""
        workers = [worker for worker in self._workers.values() if worker.running]
        failed = await self._ask(workers, "apply", (), _APPLY_SECONDS)
        return [
            f"Worker {number} has taken over a part of the new configuration only, reload again: {reason}"
            for number, reason in failed.items()
        ]

    @staticmethod
    async def _ask(
        workers: Sequence[WorkerProcess], kind: str, descriptors: Sequence[int], seconds: float
    ) -> dict[int, str]:
        """The reasons of those that could not do it, by their numbers."""

        async def ask(worker: WorkerProcess) -> str:
            try:
                return await worker.ask(kind, descriptors, seconds=seconds)
            except TimeoutError:
                return f"no answer within {seconds:g} s"

        answers = await asyncio.gather(*map(ask, workers))
        return {worker.number: answer for worker, answer in zip(workers, answers, strict=True) if answer}


@contextlib.contextmanager
def _file(text: str) -> Iterator[int]:
    descriptor = as_file(text)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reason(status: int) -> str:
    """What an exit status of a child says."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"

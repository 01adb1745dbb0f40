"""A worker: the server process as one of several. What it shares with the others it has from the supervisor."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import TYPE_CHECKING, Any

from monktalk.common import logging as log_setup
from monktalk.common.config import ConfigError
from monktalk.common.logging import get_logger
from monktalk.xmpp import configuration
from monktalk.xmpp.admin.registry import CommandError
from monktalk.xmpp.configuration import ReloadReport
from monktalk.xmpp.program import Prepared, Program, prepare
from monktalk.xmpp.supervisor.channel import Channel, Message, from_file, short

if TYPE_CHECKING:
    from pathlib import Path

    from monktalk.common.config import Config
    from monktalk.xmpp.net.ports import Ports

log = get_logger(__name__)


class Link:
    """The worker's end of the channel, before there is a worker and then for it."""

    def __init__(self, descriptor: int) -> None:
        self.gone = False
        self._worker: Worker | None = None
        self._early: list[tuple[Message, list[int]]] = []
        self.start: asyncio.Future[tuple[Message, list[int]]] = asyncio.get_running_loop().create_future()
        self.channel = Channel(socket.socket(fileno=descriptor), self._received, self._ended)

    def _received(self, message: Message, descriptors: list[int]) -> None:
        if self._worker is not None:
            self._worker.received(message, descriptors)
        elif not self.start.done():
            self.start.set_result((message, descriptors))
        else:
            self._early.append((message, descriptors))

    def _ended(self) -> None:
        """The supervisor is gone: nobody would see to it that this worker stops, or starts again."""
        self.gone = True
        if self._worker is not None:
            log.error("supervisor_gone")
            self._worker.stop()
        elif not self.start.done():
            self.start.set_exception(ConnectionResetError("the supervisor has ended"))

    def serve(self, worker: Worker) -> None:
        """Hand everything to the worker from now on."""
        self._worker = worker
        for message, descriptors in self._early:
            worker.received(message, descriptors)
        if self.gone:
            worker.stop()


async def run(path: Path, number: int, descriptor: int) -> None:
    """Be worker ``number`` until the supervisor at the other end of ``descriptor`` says that it is enough, or ends.

    Raises what :meth:`Program.run` raises, and ConfigError.
    """
    link = Link(descriptor)
    message, descriptors = await link.start
    config = configuration.parse(from_file(descriptors[0]), path)
    general = config.section("general")
    log_setup.configure(general.loglevel, file=general.log_file)
    log_setup.set_level("warning", "alembic")
    sockets = [socket.socket(fileno=each) for each in descriptors[1:]]
    worker = Worker(path, config, number, link.channel, sockets)
    worker.draining = message["draining"]
    link.serve(worker)
    if message["heartbeat"] is not None:
        worker.beat(message["heartbeat"])
    await worker.run()


class Worker(Program):
    """One worker. ``sockets`` are the control socket, and those of the listeners in the order of the configuration."""

    def __init__(self, path: Path, config: Config, number: int, channel: Channel, sockets: list[socket.socket]) -> None:
        super().__init__(path, config, worker=number)
        self._channel = channel
        self._sockets = sockets
        self._checked: tuple[Prepared, list[socket.socket]] | None = None
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._serial = itertools.count(1)

    # -- what is different in a worker ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything but what the supervisor has."""
        await self.serve()

    async def listen(self, ports: Ports) -> None:
        """Accept from the sockets that all workers of the node share."""
        control, *sockets = self._sockets
        await ports.adopt(self.config.sections("listen", "c2s"), sockets)
        await self.control.start(self.config.section("general").control_socket, control)

    def report_ready(self) -> None:
        """Tell the supervisor."""
        self._channel.send("ready")

    async def reload_by_signal(self) -> None:
        """A signal to all processes of the unit: the supervisor has it too, and will say what to do."""

    async def drain(self) -> None:
        """Drain the node, which is more than this worker."""
        self._channel.send("drain")

    async def undrain(self) -> None:
        """Have load balancers send new connections to the node again."""
        self._channel.send("undrain")

    async def reload(self) -> ReloadReport:
        """Have the supervisor reload the node. Raises :class:`CommandError` when the configuration is refused."""
        number = next(self._serial)
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            self._channel.send("reload", id=number)
            found = await answer
        finally:
            del self._asked[number]
        if found["error"]:
            raise CommandError(found["error"])
        return ReloadReport(found["applied"], found["restart_needed"])

    # -- what the supervisor says --------------------------------------------------------------------------------

    def beat(self, interval: float) -> None:
        """Let the supervisor know every ``interval`` seconds that the loop turns."""
        self._channel.send("heartbeat")
        asyncio.get_running_loop().call_later(interval, self.beat, interval)

    def received(self, message: Message, descriptors: list[int]) -> None:
        """Do what the supervisor says."""
        match message["type"]:
            case "check":
                self._answer(message, self._check(from_file(descriptors[0]), descriptors[1:]))
            case "forget":
                self._forget()
            case "apply":
                self._taking_over = self.server.spawn(self._take_over(message))
            case "drain" | "undrain" as kind:
                self.draining = kind == "drain"
            case "reloaded":
                answer = self._asked.get(message["id"])
                if answer is not None and not answer.done():
                    answer.set_result(message)

    def _answer(self, message: Message, error: str) -> None:
        self._channel.send("done", id=message["id"], error=short(error))

    def _check(self, text: str, descriptors: list[int]) -> str:
        """Get everything ready that the configuration needs; returns why it can't be used, or nothing."""
        self._forget()
        sockets = [socket.socket(fileno=each) for each in descriptors]
        try:
            prepared = prepare(configuration.parse(text, self.path))
        except (ConfigError, OSError) as error:
            _close(sockets)
            return str(error)
        self._checked = prepared, sockets
        return ""

    def _forget(self) -> None:
        if self._checked is not None:
            _close(self._checked[1])
            self._checked = None

    async def _take_over(self, message: Message) -> None:
        """Take over what was checked."""
        error = ""
        try:
            async with self._reloading:
                await self._use()
        except Exception as failure:
            log.exception("reload_failed")
            error = str(failure) or repr(failure)
        self._answer(message, error)

    async def _use(self) -> None:
        assert self.ports is not None
        assert self._checked is not None
        (prepared, sockets), self._checked = self._checked, None
        await self.ports.adopt(prepared.config.sections("listen", "c2s"), sockets)
        await self.apply(prepared)
        log.info("reloaded", worker=self.worker)


def _close(sockets: list[Any]) -> None:
    for sock in sockets:
        sock.close()

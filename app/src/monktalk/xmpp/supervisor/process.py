"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from monktalk.xmpp.supervisor.channel import Channel, Message, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_NOT_FOR_WORKERS: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
)
"""The service manager deals with the supervisor alone."""


class WorkerProcess:
    """A worker from its start to its end.

    ``ended`` gives the exit status, ``settled`` is set once it is ready or has ended, ``heard`` is when it last said
    something (of the loop's clock), ``speaks`` whether it has said anything yet. What it asks for goes to ``asked``.
    """

    def __init__(self, number: int, path: Path, asked: Callable[[WorkerProcess, Message], None]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.ready = False
        self.ready_at = 0.0
        self.settled = asyncio.Event()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.speaks = False
        self.heard = loop.time()
        self._asked = asked
        self._serial = itertools.count(1)
        self._answers: dict[int, asyncio.Future[str]] = {}  # "" for what was done, or else why it was not
        ours, theirs = pair()
        self._process = _spawn(number, path, theirs.fileno())
        theirs.close()
        self.channel = Channel(ours, self._received, lambda: None)
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.done()

    def _reap(self) -> None:
        status = self._process.wait()
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.channel.close()
        self.ready = False
        self.ended.set_result(status)
        self.settled.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result("")

    def _received(self, message: Message, descriptors: list[int]) -> None:
        loop = asyncio.get_running_loop()
        self.speaks, self.heard = True, loop.time()
        for descriptor in descriptors:  # workers have no reason to send any
            os.close(descriptor)
        kind = message.get("type")
        if kind == "ready":
            self.ready, self.ready_at = True, loop.time()
            self.settled.set()
        if kind == "done":
            answer = self._answers.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(message["error"])
        elif kind != "heartbeat":
            self._asked(self, message)

    async def ask(self, kind: str, descriptors: Sequence[int] = (), *, seconds: float, **fields: Any) -> str:
        """Have it do something; returns why it could not, or nothing. Nothing, too, when it ends meanwhile.

        Raises TimeoutError.
        """
        if not self.running:
            return ""
        number = next(self._serial)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self.channel.send(kind, descriptors, id=number, **fields)
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._answers[number]

    def terminate(self) -> None:
        """Ask it to end. One that is stopped (SIGSTOP) has to go on to do that."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def _spawn(number: int, path: Path, channel: int) -> subprocess.Popen[bytes]:
    """Start the program as a worker. Raises OSError."""
    command = [sys.executable, "-m", "monktalk.xmpp", "--config", str(path)]
    return subprocess.Popen(  # noqa: S603 - this very program
        [*command, "--worker", str(number), "--channel", str(channel)],
        stdin=subprocess.DEVNULL,
        pass_fds=[channel],
        env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS},
    )

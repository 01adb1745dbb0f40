"""A server as a child process: its own session, one core, a log file, and an end that leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from bench import procfs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class ServerError(Exception):
    """A server cannot be started or used; the text says which, and where to look."""


def raise_file_limit() -> int:
    """Allow this process and its children as many open files as the system lets us; returns the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Child:
    """One started program with everything that it starts itself."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        cores: set[int],
        user: str | None = None,
    ) -> None:
        """Start `arguments` in `folder` on `cores`, output appended to `log`, as `user` if one is named.

        Raises:
            ServerError: the program cannot be executed.
        """
        self.log = log
        own_cores = os.sched_getaffinity(0)
        # Children inherit the affinity: set it around the start, so that no line of the child runs elsewhere.
        os.sched_setaffinity(0, cores)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    arguments,
                    env=dict(environment),
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=user,
                    group=user,
                    extra_groups=None if user is None else [],
                )
        except OSError as error:
            raise ServerError(f"{arguments[0]} cannot be started: {error}") from error
        finally:
            os.sched_setaffinity(0, own_cores)

    @property
    def pid(self) -> int:
        """The id of the started process, which is also that of its session."""
        return int(self._process.pid)

    def running(self) -> bool:
        """Whether the started process is still there."""
        return self._process.poll() is None

    def wait(self, patience: float) -> int | None:
        """The exit status once the process has ended by itself; None when it has not after `patience` seconds."""
        try:
            return int(self._process.wait(patience))
        except subprocess.TimeoutExpired:
            return None

    def tree(self) -> list[procfs.ProcessInfo]:
        """The process and its descendants; once it has ended, what it left behind in its session."""
        if self.running():
            return procfs.tree(self.pid)
        return [process for process in procfs.all_processes() if process.session == self.pid]

    def last_lines(self, count: int = 8) -> str:
        """The end of the log, for an error message."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join("    " + line[:300] for line in lines[-count:])

    def stop(self, patience: float = 10.0) -> None:
        """End the process and all its descendants: SIGTERM first, SIGKILL to what is left after `patience`."""
        members = {process.pid: process.started for process in self.tree()}
        if self.running():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        members.update((process.pid, process.started) for process in self.tree())
        if not self.running():
            self._wait_gone(members, 2.0)
        for pid in self._alive(members):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait_gone(members, patience)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)

    def _wait_gone(self, members: Mapping[int, int], patience: float) -> None:
        deadline = time.monotonic() + patience
        while self._alive(members) and time.monotonic() < deadline:
            time.sleep(0.05)

    @staticmethod
    def _alive(members: Mapping[int, int]) -> list[int]:
        """Those that still exist; the start time tells a process from a later one with the same id."""
        return [
            pid
            for pid, started in members.items()
            # One that has ended may wait for its parent to take note; there is nothing left to end.
            if (info := procfs.read_process(pid)) is not None and info.started == started and info.state != "Z"
        ]

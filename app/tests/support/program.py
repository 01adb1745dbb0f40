"""A program under test as a child process: its life, its log, and what it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

START_TIME = 30.0
STOP_TIME = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")


def wait_until(condition: Callable[[], bool], what: str, timeout: float = START_TIME) -> None:
    """Poll until the condition holds; fail with ``what`` when it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(0.02)


class Program:
    """One child process, in a process group of its own, with its output in a file."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, *, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, ready: Callable[[], bool]) -> None:
        """Start the program and wait until ``ready``; fail with its log when it ends before."""
        beginning = self.log_size()
        self.begin()
        self.await_ready(ready, beginning)

    def begin(self) -> None:
        """Start the program."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )

    def await_ready(self, ready: Callable[[], bool], beginning: int = 0) -> None:
        """Wait until the started program is ``ready``; fail with its log from ``beginning`` on when it ends before."""

        def ready_or_ended() -> bool:
            return not self.running or ready()

        try:
            wait_until(ready_or_ended, f"{self.name} has started")
        except AssertionError:
            self.kill()
            raise AssertionError(f"{self.name} did not get ready:\n{self.log_text(beginning)}") from None
        if not self.running:
            assert self._process is not None
            raise AssertionError(f"{self.name} ended with {self._process.returncode}:\n{self.log_text(beginning)}")

    def run(self) -> None:
        """Run the program to its end; fail with its log unless its exit status is 0."""
        with self.log.open("ab") as output:
            status = subprocess.run(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                check=False,
            ).returncode
        if status != 0:
            raise AssertionError(f"{self.name} ended with {status}:\n{self.log_text()}")

    def stop(self) -> int:
        """Ask the program to end and return its exit status; a program that does not obey is killed."""
        if self._process is None:
            return 0
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIME)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not stop:\n{self.log_text()[-4000:]}") from None
        return self._process.returncode

    def kill(self) -> None:
        """End the program and its children at once, as a crash does."""
        if self._process is not None and self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def log_size(self) -> int:
        """How long the log is now."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_text(self, start: int = 0) -> str:
        """The log from an offset on."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def rss(self) -> int:
        """Resident memory of the process, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} has no memory: has it ended?")

    def cpu_seconds(self) -> float:
        """CPU time that the process has used, of its own and of the kernel on its behalf."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def open_files(self) -> int:
        """How many file descriptors the process holds."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

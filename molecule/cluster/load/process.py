"""The load as a child process, for those who make the faults: they wait for other things meanwhile."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

_PACKAGES = Path(__file__).resolve().parents[1]
_APPLICATION = Path(__file__).resolve().parents[3] / "app"


class LoadError(Exception):
    """The load did not do what it was told; says why."""


class LoadProcess:
    """Runs `python -m load --control`; see `load.control` for what can be said to it."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        """Start it.

        Args:
            arguments: of the command line, without `--control`.
            log: where its standard error goes.
        """
        self._log = log
        path = os.pathsep.join([str(_PACKAGES), str(_APPLICATION)])
        with log.open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - this Python
                [sys.executable, "-m", "load", "--control", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(os.environ, PYTHONPATH=path),
                bufsize=0,
            )
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def come(self, seconds: float = 120) -> None:
        """Let everybody log in and befriend."""
        self._do("come", seconds, steps=4)

    def start(self) -> None:
        """Begin a round."""
        self._do("start")

    def fault(self, name: str, touched: Iterable[str] | None) -> None:
        """Say what is about to happen, and to the streams of which users."""
        self._do("fault", name=name, touched=None if touched is None else sorted(touched))

    def online(self) -> list[str]:
        """The full addresses of the clients that are online."""
        return list(self._do("status")["online"])

    def settle(self, seconds: float = 60) -> dict[str, Any]:
        """End the round; returns the report, as `load.round.Report.as_json` gives it."""
        return dict(self._do("settle", seconds, steps=6)["report"])

    def leave(self, seconds: float = 10) -> None:
        """Let everybody log out, and end the program."""
        self._do("leave", seconds)
        self._process.wait(seconds)

    def close(self) -> None:
        """End the program, in whatever state it is."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _do(self, command: str, seconds: float = 30, steps: int = 1, **words: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": command, "seconds": seconds, **words}).encode() + b"\n")
        except BrokenPipeError:
            raise LoadError(f"the load has ended; {self._log} may say why") from None
        answer = json.loads(self._answer(command, steps * seconds + 30))
        if "error" in answer:
            raise LoadError(f"{command}: {answer['error']}")
        return dict(answer)

    def _answer(self, command: str, seconds: float) -> bytes:
        output = self._process.stdout
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(seconds):
                    raise LoadError(f"{command}: no answer within {seconds:.0f} s")
                data = os.read(output.fileno(), 65536)
                if not data:
                    raise LoadError(f"{command}: the load has ended; {self._log} may say why")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

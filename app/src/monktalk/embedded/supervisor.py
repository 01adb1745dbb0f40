"""Starts the programs of an embedded run as child processes, waits until they answer, and stops them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from monktalk.embedded.environment import Environment
    from monktalk.embedded.files import Files

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
_LOG_LINES = 15


class ChildFailed(Exception):
    """A program has ended by itself, or does not answer; the message shows the end of its log."""


class Interrupted(Exception):
    """The user wants to stop while the programs are being started."""


class Child:
    """One program, in a process group of its own so that Ctrl-C reaches this process alone."""

    def __init__(self, name: str, command: list[str], log: Path, variables: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(variables or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises :class:`ChildFailed` when the program has ended."""
        code = self._process.poll()
        if code is not None:
            raise ChildFailed(f"{self.name} has ended with code {code}. The end of {self.log}:\n{_tail(self.log)}")

    def terminate(self) -> None:
        """Ask the program to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until it has ended, but not for ever. Whatever it has left behind in its process group is killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Supervisor:
    """The authentication service and the XMPP server of one embedded run, until ``stop_requested`` says True."""

    def __init__(self, environment: Environment, files: Files, stop_requested: Callable[[], bool]) -> None:
        self._environment = environment
        self._files = files
        self._stop_requested = stop_requested
        self._children: list[Child] = []

    def start(self) -> list[int]:
        """Start both programs and return the ports for clients once everything answers.

        Raises :class:`ChildFailed`, and :class:`Interrupted` when it is to stop before that.
        """
        files = self._files
        python = sys.executable
        gunicorn = [
            python,
            "-m",
            "gunicorn",
            "-c",
            "python:monktalk.auth.gunicorn_conf",
            "monktalk.auth.app:create_app()",
        ]
        variables = {"MONKTALK_AUTH_CONFIG": str(files.auth_configuration)}
        auth = Child("the authentication service", gunicorn, files.auth_log, variables)
        self._children.append(auth)
        command = [python, "-m", "monktalk.xmpp", "--config", str(files.xmpp_configuration)]
        xmpp = Child("the XMPP server", [*command, "--ready-file", str(files.ready)], files.xmpp_log)
        self._children.append(xmpp)
        self._wait_for(auth, self._auth_answers)
        self._wait_for(xmpp, files.ready.exists)
        facts = json.loads(files.ready.read_text("utf-8"))
        return [listener["port"] for listener in facts["listeners"]]

    def _wait_for(self, child: Child, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers():
            if self._stop_requested():
                raise Interrupted
            for each in self._children:
                each.check()
            if time.monotonic() > deadline:
                raise ChildFailed(f"{child.name} does not answer. The end of {child.log}:\n{_tail(child.log)}")
            time.sleep(_POLL_SECONDS)

    def _auth_answers(self) -> bool:
        password = self._files.auth_password.read_text("utf-8").strip()
        credentials = base64.b64encode(f"xmpp:{password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._environment.auth_port}/authorize/user_exists"
            f"?user=nobody&server={self._environment.domain}&pass=",
            headers={"Authorization": f"Basic {credentials}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 - see above
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            return error.code == 404
        except OSError:
            return False

    def watch(self) -> None:
        """Return when it is to stop. Raises :class:`ChildFailed` when a program ends by itself."""
        while not self._stop_requested():
            for child in self._children:
                child.check()
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop both, the XMPP server first, so that nobody is refused for want of the other."""
        for child in reversed(self._children):
            child.terminate()
            child.wait()
        self._children.clear()


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])

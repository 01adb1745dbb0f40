"""``python -m monktalk.xmpp``, as a service manager and an operator run it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.client import Client
from tests.support.program import Program, wait_until
from tests.support.stack import free_port
from tests.support.wire import Wire

LOOPBACK, HOST = "127.0.0.1", "one.example"
COMMAND = (sys.executable, "-m", "monktalk.xmpp")


class Setting:
    """A configuration file in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "mongooseim.toml"
        self.control = directory / "control.sock"
        self.ready = directory / "ready.json"
        self.certificate, self.key = make_certificate(directory, "server", [HOST])
        self.configure(port=0)

    def configure(self, more: str = "", *, port: int) -> None:
        """Write the configuration file."""
        self.file.write_text(
            f"[general]\nhosts = ['{HOST}']\ncontrol_socket = '{self.control}'\n"
            f"[database]\nurl = 'memory:'\n[[listen.c2s]]\naddress = '{LOOPBACK}'\nport = {port}\n"
            f"[tls]\ncertificate = '{self.certificate}'\nkey = '{self.key}'\n{more}"
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting(tmp_path)


@pytest.fixture
def start(setting) -> Iterator[Callable[..., Program]]:
    """Start the program and wait until it is ready."""
    started: list[Program] = []

    def start(*prefix: str, **environment: str) -> Program:
        arguments = ["--config", str(setting.file), "--ready-file", str(setting.ready)]
        program = Program("server", [*(prefix or COMMAND), *arguments], setting.directory / "log", env=environment)
        started.append(program)
        program.start(setting.ready.exists)
        return program

    yield start
    for program in started:
        program.kill()


def port_of(setting: Setting) -> int:
    port: int = json.loads(setting.ready.read_text())["listeners"][0]["port"]
    return port


async def features(port: int) -> list[str]:
    """What a client on that port is offered."""
    client = Client(await Wire.connect(LOOPBACK, port), HOST)
    offered = await client.open_stream()
    await client.wire.close()
    return [node.tag.rpartition("}")[2] for node in offered]


# -- --check -----------------------------------------------------------------------------------------------------------


def test_a_file_in_order_passes_without_a_word(setting):
    done = setting.run("--check", "--config", str(setting.file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not setting.control.exists()


def test_mistakes_are_listed_with_file_and_line(setting):
    setting.configure("[limits]\nrat = 1\n[modules.pong]\n", port=0)
    done = setting.run("--check", "--config", str(setting.file))
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{setting.file}:13: limits.rat: ")
    assert second.startswith(f"{setting.file}:14: modules.pong: ")


def test_the_file_may_be_named_by_the_environment(setting):
    assert setting.run("--check", MONGOOSEIM_CONFIG=str(setting.file)).returncode == 0
    nowhere = setting.directory / "nowhere.toml"
    done = setting.run("--check", MONGOOSEIM_CONFIG=str(nowhere))
    assert (done.returncode, done.stderr) == (1, f"{nowhere}: cannot be read: No such file or directory\n")


# -- run ---------------------------------------------------------------------------------------------------------------


async def test_it_serves_reloads_and_stops(setting, start):
    program = start()
    assert await features(port_of(setting)) == ["starttls", "limits"]
    setting.configure("[limits]\nrat = 1\n", port=0)
    os.kill(program.pid, signal.SIGHUP)
    await_log(program, "reload_refused")
    setting.configure("[limits]\nrate = 1000\n", port=0)
    os.kill(program.pid, signal.SIGHUP)
    await_log(program, "applied=2")
    assert program.stop() == 0
    assert not setting.ready.exists()
    assert not setting.control.exists()
    assert "Traceback" not in program.log_text()


def await_log(program: Program, text: str) -> None:
    wait_until(lambda: text in program.log_text(), f"{text} is logged")


@pytest.mark.parametrize("what", ["port", "control socket"])
def test_what_is_in_use_is_told_in_one_line(setting, what):
    with socket.socket() as taken, socket.socket(socket.AF_UNIX) as control:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        if what == "control socket":
            control.bind(str(setting.control))
            control.listen()
        setting.configure(port=port if what == "port" else 0)
        done = setting.run("--config", str(setting.file))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if " ERROR " in line]
    wanted = f"can't listen on {LOOPBACK} port {port}" if what == "port" else "another server answers on the control"
    assert "not_started" in line
    assert wanted in line


AS_SYSTEMD_DOES = """
import os, socket, sys
port, *command = sys.argv[1:]
listening = socket.create_server(("127.0.0.1", int(port)))
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(command[0], command)
"""
"""Opens the socket as descriptor 3, says whom it is for, and becomes the program."""


async def test_it_takes_the_sockets_of_the_service_manager(setting, start):
    port = free_port()
    setting.configure(port=port)
    program = start(sys.executable, "-c", AS_SYSTEMD_DOES, str(port), *COMMAND)
    assert port_of(setting) == port
    assert await features(port) == ["starttls", "limits"]
    assert program.stop() == 0
    assert "Traceback" not in program.log_text()

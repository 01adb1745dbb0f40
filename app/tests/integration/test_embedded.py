"""`make run` as a user runs it: one command in a terminal, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.accounts import Account
from tests.support.client import Client, client_context
from tests.support.program import wait_until
from tests.support.stack import free_port
from tests.support.wire import Wire

LOOPBACK = "127.0.0.1"
SECONDS_TO_STOP = 10.0
COMMANDS = "http://jabber.org/protocol/commands"


class Run:
    """One run in a session of its own, which stands for the terminal, with its output in a file."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.data = directory / "var"
        self.output = directory / "output"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MONKTALK_")}
        usual = {
            "MONKTALK_DATA_DIR": str(self.data),
            "MONKTALK_PORT_XMPP": "0",
            "MONKTALK_PORT_AUTH": str(free_port()),
        }
        self._start = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "monktalk.embedded"],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**inherited, **usual, **variables},
                start_new_session=True,
            )

    # -- output --------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """What the run has printed."""
        return self.output.read_bytes()[self._start :].decode()

    def ready(self) -> Run:
        """Wait until it says so."""
        wait_until(lambda: self.text.endswith("\nready\n") or self._process.poll() is not None, "the run is ready")
        assert self._process.poll() is None, self.text
        return self

    @property
    def passwords(self) -> dict[str, str]:
        """The accounts that it shows."""
        return dict(re.findall(r"^ +(\S+@\S+) +password +(\S+)", self.text, re.MULTILINE))

    @property
    def port(self) -> int:
        """The port for clients that it shows."""
        found = re.search(r"XMPP +\S+, port (\d+)", self.text)
        assert found is not None, self.text
        return int(found[1])

    # -- processes -----------------------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """The processes of the run, with their command lines; all of them know the data directory."""
        mark = f"MONKTALK_DATA_DIR={self.data}\0".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has just ended, or is somebody else's
        return found

    def pid_of(self, part: str) -> int:
        """The first process that has ``part`` in its command line."""
        return min(pid for pid, command in self.processes().items() if part in command)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """What the terminal does at Ctrl-C: a signal to everybody in the foreground."""
        os.killpg(self._process.pid, number)

    def ended(self) -> int:
        """Wait for the end and return the exit code; nothing may be left of it."""
        code = self._process.wait(SECONDS_TO_STOP)
        wait_until(lambda: not self.processes(), "all processes of the run have ended", 1.0)
        return code

    def kill(self) -> None:
        """Remove what is left after a failure."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self._process.wait()

    # -- clients -------------------------------------------------------------------------------------------------

    async def login(
        self, jid: str, *, direct_tls: bool = False, clear: bool = False, address: str = LOOPBACK
    ) -> Client:
        """Log in with the password that is shown, and become available."""
        user, _, host = jid.partition("@")
        context = client_context() if direct_tls else None
        wire = await Wire.connect(address, self.port, name=user, tls=context, server_hostname=host if context else None)
        client = Client(wire, host)
        await client.open_stream()
        if not clear and not direct_tls:
            await client.starttls()
        await client.authenticate(Account(user, host, self.passwords[jid]), "PLAIN" if clear else "SCRAM-SHA-256")
        await client.bind()
        await client.available()
        return client


@pytest.fixture
def run(tmp_path) -> Iterator[Callable[..., Run]]:
    """``run(MONKTALK_DOMAIN="…")``: a run with these variables in the directory of the test."""
    runs: list[Run] = []

    def start(**variables: str) -> Run:
        runs.append(Run(tmp_path, **variables))
        return runs[-1]

    yield start
    for each in runs:
        each.kill()


# -- a run -------------------------------------------------------------------------------------------------------------


async def test_two_accounts_chat_and_everything_is_there_the_next_time(run):
    first = run().ready()
    assert list(first.passwords) == ["alice@localhost", "bob@localhost"]
    alice, bob = await first.login("alice@localhost"), await first.login("bob@localhost", direct_tls=True)
    await alice.send("<message to='bob@localhost' type='chat'><body>hello</body></message>")
    await bob.receives(f"<message from='{alice.full}' to='bob@localhost' type='chat'><body>hello</body></message>")
    await bob.send(f"<message to='{alice.full}' type='chat'><body>hi</body></message>")
    await alice.receives(f"<message from='{bob.full}' to='{alice.full}' type='chat'><body>hi</body></message>")
    await bob.end()
    await alice.send("<message to='bob@localhost' type='chat'><body>later</body></message>")
    await alice.settled()

    began = time.monotonic()
    first.interrupt()
    await alice.stream_error("system-shutdown")
    assert first.ended() == 0
    assert time.monotonic() - began < SECONDS_TO_STOP
    assert first.text.endswith("ready\nstopped\n")

    second = run().ready()
    assert second.passwords == first.passwords
    bob = await second.login("bob@localhost")
    assert (await bob.next()).findtext("{jabber:client}body") == "later"
    await bob.end()
    second.interrupt()
    assert second.ended() == 0


async def test_the_environment_names_accounts_administrator_domain_and_address(run):
    running = run(
        MONKTALK_ACCOUNTS="romeo:r:1,juliet:j",
        MONKTALK_ADMIN="friar:f",
        MONKTALK_DOMAIN="verona.example",
        MONKTALK_BIND="127.0.0.2",
        MONKTALK_TLS_REQUIRED="false",
    ).ready()
    assert running.passwords == {
        "romeo@verona.example": "r:1",
        "juliet@verona.example": "j",
        "friar@verona.example": "f",
    }
    assert re.search(r"friar@verona\.example +password +f +\(administrator\)$", running.text, re.MULTILINE)
    with pytest.raises(ConnectionRefusedError):
        await Wire.connect(LOOPBACK, running.port)
    romeo = await running.login("romeo@verona.example", clear=True, address="127.0.0.2")
    friar = await running.login("friar@verona.example", direct_tls=True, address="127.0.0.2")
    items = f"<query xmlns='http://jabber.org/protocol/disco#items' node='{COMMANDS}'/>"
    offered = [len(list((await client.get(items, to="verona.example"))[0])) for client in (romeo, friar)]
    assert offered[0] < offered[1]
    await romeo.end()
    await friar.end()
    running.interrupt()
    assert running.ended() == 0


async def test_tls_is_required_unless_the_environment_says_otherwise(run):
    running = run().ready()
    client = Client(await Wire.connect(LOOPBACK, running.port), "localhost")
    await client.open_stream()
    assert client.mechanisms == []
    await client.wire.close()
    running.interrupt()
    assert running.ended() == 0


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MONKTALK_ACCOUNTS", "romeo"),
        ("MONKTALK_ADMIN", "a:b,c:d"),
        ("MONKTALK_DOMAIN", "not a domain"),
        ("MONKTALK_BIND", "192.0.2.1"),
        ("MONKTALK_PORT_XMPP", "many"),
        ("MONKTALK_PORT_AUTH", "0"),
        ("MONKTALK_TLS_REQUIRED", "perhaps"),
    ],
)
def test_a_wrong_value_is_told_in_a_sentence(run, name, value):
    running = run(**{name: value})
    assert running.ended() == 1
    [line] = running.text.splitlines()
    assert line.startswith(f"error: {name}")
    assert not running.data.exists()


@pytest.mark.parametrize("name", ["MONKTALK_PORT_XMPP", "MONKTALK_PORT_AUTH"])
def test_a_port_in_use_is_told_in_a_sentence(run, name):
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        running = run(**{name: str(port)})
        assert running.ended() == 1
    assert running.text == (
        f"error: can't listen on {LOOPBACK} port {port}: Address already in use; set {name} to another port\n"
    )


def test_a_data_directory_that_can_not_be_made_is_told_in_a_sentence(run, tmp_path):
    (tmp_path / "file").write_text("")
    running = run(MONKTALK_DATA_DIR=str(tmp_path / "file" / "var"))
    assert running.ended() == 1
    [line] = running.text.splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path / "file") in line


def test_a_second_run_on_the_same_data_says_what_is_in_the_way(run):
    first = run().ready()
    second = run()
    assert second._process.wait(SECONDS_TO_STOP) == 1
    assert "error: the XMPP server has ended with code 1" in second.text
    assert "another server answers on the control socket" in second.text
    assert "Traceback" not in second.text
    first.interrupt()
    assert first.ended() == 0


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["terminated", "terminal closed"])
def test_other_signals_end_it_too(run, number):
    running = run().ready()
    running.interrupt(number)
    assert running.ended() == 0


def test_it_can_be_interrupted_before_it_is_ready(run):
    running = run()
    wait_until(lambda: len(running.processes()) > 1, "the first program is being started")
    running.interrupt()
    assert running.ended() == 0
    assert running.text == "stopped\n"


@pytest.mark.parametrize(
    ("part", "name", "log"),
    [
        ("monktalk.xmpp", "the XMPP server", "ejabberd.log"),
        ("gunicorn", "the authentication service", "auth.log"),
    ],
)
def test_a_program_that_dies_ends_the_run_with_the_end_of_its_log(run, part, name, log):
    running = run().ready()
    os.kill(running.pid_of(part), signal.SIGKILL)
    assert running.ended() == 1
    _, _, told = running.text.partition("\nready\n")
    first, *tail = told.splitlines()
    assert first == f"error: {name} has ended with code -9. The end of {running.data / 'log' / log}:"
    assert tail
    assert all(line.startswith("  ") for line in tail)

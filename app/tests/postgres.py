"""A real PostgreSQL for the tests: made in a temporary directory, on a random port of the loopback interface.

Fixtures (imported by conftest.py):
    postgres         one server for the whole run; leave it running
    postgres_victim  one server for the tests of a module, to be stopped, frozen and killed at will

Both are started when the first test asks for them. Make a database of your own in them:

    def test_something(postgres: PostgresServer) -> None:
        url = postgres.create_database()
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_TIMEOUT = 30.0

SETTINGS = {
    # The machine does not lose power in a test run; kill -9 of the server loses nothing without fsync.
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "50",
    "shared_buffers": "16MB",
    "log_min_messages": "fatal",
    "autovacuum": "off",
}


DURABLE = {"fsync": "on", "full_page_writes": "on"}


class PostgresServer:
    """A PostgreSQL server that this process owns.

    Args:
        settings: of the server, besides `SETTINGS`.
        leader: a running server that this one follows, as its synchronous standby; it is started after it.

    Attributes:
        port: the port on 127.0.0.1.
        password: of the superuser `monktalk`.
    """

    user = "monktalk"

    def __init__(self, settings: Mapping[str, str] | None = None, *, leader: PostgresServer | None = None) -> None:
        self._settings = SETTINGS | dict(settings or {})
        self._binaries = find_binaries()
        # PostgreSQL refuses to run as root.
        self._account = pwd.getpwnam(_unprivileged()) if os.geteuid() == 0 else None
        self._root = Path(tempfile.mkdtemp(prefix="mtpg-", dir="/tmp"))  # socket paths are short
        self._data = self._root / "data"
        self._log = self._root / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.password: str = leader.password if leader is not None else secrets.token_urlsafe(16)
        self.port = free_port()
        if leader is None:
            self._initialise()
        else:
            self._copy(leader)

    def url(self, database: str, *, hosts: str | None = None) -> str:
        """The address of a database; `hosts` replaces `127.0.0.1:port`."""
        return f"postgresql://{self.user}:{self.password}@{hosts or f'127.0.0.1:{self.port}'}/{database}"

    def create_database(self, template: str = "template0") -> str:
        """Make a new, empty database (or a copy of another one) and return its address."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as superuser, outside of a transaction, and return its rows."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=self.user, password=self.password, dbname=database
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def start(self) -> None:
        """Start the server, which must not be running, and wait until it accepts connections."""
        assert self._process is None, "PostgreSQL is running already"
        arguments = [str(self._binaries / "postgres"), "-D", str(self._data), "-k", str(self._root)]
        arguments += ["-h", "127.0.0.1", "-p", str(self.port)]
        for name, value in self._settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = self._popen(arguments, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"PostgreSQL did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server in an orderly way; clients are thrown out ("fast shutdown")."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(START_TIMEOUT)

    def kill(self) -> None:
        """Kill all processes of the server at once, as a crash does."""
        process, self._process = self._process, None
        if process is None:
            return
        # Each of the server's processes has a group of its own: stop the parent, so that it starts no more.
        process.send_signal(signal.SIGSTOP)
        children = _children(process.pid)
        for pid in [process.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(START_TIMEOUT)
        deadline = time.monotonic() + START_TIMEOUT
        while any(_alive(pid) for pid in children):
            assert time.monotonic() < deadline, "killed processes of PostgreSQL did not end"
            time.sleep(0.005)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all processes for a while: connections stay open, and nothing is answered."""
        assert self._process is not None, "PostgreSQL is not running"
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """CPU time that the processes which are running now have used."""
        assert self._process is not None, "PostgreSQL is not running"
        ticks = sum(_cpu_ticks(pid) for pid in [self._process.pid, *_children(self._process.pid)])
        return ticks / os.sysconf("SC_CLK_TCK")

    def remove(self) -> None:
        """End the server and delete its files."""
        self.kill()
        shutil.rmtree(self._root)

    def _initialise(self) -> None:
        secret = self._root / "password"
        secret.write_text(self.password)
        if self._account is not None:
            for path in (self._root, secret):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        arguments = [str(self._binaries / "initdb"), "-D", str(self._data), "-U", self.user, "-E", "UTF8"]
        arguments += ["--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        process = self._popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=START_TIMEOUT)
        if process.returncode:
            pytest.fail(f"initdb failed:\n{output.decode(errors='replace')}")

    def _copy(self, leader: PostgresServer) -> None:
        if self._account is not None:
            os.chown(self._root, self._account.pw_uid, self._account.pw_gid)
        source = f"postgresql://{self.user}:{self.password}@127.0.0.1:{leader.port}/?application_name=standby"
        arguments = [str(self._binaries / "pg_basebackup"), "-D", str(self._data), "-d", source]
        arguments += ["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"]
        process = self._popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=START_TIMEOUT)
        if process.returncode:
            pytest.fail(f"pg_basebackup failed:\n{output.decode(errors='replace')}")

    def _popen(self, arguments: list[str], **streams: object) -> subprocess.Popen[bytes]:
        options: dict[str, Any] = dict(streams)
        if self._account is not None:
            options |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        process: subprocess.Popen[bytes] = subprocess.Popen(arguments, cwd="/", start_new_session=True, **options)
        return process

    def _accepts(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True


def find_binaries() -> Path:
    """The directory of the newest PostgreSQL's programs; the test fails when there is none."""
    found = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")),
        key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()],
    )
    if found:
        return found[-1]
    on_path = shutil.which("postgres")
    if on_path and shutil.which("initdb", path=str(Path(on_path).resolve().parent)):
        return Path(on_path).resolve().parent
    pytest.fail("These tests need PostgreSQL's server programs: apt-get install postgresql (any version).")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@contextlib.contextmanager
def running_server(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """A started server that is removed at the end."""
    server = PostgresServer(settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """See the module."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_victim() -> Iterator[PostgresServer]:
    """See the module."""
    with running_server() as server:
        yield server

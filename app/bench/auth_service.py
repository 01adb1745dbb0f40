"""CPU time of the authentication service for each kind of call: `PYTHONPATH=app python -m bench.auth_service`.

Starts the service on SQLite (or the database named by `--database`, which needs the schema and is written to), makes
accounts, calls over one kept connection, and reads the service's CPU time from /proc. Everything is bounded.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from bench.procfs import cpu_seconds, tree
from monktalk.auth.passwords import to_scram
from monktalk.auth.web_users import WebUsersTable
from monktalk.db import migrate

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - of accounts that live for seconds
START_SECONDS: Final = 20.0
KEPT: Final = "kept.example"
UPGRADED: Final = "upgraded.example"

Call = tuple[str, str, str, str]
"""Call, user, server and password."""


class Service:
    """The service in a directory of its own."""

    def __init__(self, directory: Path, database: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._secret = secrets.token_urlsafe(16)
        authenticators = directory / "externals-auth"
        authenticators.mkdir()
        for domain, upgrade in ((KEPT, False), (UPGRADED, True)):
            source = f"from monktalk.auth.authenticators import WebUsers\nauthenticator = WebUsers(upgrade={upgrade})\n"
            (authenticators / f"{domain}.py").write_text(source)
        config = directory / "auth.toml"
        config.write_text(
            f'[service]\nport = {self.port}\npassword = "{self._secret}"\n[database]\nurl = "{database}"\n'
            f'[authenticators]\ndirectory = "{authenticators}"\n[back_off]\nenabled = false\n[log]\nlevel = "error"\n'
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:monktalk.auth.gunicorn_conf"],
            env={**os.environ, "MONKTALK_AUTH_CONFIG": str(config)},
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise RuntimeError("the authentication service has not started")
            time.sleep(0.05)

    def measure(self, calls: list[Call], expected: int) -> tuple[float, float]:
        """Make the calls and return CPU and wall milliseconds for one."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            self._call(connection, ("user_exists", "nobody", KEPT, ""))
            cpu, wall = self._cpu(), time.perf_counter()
            statuses = {self._call(connection, call) for call in calls}
            cpu, wall = self._cpu() - cpu, time.perf_counter() - wall
        if statuses != {expected}:
            raise RuntimeError(f"{calls[0][0]} was answered with {statuses}")
        return cpu / len(calls) * 1000, wall / len(calls) * 1000

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(START_SECONDS)

    def _cpu(self) -> float:
        return cpu_seconds(tree(self._process.pid))

    def _call(self, connection: http.client.HTTPConnection, call: Call) -> int:
        name, user, server, password = call
        credentials = base64.b64encode(f"xmpp:{self._secret}".encode()).decode()
        form = f"user={quote(user, '')}&server={server}&pass={quote(password, '')}"
        connection.request("GET", f"/authorize/{name}?{form}", headers={"Authorization": f"Basic {credentials}"})
        response = connection.getresponse()
        response.read()
        return response.status

    def _answers(self) -> bool:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                return self._call(connection, ("user_exists", "nobody", KEPT, "")) == 200
        except OSError:
            return False


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="CPU time of the authentication service for each kind of call.")
    parser.add_argument("--database", help="address of a database with the schema; SQLite in a temporary file without")
    parser.add_argument("--calls", type=int, default=500, help="calls of each kind (at most 5000)")
    options = parser.parse_args()
    count = min(options.calls, 5000)
    with tempfile.TemporaryDirectory() as name:
        database = options.database or f"sqlite:///{name}/web_users.db"
        if not options.database:
            migrate.upgrade(database)
        run = secrets.token_hex(4)
        make_accounts(database, run, count)
        service = Service(Path(name), database)
        try:
            sys.stdout.write(f"{'call':<62} {'CPU ms':>8} {'wall ms':>8}\n")
            for title, call, expected in kinds(run):
                cpu, wall = service.measure([call(number) for number in range(count)], expected)
                sys.stdout.write(f"{title:<62} {cpu:>8.2f} {wall:>8.2f}\n")
        finally:
            service.stop()


def make_accounts(database: str, run: str, count: int) -> None:
    """Insert accounts: with a password to be kept, with one to be upgraded, and with keys."""
    table = WebUsersTable(database)
    keys = to_scram(PASSWORD, 4096)
    for number in range(count):
        table.insert(KEPT, f"plain-{run}-{number}", PASSWORD)
        table.insert(KEPT, f"keys-{run}-{number}", keys)
        table.insert(UPGRADED, f"plain-{run}-{number}", PASSWORD)
    table.close()


def kinds(run: str) -> list[tuple[str, Callable[[int], Call], int]]:
    """What is measured: a title, the n-th call, and the status that it is answered with."""

    def each(name: str, user: str, server: str, password: str = "") -> Callable[[int], Call]:
        return lambda number: (name, f"{user}-{run}-{number}", server, password)

    return [
        ("user_exists", each("user_exists", "keys", KEPT), 200),
        ("get_password, stored keys", each("get_password", "keys", KEPT), 200),
        ("get_password, no account", each("get_password", "nobody", KEPT), 404),
        ("get_password, stored password, first time", each("get_password", "plain", KEPT), 200),
        ("get_password, stored password, remembered", each("get_password", "plain", KEPT), 200),
        ("get_password, stored password, upgraded", each("get_password", "plain", UPGRADED), 200),
        ("check_password, stored keys, first time", each("check_password", "keys", KEPT, PASSWORD), 200),
        ("check_password, stored keys, remembered", each("check_password", "keys", KEPT, PASSWORD), 200),
        ("check_password, stored password", each("check_password", "plain", KEPT, PASSWORD), 200),
        ("check_password, wrong password (keys)", each("check_password", "keys", KEPT, "wrong"), 200),
        ("check_password, wrong password (password)", each("check_password", "plain", KEPT, "wrong"), 200),
        ("check_password, no account", each("check_password", "nobody", KEPT, "wrong"), 200),
        ("check_password, no such domain", each("check_password", "nobody", "unknown.example", "wrong"), 200),
    ]


if __name__ == "__main__":
    main()

"""MonkTalk: the XMPP server and the authentication service, each started as in production."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from importlib import metadata
from typing import TYPE_CHECKING, ClassVar

from bench import procfs
from bench.child import Child, ServerError
from bench.servers.base import (
    DOMAIN,
    LOOPBACK,
    PASSWORD,
    CpuTimes,
    Server,
    bench_accounts,
    child_environment,
    free_ports,
)

if TYPE_CHECKING:
    from pathlib import Path

_AUTH_START_SECONDS = 30.0

_XMPP_CONFIGURATION = """\
[general]
hosts = [{domain}]
control_socket = {control_socket}

[[listen.c2s]]
address = {address}
port = {port}
starttls_required = false

[tls]
certificate = {certificate}
key = {key}

[auth]
url = {auth_url}
username = "bench"
password_file = {password_file}

[database]
url = {database}

[limits]
connections_per_address = 100000
accepts_per_second = 100000
"""

_AUTH_CONFIGURATION = """\
[service]
address = {address}
port = {port}
username = "bench"
password_file = {password_file}

[database]
url = {database}

[authenticators]
directory = {authenticators}
"""

_AUTHENTICATOR = """\
from monktalk.auth.authenticators import WebUsers

authenticator = WebUsers()
"""


class MonkTalk(Server):
    """See docs/benchmark.md for its configuration. The authentication service has the same core."""

    name: ClassVar[str] = "monktalk"

    def __init__(self, folder: Path, cores: set[int], accounts: int) -> None:
        """See Server."""
        super().__init__(folder, cores, accounts)
        # One port for both: the first byte tells TLS from a stream in the clear.
        self.port_tls = self.port_plain
        self._auth: Child | None = None
        (self._auth_port,) = free_ports(1)

    @classmethod
    def missing(cls) -> str:
        """See Server."""
        return "" if cls.version() else "MonkTalk is not installed for this Python: use `make bench`."

    @classmethod
    def version(cls) -> str:
        """See Server."""
        try:
            return metadata.version("monktalk")
        except metadata.PackageNotFoundError:
            return ""

    def configure(self) -> None:
        """See Server."""
        certificate, key = self.certificate()
        password_file = self.folder / "auth-password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        authenticators = self.folder / "externals-auth"
        authenticators.mkdir()
        (authenticators / f"{DOMAIN}.py").write_text(_AUTHENTICATOR, encoding="ascii")
        database = f"sqlite:///{self.folder}/monktalk.db"
        xmpp = {
            "domain": DOMAIN,
            "control_socket": self.folder / "control.sock",
            "address": LOOPBACK,
            "certificate": certificate,
            "key": key,
            "auth_url": f"http://{LOOPBACK}:{self._auth_port}",
            "password_file": password_file,
            "database": database,
        }
        auth = {
            "address": LOOPBACK,
            "password_file": password_file,
            "database": database,
            "authenticators": authenticators,
        }
        self._write("xmpp.toml", _XMPP_CONFIGURATION, xmpp, self.port_plain)
        self._write("auth.toml", _AUTH_CONFIGURATION, auth, self._auth_port)
        self._make_accounts(database)

    def _write(self, name: str, template: str, values: dict[str, object], port: int) -> None:
        # TOML's basic strings escape what JSON's do.
        quoted = {key: json.dumps(str(value)) for key, value in values.items()}
        (self.folder / name).write_text(template.format(**quoted, port=port), encoding="utf-8")

    def _make_accounts(self, database: str) -> None:
        """Make the tables, and insert the accounts as an operator does: with passwords in clear."""
        upgrade = subprocess.run(
            [sys.executable, "-m", "monktalk.db", "upgrade", database],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if upgrade.returncode:
            raise ServerError(f"monktalk.db upgrade failed:\n{upgrade.stderr[-2000:]}")
        rows = [(user, PASSWORD, DOMAIN) for user in bench_accounts(self.accounts)]
        with closing(sqlite3.connect(self.folder / "monktalk.db")) as connection, connection:
            connection.executemany("insert into web_users (node, token, domain) values (?, ?, ?)", rows)

    def launch(self) -> Child:
        """See Server."""
        self._start_auth()
        return self._start("xmpp", ["monktalk.xmpp", "--config", str(self.folder / "xmpp.toml")])

    def _start_auth(self) -> None:
        self._auth = self._start(
            "auth",
            ["gunicorn", "-c", "python:monktalk.auth.gunicorn_conf", "monktalk.auth.app:create_app()"],
            MONKTALK_AUTH_CONFIG=str(self.folder / "auth.toml"),
        )
        self._wait_for_auth(self._auth)

    def _start(self, name: str, module: list[str], **environment: str) -> Child:
        return Child(
            [sys.executable, "-m", *module],
            # What is measured is what this process would import.
            environment=child_environment(
                HOME=str(self.folder), PYTHONPATH=os.pathsep.join(filter(None, sys.path)), **environment
            ),
            folder=self.folder,
            log=self.folder / f"{name}.log",
            cores=self.cores,
        )

    def _wait_for_auth(self, child: Child) -> None:
        deadline = time.monotonic() + _AUTH_START_SECONDS
        while not self._auth_answers():
            if not child.running() or time.monotonic() > deadline:
                raise ServerError(f"the authentication service does not start; {child.log} says:\n{child.last_lines()}")
            time.sleep(0.05)

    def _auth_answers(self) -> bool:
        """Whether a worker of the service answers, if only that it does not know us: it listens before it has workers."""
        try:
            with socket.create_connection((LOOPBACK, self._auth_port), timeout=1.0) as probe:
                probe.sendall(f"GET / HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode())
                return bool(probe.recv(1))
        except OSError:
            return False

    def stop(self) -> None:
        """See Server."""
        super().stop()
        auth, self._auth = self._auth, None
        if auth is not None:
            auth.stop()

    def cpu(self) -> CpuTimes:
        """See Server."""
        auth = 0.0 if self._auth is None else procfs.cpu_seconds(self._auth.tree())
        return CpuTimes(super().cpu().server, auth)

"""The programs under test: the authentication service and XMPP servers, each in a directory of its own."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from tests.support.accounts import Account, execute, fresh_name, insert_account, stored_token
from tests.support.certificates import make_certificate
from tests.support.program import Program
from tests.support.toml import Table, dumps, merged

PLAIN_HOST = "plain.example"
"""The host whose passwords the authentication service keeps in clear and gives out."""

_given: set[int] = set()
"""Ports of programs that may not have started yet."""

_made: list[Path] = []
"""An empty database, once there is one."""

HOSTS = ["localhost", "other.example", "isolated.example", PLAIN_HOST]
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses right now, and that was not given to anybody else before."""
    while True:
        with socket.create_server((LOOPBACK, 0)) as sock:
            port: int = sock.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def answers(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex((LOOPBACK, port)) == 0


class AuthService:
    """The authentication service under gunicorn, with ``web_users`` in SQLite and an authenticator per host."""

    def __init__(self, directory: Path, database_url: str | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.username = "xmpp"
        self.password = secrets.token_hex(16)
        self.database = directory / "web_users.db"
        self.administrator = Account("admin", HOSTS[0], "sesame")
        self._database_url = database_url or f"sqlite:///{self.database}"
        self._config = directory / "auth.toml"
        self._configure()
        self.program = Program(
            "auth service",
            [sys.executable, "-m", "gunicorn", "-c", "python:monktalk.auth.gunicorn_conf"],
            directory / "auth.log",
            env={"MONKTALK_AUTH_CONFIG": str(self._config)},
        )

    def _configure(self) -> None:
        authenticators = self.directory / "externals-auth"
        authenticators.mkdir(exist_ok=True)
        for host in HOSTS:
            options = "password_format='plain'" if host == PLAIN_HOST else ""
            (authenticators / f"{host}.py").write_text(
                f"from monktalk.auth.authenticators import WebUsers\n\nauthenticator = WebUsers({options})\n"
            )
        configuration: Table = {
            "service": {
                "address": LOOPBACK,
                "port": self.port,
                "username": self.username,
                "password": self.password,
                "stop_time": "2 s",
            },
            "database": {"url": self._database_url},
            "authenticators": {"directory": authenticators},
            # All tests come from one address and make more mistakes than people do.
            "back_off": {"address_failures": 1_000_000},
        }
        self._config.write_text(dumps(configuration))
        self._config.chmod(0o600)

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://{LOOPBACK}:{self.port}"

    def account(self, name: str = "user", *, host: str = HOSTS[0], password: str = "sesame") -> Account:
        """A new account, which exists from now on."""
        account = Account(fresh_name(name), host, password)
        insert_account(self.database, account)
        return account

    def insert(self, account: Account) -> None:
        """Make that account."""
        insert_account(self.database, account)

    def execute(self, statement: str, *values: str) -> None:
        """What an operator does to ``web_users`` by hand."""
        execute(self.database, statement, *values)

    def absent(self, name: str = "nobody", *, host: str = HOSTS[0]) -> Account:
        """The name and password of an account that does not exist."""
        return Account(fresh_name(name), host, "sesame")

    def stored_token(self, account: Account) -> str:
        """What the operator sees in ``web_users``."""
        return stored_token(self.database, account)

    def add_administrator(self) -> None:
        """Make the account that the servers' configurations name as administrator."""
        insert_account(self.database, self.administrator)

    def start(self) -> None:
        """Make the database if there is none, start the service and wait until it answers."""
        create_schema(self._database_url, self.directory)
        self.program.start(lambda: answers(self.port))


def create_schema(url: str, directory: Path) -> None:
    """Bring the database to the current schema with the tool that operators use.

    New databases of SQLite are copies of the first one that it has made.
    """
    file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
    if file is not None and not file.exists() and _made:
        shutil.copyfile(_made[0], file)
        return
    new = file is not None and not file.exists()
    tool = Program("schema", [sys.executable, "-m", "monktalk.db", "upgrade", url], directory / "schema.log")
    tool.run()
    if file is not None and new:
        copy = directory / "empty.db"
        shutil.copyfile(file, copy)
        _made.append(copy)


class XmppServer(Program):
    """An XMPP server with a configuration of its own. It has one listener that requires TLS and one that does not."""

    def __init__(self, directory: Path, auth: AuthService, overrides: Table, database_url: str | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.auth = auth
        self.config = directory / "mongooseim.toml"
        self.control_socket = directory / "control.sock"
        self._ready_file = directory / "ready.json"
        self.certificate, self.key = make_certificate(directory, "server", HOSTS)
        self.database_url = database_url or f"sqlite:///{directory / 'xmpp.db'}"
        self._ports: list[int] = []
        self.configure(overrides)
        super().__init__(
            "server",
            [
                sys.executable,
                "-m",
                "monktalk.xmpp",
                "--config",
                str(self.config),
                "--ready-file",
                str(self._ready_file),
            ],
            directory / "server.log",
        )

    def configure(self, overrides: Table) -> None:
        """Write the configuration file."""
        self.config.write_text(dumps(merged(self._base_configuration(), overrides)))

    def _base_configuration(self) -> Table:
        listener: dict[str, Any] = {"address": LOOPBACK, "port": 0}
        password_file = self.directory / "auth-password"
        password_file.write_text(self.auth.password)
        password_file.chmod(0o600)
        return {
            "general": {
                "hosts": HOSTS,
                "administrators": [self.auth.administrator.jid],
                "control_socket": self.control_socket,
            },
            "listen": {"c2s": [{**listener, "starttls_required": True}, {**listener, "starttls_required": False}]},
            "tls": {"certificate": self.certificate, "key": self.key},
            "auth": {"url": self.auth.url, "username": self.auth.username, "password_file": password_file},
            "database": {"url": self.database_url},
            # All tests come from one address and make more mistakes than people do.
            "limits": {"auth_failures_per_address": 100_000, "accepts_per_second": 10_000},
            "host": {
                "isolated.example": {"sessions": {"isolated": True}},
                PLAIN_HOST: {"auth": {"password_format": "plain"}},
            },
        }

    def launch(self) -> None:
        """Make the database, start the server and wait for its ready file."""
        self.prepare()
        self.start(self._read_ready_file)

    def prepare(self) -> None:
        """Make the database."""
        if not self.database_url.startswith("memory:"):
            create_schema(self.database_url, self.directory)
        self._ready_file.unlink(missing_ok=True)

    def await_launch(self) -> None:
        """Wait until the server, which was started by :meth:`begin`, is ready."""
        self.await_ready(self._read_ready_file)

    def _read_ready_file(self) -> bool:
        if not self._ready_file.exists():
            return False
        listeners = json.loads(self._ready_file.read_text())["listeners"]
        self._ports = [listener["port"] for listener in listeners if listener["kind"] == "c2s"]
        return True

    @property
    def tls_port(self) -> int:
        """The listener that refuses to authenticate anybody in clear."""
        return self._ports[0]

    @property
    def clear_port(self) -> int:
        """The listener on which TLS is optional."""
        return self._ports[-1]

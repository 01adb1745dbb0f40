"""The authentication service as operators run it: gunicorn, its configuration module, a file, a database."""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from sqlalchemy import text

from monktalk.db import migrate
from monktalk.db.engine import create_engine
from tests.support.program import Program, wait_until
from tests.support.stack import answers, free_port
from tests.support.toml import dumps, merged

DOMAIN = "example.org"
WEB_USERS = "from monktalk.auth.authenticators import *\nauthenticator = WebUsers()\n"
POSTED = {"register", "set_password", "remove_user", "remove_user_validate"}


class Answer(NamedTuple):
    status: int
    body: str


class Service:
    """One service and its database."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self.authenticators = directory / "externals-auth"
        self.authenticators.mkdir(parents=True)
        self.config = directory / "auth.toml"
        self.database_url = database_url
        self._engine = create_engine(database_url)
        self.program = Program(
            "auth service",
            [sys.executable, "-m", "gunicorn", "-c", "python:monktalk.auth.gunicorn_conf"],
            directory / "auth.log",
            env={"MONKTALK_AUTH_CONFIG": str(self.config)},
        )
        self.configure()
        self.domain(DOMAIN)

    def configure(self, overrides: dict[str, Any] | None = None) -> None:
        base = {
            "service": {"port": self.port, "password": self.password, "stop_time": "2 s"},
            "database": {"url": self.database_url},
            "authenticators": {"directory": self.authenticators},
        }
        self.config.write_text(dumps(merged(base, overrides or {})))

    def domain(self, name: str, source: str = WEB_USERS) -> None:
        (self.authenticators / f"{name}.py").write_text(source)

    def start(self) -> None:
        """Start it and wait until it answers: the port is open before the authenticators are loaded."""
        before = self.program.log_size()
        self.program.start(lambda: answers(self.port) and "auth.app ready" in self.program.log_text(before))

    def reload(self) -> None:
        """Send SIGHUP and wait until the new worker serves and the old one is gone."""
        before = self.program.log_size()
        os.kill(self.program.pid, signal.SIGHUP)
        wait_until(lambda: "auth.app ready" in self.program.log_text(before), "the new worker is ready")
        wait_until(lambda: "worker_ended" in self.program.log_text(before), "the old worker has ended")

    def insert(self, node: str, token: str, domain: str = DOMAIN) -> None:
        """Do what operators do."""
        statement = "insert into web_users (node, token, domain) values (:node, :token, :domain)"
        with self._engine.begin() as connection:
            connection.execute(text(statement), {"node": node, "token": token, "domain": domain})

    def token(self, node: str, domain: str = DOMAIN) -> str | None:
        statement = "select token from web_users where node = :node and domain = :domain"
        with self._engine.begin() as connection:
            token: str | None = connection.execute(text(statement), {"node": node, "domain": domain}).scalar()
            return token

    def call(self, name: str, user: str, password: str = "", **options: str) -> Answer:
        """Make a call on a connection of its own."""
        with closing(self.connect()) as connection:
            return self.call_on(connection, name, user, password, **options)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def call_on(
        self,
        connection: http.client.HTTPConnection,
        name: str,
        user: str,
        password: str = "",
        *,
        server: str = DOMAIN,
        address: str = "",
    ) -> Answer:
        form = f"user={quote(user, '')}&server={quote(server, '')}&pass={quote(password, '')}"
        headers = {"Authorization": self.authorization}
        if address:
            headers["X-Client-Address"] = address
        if name in POSTED:
            connection.request("POST", f"/authorize/{name}", form.encode(), headers)
        else:
            connection.request("GET", f"/authorize/{name}?{form}", headers=headers)
        response = connection.getresponse()
        assert response.headers["Content-Length"] is not None
        return Answer(response.status, response.read().decode())

    def raw(self, *lines: bytes, body: bytes = b"") -> Answer:
        """Send a request byte by byte as it is, with the credentials, and read the answer."""
        head = [*lines, b"Host: localhost", b"Authorization: " + self.authorization.encode(), b"Connection: close"]
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"\r\n".join([*head, b"", b""]) + body)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return Answer(response.status, response.read().decode())

    @property
    def authorization(self) -> str:
        return "Basic " + base64.b64encode(f"xmpp:{self.password}".encode()).decode()

    @property
    def log(self) -> str:
        return self.program.log_text()

    def close(self) -> None:
        self._engine.dispose()
        assert self.program.stop() == 0


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database_url(request, tmp_path_factory):
    """The address of a database with the current schema."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('database')}/web_users.db"
    else:
        url = request.getfixturevalue("postgres").create_database()
    migrate.upgrade(url)
    return url


@pytest.fixture(scope="module")
def service(database_url, tmp_path_factory):
    """A running service for the tests of a module, on each kind of database."""
    service = Service(tmp_path_factory.mktemp("service"), database_url)
    service.start()
    yield service
    service.close()


@pytest.fixture
def own_service(tmp_path):
    """A service for one test, on SQLite; not started yet."""
    url = f"sqlite:///{tmp_path}/web_users.db"
    migrate.upgrade(url)
    service = Service(tmp_path / "service", url)
    yield service
    service.close()

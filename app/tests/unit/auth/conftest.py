"""An authentication service in this process, on SQLite, with a clock that tests move."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from scramp.utils import hi
from sqlalchemy import text
from werkzeug.test import TestResponse

from monktalk.auth.app import create_app
from monktalk.auth.authenticators import Resources
from monktalk.auth.cache import DigestCache
from monktalk.auth.web_users import WebUsersTable
from monktalk.common.clock import ManualClock
from monktalk.db import migrate
from monktalk.db.engine import create_engine

USERNAME = "xmpp"
PASSWORD = "open sesame"
WEB_USERS = "from monktalk.auth.authenticators import *\nauthenticator = WebUsers()\n"


class Database:
    """web_users as the operator sees it."""

    def __init__(self, path: Path, empty: Path) -> None:
        shutil.copy(empty, path)
        self.url = f"sqlite:///{path}"
        self._engine = create_engine(self.url)

    def execute(self, statement: str, **values: str) -> list[Any]:
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def insert(self, node: str, token: str, domain: str = "example.org") -> None:
        self.execute(
            "insert into web_users (node, token, domain) values (:node, :token, :domain)",
            node=node,
            token=token,
            domain=domain,
        )

    def token(self, node: str, domain: str = "example.org") -> str | None:
        rows = self.execute(
            "select token from web_users where node = :node and domain = :domain", node=node, domain=domain
        )
        return str(rows[0][0]) if rows else None

    def close(self) -> None:
        self._engine.dispose()


class Service:
    """The application, and calls to it."""

    def __init__(self, directory: Path, database: Database) -> None:
        self.directory = directory
        self.authenticators = directory / "externals-auth"
        self.authenticators.mkdir()
        self.database = database
        self.clock = ManualClock()
        self._app: Flask | None = None

    def domain(self, name: str = "example.org", source: str = WEB_USERS) -> Path:
        path = self.authenticators / f"{name}.py"
        path.write_text(source)
        return path

    def configure(self, **sections: dict[str, Any]) -> Path:
        base: dict[str, dict[str, Any]] = {
            "service": {"password": PASSWORD},
            "database": {"url": self.database.url},
            "authenticators": {"directory": "externals-auth"},
        }
        for name, values in sections.items():
            base.setdefault(name, {}).update(values)
        path = self.directory / "auth.toml"
        path.write_text(
            "\n".join(
                f"[{name}]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in values.items())
                for name, values in base.items()
            )
        )
        return path

    def start(self, **sections: dict[str, Any]) -> Flask:
        self._app = create_app(self.configure(**sections), clock=self.clock)
        return self._app

    @property
    def app(self) -> Flask:
        return self._app or self.start()

    def send(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {**authorization(), **options.pop("headers", {})}
        with self.app.test_client() as client:
            return client.open(path, method=method, headers=headers, **options)

    def call(
        self,
        name: str,
        user: str,
        password: str = "",
        server: str = "example.org",
        address: str | None = None,
    ) -> TestResponse:
        """Make a call as the contract says."""
        form = f"user={quote(user, '')}&server={quote(server, '')}&pass={quote(password, '')}"
        headers = {} if address is None else {"X-Client-Address": address}
        if name in {"register", "set_password", "remove_user", "remove_user_validate"}:
            return self.send("POST", f"/authorize/{name}", data=form.encode(), headers=headers)
        return self.send("GET", f"/authorize/{name}", query_string=form, headers=headers)


def authorization(username: str = USERNAME, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def outcome(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_data(as_text=True)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else f'"{value}"'


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with the current schema, to be copied: migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("schema") / "empty.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(tmp_path, empty_database):
    database = Database(tmp_path / "web_users.db", empty_database)
    yield database
    database.close()


@pytest.fixture
def service(tmp_path, database):
    """A service with one domain, example.org, on web_users."""
    directory = tmp_path / "service"
    directory.mkdir()
    service = Service(directory, database)
    service.domain()
    return service


@pytest.fixture
def resources(database):
    table = WebUsersTable(database.url)
    yield Resources(table, DigestCache(100, 3600, ManualClock()))
    table.close()


@pytest.fixture
def hashing(monkeypatch):
    """Every PBKDF2 that is computed, as (hash, iterations)."""
    computed: list[tuple[str, int]] = []

    def spy(function: Any, password: bytes, salt: bytes, iterations: int) -> Any:
        computed.append((hashlib.new(function().name).name, iterations))
        return hi(function, password, salt, iterations)

    monkeypatch.setattr("monktalk.common.scram.hi", spy)
    return computed

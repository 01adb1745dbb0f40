"""The same tests over every back end: memory, SQLite and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from monktalk.common.clock import ManualClock
from monktalk.db import migrate
from monktalk.xmpp.storage.interfaces import Storage
from monktalk.xmpp.storage.memory import MemoryStorage
from monktalk.xmpp.storage.sql.storage import SqlStorage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer

Opener = Callable[[], Awaitable[SqlStorage]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=1_700_000_000.0)


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    """The name of a database that has the schema, to copy."""
    url = postgres.create_database()
    migrate.upgrade(url)
    return url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the schema and nothing in it."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
        migrate.upgrade(url)
        return url
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database(template=request.getfixturevalue("migrated"))


@pytest.fixture
async def open_storage(database_url: str, clock: ManualClock) -> AsyncIterator[Opener]:
    """Opens the database once more, as another process does; closed at the end."""
    opened: list[SqlStorage] = []

    async def opener() -> SqlStorage:
        storage = SqlStorage(database_url, now=clock.now)
        opened.append(storage)
        await storage.start()
        return storage

    yield opener
    for storage in opened:
        await storage.close()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
async def storage(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Storage]:
    """A started storage with nothing in it."""
    opened: Storage
    if request.param == "memory":
        opened = MemoryStorage(clock.now)
    elif request.param == "sqlite":
        migrate.upgrade(f"sqlite:///{tmp_path}/test.db")
        opened = SqlStorage(f"sqlite:///{tmp_path}/test.db", now=clock.now)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database(template=request.getfixturevalue("migrated"))
        opened = SqlStorage(url, now=clock.now)
    await opened.start()
    yield opened
    await opened.close()

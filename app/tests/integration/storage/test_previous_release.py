"""The schema of the release before, with rows in it: it is upgraded, and that release goes on working on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from sqlalchemy import text

from monktalk.db import migrate
from monktalk.db.engine import create_engine, write_transaction
from monktalk.xmpp.storage.interfaces import Delivered
from monktalk.xmpp.storage.sql.storage import SqlStorage
from tests.integration.storage.sessions import HOST, delivered, left, opened, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.postgres import PostgresServer

# What the release before asks of the database.
APPEND = "INSERT INTO offline_messages (host, username, stanza, stamp, expires) VALUES (:h, :u, :s, :t, :e)"
LOAD = (
    "SELECT id, stanza FROM offline_messages WHERE host = :h AND username = :u"
    " AND (expires IS NULL OR expires > :n) ORDER BY id LIMIT 100"
)
COUNT = "SELECT count(*) FROM offline_messages WHERE host = :h AND username = :u"
REMOVE = "DELETE FROM offline_messages WHERE host = :h AND username = :u AND id <= :i"
EXPIRED = "DELETE FROM offline_messages WHERE host = :h AND expires <= :n"
OLDER = "DELETE FROM offline_messages WHERE host = :h AND stamp < :n"
BOX = {"h": HOST, "u": "bob"}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the release before, with messages."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database()
    engine = create_engine(url)
    with write_transaction(engine) as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    before = Database(url)
    for number in range(3):
        before.run(APPEND, BOX | {"s": b"%d" % number, "t": float(number), "e": None})
    before.engine.dispose()
    return url


class Database:
    """Statements, each in a transaction of its own."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url)

    def run(self, statement: str, values: dict[str, Any]) -> Any:
        """Rows, or the number of rows changed."""
        with write_transaction(self.engine) as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else result.rowcount

    def bodies(self) -> list[bytes]:
        return [bytes(stanza) for _, stanza in self.run(LOAD, BOX | {"n": 0.0})]


@pytest.fixture
def previous(url: str) -> Iterator[Database]:
    """The release before, on the schema of this one."""
    migrate.upgrade(url)
    database = Database(url)
    yield database
    database.engine.dispose()


async def test_messages_are_still_there_after_the_upgrade(url: str) -> None:
    assert migrate.upgrade(url).usable
    assert not [problem for problem in migrate.check(url) if "schema" in problem]
    storage = SqlStorage(url)
    await storage.start()
    assert await waiting(storage) == ["0", "1", "2"]
    session = await opened(storage)
    messages = await storage.offline.load(HOST, "bob", 2)
    await storage.offline.assign(HOST, "bob", [each.id for each in messages], session, 1)
    assert await delivered(storage, "new", (session, 3), number=1) is Delivered.STORED
    assert await waiting(storage) == ["2"]
    assert await left(storage) == {"token": [(1, "0"), (2, "1"), (3, "new")]}
    await storage.close()


async def test_both_releases_work_side_by_side(url: str, previous: Database) -> None:
    storage = SqlStorage(url)
    await storage.start()
    await storage.offline.append(HOST, "bob", b"3", 3.0, None, 10, "alice's", 1)
    previous.run(APPEND, BOX | {"s": b"4", "t": 4.0, "e": 50.0})
    assert await waiting(storage) == ["0", "1", "2", "3"]  # the last one has expired by now
    assert previous.bodies() == [b"0", b"1", b"2", b"3", b"4"]
    assert previous.run(COUNT, BOX) == [(5,)]
    first = previous.run(LOAD, BOX | {"n": 0.0})[0][0]
    assert previous.run(REMOVE, BOX | {"i": first}) == 1
    assert previous.run(OLDER, {"h": HOST, "n": 2.0}) == 1
    assert previous.run(EXPIRED, {"h": HOST, "n": 60.0}) == 1
    assert await waiting(storage) == ["2", "3"]
    await storage.close()


def test_the_previous_release_finds_an_index_for_its_mailboxes(url: str, previous: Database) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL looks at tables as small as this one as a whole")
    for statement in (LOAD, COUNT, REMOVE):
        plan = previous.run(f"EXPLAIN QUERY PLAN {statement}", BOX | {"n": 0.0, "i": 1})
        assert any("offline_messages_mailbox" in row[-1] for row in plan)

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from monktalk.db.engine import create_engine, write_transaction
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from monktalk.xmpp.storage.sql.link import Failure, Health, Link, RequestRefused, brief, classify
from tests.postgres import free_port

if TYPE_CHECKING:
    from pathlib import Path


class FromPostgreSQL(Exception):
    def __init__(self, pgcode: str | None, message: str = "") -> None:
        super().__init__(message)
        self.pgcode = pgcode


def dbapi_error(state: str | None, *, invalidated: bool = False) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, FromPostgreSQL(state), connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (dbapi_error(None, invalidated=True), Failure.LOST),
        (dbapi_error("57P01"), Failure.LOST),  # the server is shut down
        (dbapi_error("08006"), Failure.LOST),
        (dbapi_error("25006"), Failure.LOST),  # it has become a standby
        (dbapi_error("22003"), Failure.REQUEST),  # a number out of range
        (dbapi_error("23505"), Failure.REQUEST),
        (dbapi_error("40P01"), Failure.AGAIN),  # the loser of a deadlock
        (dbapi_error("54000"), Failure.REQUEST),  # too long for an index
        (dbapi_error("57014"), Failure.BUSY),  # statement timeout
        (dbapi_error("53100"), Failure.BUSY),
        (dbapi_error("55P03"), Failure.BUSY),  # a lock that somebody holds for too long  # the disk is full
        (dbapi_error("42P01"), Failure.REFUSED),  # no such table
        (PoolTimeout(), Failure.REFUSED),
    ],
)
def test_what_an_error_means(error: DBAPIError, failure: Failure) -> None:
    assert classify(error) is failure


def test_an_error_is_told_in_one_line_because_later_ones_quote_values() -> None:
    error = FromPostgreSQL("23505", "duplicate key\nDETAIL: Key (token)=(secret) already exists.")
    assert brief(DBAPIError("INSERT", {}, error)) == "FromPostgreSQL: duplicate key"
    assert brief(ValueError()) == "ValueError: no message"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db", statement_timeout=0.2)
    yield engine
    engine.dispose()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def link(engine: Engine, health: Health) -> Iterator[Link]:
    link = Link(engine, health, 5.0, writes=True)
    link.run(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER PRIMARY KEY)")))
    yield link
    link.close()


def insert(connection: Connection) -> None:
    connection.execute(text("INSERT INTO t VALUES (1)"))


def count(link: Link) -> int:
    return int(link.run(lambda connection: connection.execute(text("SELECT count(*) FROM t")).scalar_one()))


def test_work_is_committed_as_a_whole_or_not_at_all(link: Link, health: Health) -> None:
    def twice(connection: Connection) -> None:
        insert(connection)
        insert(connection)

    with pytest.raises(RequestRefused) as caught:
        link.run(twice)
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert count(link) == 0
    link.run(insert)
    assert count(link) == 1
    assert not health.down


def test_an_exception_of_the_work_itself_comes_through(link: Link) -> None:
    def fail(connection: Connection) -> None:
        insert(connection)
        raise LookupError

    with pytest.raises(LookupError):
        link.run(fail)
    assert count(link) == 0


def test_a_lock_of_another_process_ends_in_unavailable(link: Link, engine: Engine, health: Health) -> None:
    link.run(insert)
    other = create_engine(str(engine.url))
    with write_transaction(other), pytest.raises(StorageUnavailable, match="refused"):
        link.run(insert)
    other.dispose()
    assert not health.down  # the database is there
    assert count(link) == 1


def test_work_that_takes_too_long_is_cut(engine: Engine, health: Health) -> None:
    link = Link(engine, health, 0.05, writes=False)
    endless = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n")
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            link.check(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(StorageUnavailable, match="in time"):
            link.run(lambda connection: connection.execute(endless).scalar_one())
    finally:
        done.set()
        watcher.join()
    assert link.run(lambda connection: connection.scalar(text("SELECT 1"))) == 1
    link.close()


def test_a_database_that_cannot_be_reached_is_told_once(health: Health, caplog: pytest.LogCaptureFixture) -> None:
    woken = []
    health.on_down = lambda: woken.append(True)
    engine = create_engine(f"postgresql://monk:secret@127.0.0.1:{free_port()}/xmpp")
    link = Link(engine, health, 5.0, writes=True)
    for _ in range(3):
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            link.run(lambda connection: connection.execute(text("SELECT 1")))
    assert health.down
    assert woken == [True]
    assert caplog.messages == ["database_unavailable"]
    assert "secret" not in str([getattr(record, "fields", {}) for record in caplog.records])
    with caplog.at_level("INFO"):
        health.succeeded()
        health.succeeded()
    assert caplog.messages == ["database_unavailable", "database_available"]
    engine.dispose()


def test_an_operational_error_of_sqlite_is_not_the_fault_of_the_request(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("SELECT * FROM missing"))
    assert classify(caught.value) is Failure.REFUSED

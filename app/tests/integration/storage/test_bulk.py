from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from monktalk.db.bulk import Bulk, blobs, flags, numbers, texts
from monktalk.db.engine import create_engine
from monktalk.xmpp.storage.sql.link import brief

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tests.postgres import PostgresServer

TABLE = "CREATE TABLE things (number BIGINT, name TEXT, data {bytes}, flag BOOLEAN, size DOUBLE PRECISION)"
INSERT = Bulk(
    "INSERT INTO things VALUES (?, ?, ?, ?, ?)",
    "INSERT INTO things SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bytea[], %s::boolean[], %s::float8[])",
    numbers,
    texts,
    blobs,
    flags,
    numbers,
)
FIND = Bulk(
    "SELECT number, name, data, flag, size FROM things WHERE number = ?",
    "SELECT number, name, data, flag, size FROM things WHERE number = ANY (%s::bigint[]) ORDER BY number",
    numbers,
)
DELETE = Bulk("DELETE FROM things WHERE name = ?", "DELETE FROM things WHERE name = ANY (%s::text[])", texts)
MISSING = Bulk("DELETE FROM missing WHERE name = ?", "DELETE FROM missing WHERE name = ANY (%s::text[])", texts)

ROWS = [
    (1, "plain", b"", True, 0.1),
    (2, "\" \\ ' { , } NULL %s é ☃ 😀\r\n\t", bytes(range(256)), False, -1e300),
    (3, "", b"\\x00", None, 1_700_000_000.123456),
    (2**62, "NULL", None, True, None),
    (5, None, b"'", False, 3),
]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(TABLE.format(bytes="BLOB" if request.param == "sqlite" else "BYTEA")))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection


def found(connection: Connection, *wanted: int) -> list[tuple[object, ...]]:
    rows = FIND.rows(connection, [(number,) for number in wanted])
    return [(row[0], row[1], None if row[2] is None else bytes(row[2]), *row[3:]) for row in rows]


def test_values_come_back_as_they_were(connection: Connection) -> None:
    assert INSERT.run(connection, ROWS) == len(ROWS)
    assert found(connection, *sorted(row[0] for row in ROWS)) == sorted(ROWS)
    assert found(connection, 4) == []


def test_it_tells_how_many_rows_it_has_changed(connection: Connection) -> None:
    INSERT.run(connection, [*ROWS, *ROWS])
    assert DELETE.run(connection, [("plain",), ("unknown",), ("NULL",)]) == 4


def test_nothing_is_asked_for_no_rows(connection: Connection) -> None:
    assert MISSING.run(connection, []) == 0
    assert MISSING.rows(connection, []) == []


def test_it_belongs_to_the_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        with connection.begin() as transaction:
            INSERT.run(connection, ROWS)
            transaction.rollback()
        with connection.begin():
            assert found(connection, 1) == []


def test_an_error_is_told_without_values(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError, match="missing") as caught:
        MISSING.run(connection, [("secret",)])
    assert "secret" not in brief(caught.value)

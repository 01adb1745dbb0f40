from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, bindparam, insert, select
from sqlalchemy.exc import OperationalError

from monktalk.db.engine import create_engine
from monktalk.db.query import Query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

THINGS = Table(
    "things", MetaData(), Column("name", String), Column("number", Integer), Column("data", LargeBinary, nullable=True)
)
FIND = Query(select(THINGS.c.number, THINGS.c.data).where(THINGS.c.name == bindparam("p_name")))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    THINGS.metadata.create_all(engine)
    with engine.begin() as filling:
        rows = [{"name": f"n{number % 2}", "number": number, "data": bytes([number])} for number in range(6)]
        filling.execute(insert(THINGS), rows)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_it_returns_the_rows_that_match(connection: Connection) -> None:
    assert FIND.rows(connection, {"p_name": "n1"}) == [(1, b"\1"), (3, b"\3"), (5, b"\5")]
    assert FIND.rows(connection, {"p_name": "other"}) == []


def test_constants_of_the_statement_and_limits_are_kept(connection: Connection) -> None:
    few = Query(
        select(THINGS.c.number)
        .where(THINGS.c.number > 1, THINGS.c.name == bindparam("p_name"))
        .order_by(THINGS.c.number.desc())
        .limit(bindparam("p_limit"))
    )
    assert few.rows(connection, {"p_limit": 2, "p_name": "n0"}) == [(4,), (2,)]
    assert few.rows(connection, {"p_name": "n0", "p_limit": 1}) == [(4,)]


def test_it_begins_no_transaction(connection: Connection) -> None:
    FIND.rows(connection, {"p_name": "n1"})
    assert not connection.in_transaction()


def test_it_sees_what_the_transaction_around_it_has_done(connection: Connection) -> None:
    with connection.begin():
        connection.execute(insert(THINGS), {"name": "new", "number": 9, "data": None})
        assert FIND.rows(connection, {"p_name": "new"}) == [(9, None)]


def test_an_error_is_sqlalchemy_s_and_quotes_no_values(connection: Connection) -> None:
    nowhere = Query(select(Table("nowhere", MetaData(), Column("name", String)).c.name).where(bindparam("p_x") == "1"))
    with pytest.raises(OperationalError, match="nowhere") as caught:
        nowhere.rows(connection, {"p_x": "hunter2"})
    assert not caught.value.connection_invalidated
    assert "hunter2" not in str(caught.value)


def test_a_lost_connection_is_told_from_other_errors(connection: Connection) -> None:
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.close()
    with pytest.raises(Exception, match="closed database") as caught:
        FIND.rows(connection, {"p_name": "n1"})
    assert getattr(caught.value, "connection_invalidated", False)
    assert connection.invalidated

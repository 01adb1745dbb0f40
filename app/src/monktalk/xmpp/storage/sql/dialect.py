"""What differs between SQLite and PostgreSQL in SQLAlchemy's expression language."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Table

Insert = postgresql.Insert | sqlite.Insert
"""An INSERT that can be given an ON CONFLICT clause; both databases write it the same."""

S = TypeVar("S")


def inserts(table: Table, build: Callable[[Insert], S]) -> dict[str, S]:
    """A statement built on an INSERT, once for each database, by the name of the dialect.

    Built once, it is translated to SQL once: that costs more than carrying it out.
    """
    return {"postgresql": build(postgresql.insert(table)), "sqlite": build(sqlite.insert(table))}


def on_postgresql(connection: Connection) -> bool:
    """Whether the connection leads to PostgreSQL."""
    return connection.dialect.name == "postgresql"

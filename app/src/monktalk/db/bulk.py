"""Statements for many rows at once, handed to the driver as text.

PostgreSQL gets all rows in one statement, a column each as the text form of an array, which is the cheapest way for
both sides. SQLite gets them one by one: it has no round trips.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from monktalk.db.query import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from monktalk.db.query import Row


class Bulk:
    """A statement that has a row of values for each row that it concerns.

    Args:
        sqlite: the statement for one row, with a question mark for each value.
        postgresql: the statement for all rows, with a `%s` for each column of values: an array, to be cast.
        columns: how the columns are written: `numbers`, `texts`, `blobs` or `flags`.
    """

    def __init__(self, sqlite: str, postgresql: str, *columns: Callable[[Sequence[Any]], str]) -> None:
        self._sqlite: Final = sqlite
        self._postgresql: Final = postgresql
        self._columns: Final = columns

    def run(self, connection: Connection, values: Sequence[Sequence[Any]]) -> int:
        """Carry out an INSERT, UPDATE or DELETE, and return how many rows it has inserted, changed or deleted.

        Raises:
            DBAPIError: as SQLAlchemy raises it; after its first line, the driver's message may quote values. When
                the connection is lost, it alone is invalidated, not the others of its pool.
        """
        if not values:
            return 0
        with self._cursor(connection) as cursor:
            if connection.dialect.name == "sqlite":
                cursor.executemany(self._sqlite, values)
            else:
                cursor.execute(self._postgresql, self._arrays(values))
            return int(cursor.rowcount)

    def rows(self, connection: Connection, values: Sequence[Sequence[Any]]) -> list[Row]:
        """Carry out a SELECT, and return its rows for all values together; errors as those of `run`."""
        if not values:
            return []
        with self._cursor(connection) as cursor:
            if connection.dialect.name == "sqlite":
                return [row for value in values for row in cursor.execute(self._sqlite, value)]
            cursor.execute(self._postgresql, self._arrays(values))
            return list(cursor.fetchall())

    def _arrays(self, values: Sequence[Sequence[Any]]) -> list[str]:
        columns = zip(self._columns, zip(*values, strict=True), strict=True)
        return [encode(column) for encode, column in columns]

    @contextmanager
    def _cursor(self, connection: Connection) -> Iterator[Any]:
        driver: Any = connection.connection.dbapi_connection
        try:
            cursor = driver.cursor()
            yield cursor
            cursor.close()
        except connection.dialect.loaded_dbapi.Error as error:
            text = self._sqlite if connection.dialect.name == "sqlite" else self._postgresql
            raise wrapped(connection, text, error) from error


def numbers(values: Sequence[float | None]) -> str:
    """An array of numbers, or nulls."""
    return "{" + ",".join(["NULL" if value is None else repr(value) for value in values]) + "}"


def flags(values: Sequence[bool | None]) -> str:
    """An array of truth values, or nulls."""
    return "{" + ",".join(["NULL" if value is None else "t" if value else "f" for value in values]) + "}"


def texts(values: Sequence[str | None]) -> str:
    """An array of texts, or nulls."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def blobs(values: Sequence[bytes | None]) -> str:
    """An array of bytes, or nulls."""
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'

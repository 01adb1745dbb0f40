"""SELECTs of hot paths, handed to the driver as text.

SQLAlchemy's own execution takes many times as long as what SQLite does for a row. The statements are written in its
expression language all the same, and compiled once for each database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Select

Row = tuple[Any, ...]

_Compiled = tuple[str, tuple[str, ...] | None, dict[str, Any]]
"""The text, the order of its parameters where the driver takes them by position, and the values of constants in it."""


class Query:
    """A SELECT whose parameters and columns are as the driver takes and gives them: texts, numbers, bytes.

    Truth values come as numbers from SQLite, and bytes as `memoryview` from PostgreSQL.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement: Final = statement
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, object]) -> list[Row]:
        """Carry it out with values by the names of the parameters, and return all rows.

        It begins no transaction: outside of one, it is one by itself where the driver commits automatically.

        Raises:
            DBAPIError: as SQLAlchemy raises it, but never with the values. When the connection is lost, it alone
                is invalidated, not the others of its pool.
        """
        text, order, constants = self._compiled.get(connection.dialect.name) or self._compile(connection)
        if constants:
            values = constants | dict(values)
        driver = connection.connection.dbapi_connection
        assert driver is not None
        try:
            cursor = driver.cursor()
            cursor.execute(text, values if order is None else [values[name] for name in order])
            rows: list[Row] = list(cursor.fetchall())
            cursor.close()
        except connection.dialect.loaded_dbapi.Error as error:
            raise wrapped(connection, text, error) from error
        return rows

    def _compile(self, connection: Connection) -> _Compiled:
        dialect = connection.dialect
        compiled: Any = self._statement.compile(dialect=dialect)
        order = tuple(compiled.positiontup) if compiled.positional else None
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        self._compiled[dialect.name] = found = (str(compiled), order, constants)
        return found


def wrapped(connection: Connection, text: str, error: Exception) -> BaseException:
    """The driver's error as SQLAlchemy would raise it, without values; a lost connection is invalidated."""
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection, None)  # type: ignore[arg-type]  # any of the driver's
    if lost:
        connection.invalidate(error)
    return DBAPIError.instance(
        text,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )

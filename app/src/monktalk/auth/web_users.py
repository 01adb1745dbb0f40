"""The table web_users in SQL: credentials by domain and node."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from monktalk.auth.errors import AccountExists, Unavailable
from monktalk.auth.watchdog import Watchdog
from monktalk.common.clock import SystemClock
from monktalk.common.logging import get_logger
from monktalk.db.engine import create_engine, write_transaction
from monktalk.db.query import Query
from monktalk.db.schema import web_users

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection
    from sqlalchemy.sql.dml import UpdateBase

T = TypeVar("T")

STATEMENT_TIMEOUT: Final = 4.0
"""Seconds for a statement: less than the XMPP server waits for an answer."""

STALE_TIME: Final = 1.0
"""A connection that the database has closed meanwhile shows within this time."""

_WRITERS: Final = 2

log = get_logger(__name__)

_row = web_users.c
_is_account = (_row.domain == bindparam("of_domain")) & (_row.node == bindparam("of_node"))
_select: Final = Query(select(_row.token).where(_is_account))
_insert: Final = insert(web_users).values(
    node=bindparam("of_node"), token=bindparam("new_token"), domain=bindparam("of_domain")
)
_update: Final = update(web_users).where(_is_account).values(token=bindparam("new_token"))
_replace: Final = _update.where(_row.token == bindparam("old_token"))
_delete: Final = delete(web_users).where(_is_account)


class WebUsersTable:
    """The table behind a database address. May be used by many threads; nothing is connected before the first call.

    All methods raise `Unavailable` when the database does not answer or refuses.
    """

    def __init__(self, url: str, *, connections: int = 8) -> None:
        # Nearly all calls are one SELECT: it is sent without a ping before it and a transaction around it, and
        # repeated when the connection turns out to be stale. Writers are few, and ping.
        self._readers = create_engine(url, pool_size=connections, pre_ping=False, statement_timeout=STATEMENT_TIMEOUT)
        self._is_remote = self._readers.dialect.name == "postgresql"
        if self._is_remote:
            self._readers = self._readers.execution_options(isolation_level="AUTOCOMMIT")
        self._writers = create_engine(url, pool_size=_WRITERS, statement_timeout=STATEMENT_TIMEOUT)
        self._clock = SystemClock()
        self._watchdog = Watchdog(STATEMENT_TIMEOUT, self._clock)

    def token(self, domain: str, node: str) -> str | None:
        """Return what is stored for an account: a password or SCRAM keys; None when there is no account."""

        def read(connection: Connection) -> str | None:
            for (token,) in _select.rows(connection, {"of_domain": domain, "of_node": node}):
                return None if token is None else str(token)
            return None

        return self._read(read)

    def insert(self, domain: str, node: str, token: str) -> None:
        """Make an account.

        Raises:
            AccountExists: it is there already.
        """
        try:
            self._write(
                lambda connection: connection.execute(
                    _insert, {"of_domain": domain, "of_node": node, "new_token": token}
                )
            )
        except IntegrityError as error:
            if self.token(domain, node) is not None:
                raise AccountExists from None
            # Such as a column that was added without a default.
            raise _unavailable(error) from None

    def set(self, domain: str, node: str, token: str) -> bool:
        """Store a token for an account; return False when there is no account."""
        return self._changes(_update, {"of_domain": domain, "of_node": node, "new_token": token})

    def replace(self, domain: str, node: str, old: str, new: str) -> bool:
        """Store `new` if `old` is still what is stored, and return whether it was: nobody's change is undone."""
        return self._changes(_replace, {"of_domain": domain, "of_node": node, "old_token": old, "new_token": new})

    def delete(self, domain: str, node: str) -> bool:
        """Remove an account; return False when there is none."""
        return self._changes(_delete, {"of_domain": domain, "of_node": node})

    def close(self) -> None:
        """Close the connections."""
        self._readers.dispose()
        self._writers.dispose()

    def _changes(self, statement: UpdateBase, values: dict[str, str]) -> bool:
        def change(connection: Connection) -> bool:
            return bool(connection.execute(statement, values).rowcount)

        try:
            return self._write(change)
        except IntegrityError as error:
            raise _unavailable(error) from None

    def _read(self, work: Callable[[Connection], T]) -> T:
        began = self._clock.monotonic()
        try:
            try:
                return self._read_once(work)
            except DBAPIError as error:
                if not error.connection_invalidated or self._clock.monotonic() - began > STALE_TIME:
                    raise
                # The others in the pool are as old as this one.
                self._readers.dispose()
                return self._read_once(work)
        except SQLAlchemyError as error:
            raise _unavailable(error) from None

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        with self._readers.connect() as connection, self._watch(connection):
            return work(connection)

    def _watch(self, connection: Connection) -> AbstractContextManager[None]:
        driver = connection.connection.driver_connection
        return self._watchdog.watch(driver.fileno()) if self._is_remote and driver is not None else nullcontext()

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction.

        Raises:
            IntegrityError: a constraint forbids it.
            Unavailable: the database does not answer or refuses.
        """
        try:
            with write_transaction(self._writers) as connection, self._watch(connection):
                return work(connection)
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise _unavailable(error) from None


def _unavailable(error: SQLAlchemyError) -> Unavailable:
    """Log a failure of the database and return what the call ends with."""
    cause = getattr(error, "orig", None)
    sqlstate = getattr(cause, "pgcode", None) or getattr(cause, "sqlite_errorname", None) or ""
    # Data errors and broken constraints are told with the row, and so with its token ("Failing row contains …").
    quotes_data = sqlstate.startswith(("22", "23", "SQLITE_CONSTRAINT"))
    reason = "" if cause is None or quotes_data else str(cause).strip().partition("\n")[0]
    log.error("database_failed", kind=type(cause or error).__name__, sqlstate=sqlstate, reason=reason)
    return Unavailable()

"""One thread's connection to the database: opened when needed, watched while busy, replaced when it breaks."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg2
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from monktalk.common.logging import get_logger
from monktalk.db.engine import for_writing
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

log = get_logger(__name__)

R = TypeVar("R")

PROBE_INTERVAL: Final = 1.0
"""Seconds between attempts to reach a database that is away."""


class Unreachable(StorageUnavailable):
    """The database was not there, or did not answer in time. Nothing was changed."""


class Busy(StorageUnavailable):
    """The database is full, locked or overloaded, which may be over soon. Nothing was changed."""

    def __init__(self, reason: str, pause: float = PROBE_INTERVAL) -> None:
        super().__init__(reason)
        self.pause = pause
        """Seconds after which another attempt is worth it."""


class Uncertain(StorageUnavailable):
    """The connection broke during a commit, which may have taken place or not."""


class RequestRefused(Exception):
    """The database refused this one request (its `__cause__` tells why); others may succeed."""


class Health:
    """Whether the database answers; shared by the threads of a storage.

    While it does not, requests fail at once, and only the writer's probe tries to connect.
    """

    def __init__(self) -> None:
        self.down = False
        self.on_down: Callable[[], None] = lambda: None
        self._since = 0.0
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._up.set()

    def wait(self, timeout: float) -> None:
        """Wait until the database answers, or for so many seconds."""
        self._up.wait(timeout)

    def failed(self, problem: str) -> None:
        """The database could not be reached, or did not answer in time."""
        with self._lock:
            if self.down:
                return
            self._since = time.monotonic()
            self.down = True
            self._up.clear()
        self.on_down()
        log.error("database_unavailable", problem=problem)

    def succeeded(self) -> None:
        """The database answered."""
        if not self.down:
            return
        with self._lock:
            was_down, self.down = self.down, False
            self._up.set()
        if was_down:
            log.info("database_available", after_s=round(time.monotonic() - self._since, 1))


class Failure(Enum):
    """What an error of the database means for those who wait."""

    LOST = auto()  # the connection is gone, nothing was committed
    REQUEST = auto()  # the fault of this one request
    AGAIN = auto()  # another transaction was in the way, and is over
    BUSY = auto()  # full, locked, overloaded: nobody's fault in particular
    REFUSED = auto()  # wrong schema, no permission: it will not pass by itself


# Classes of SQLSTATE (PostgreSQL, appendix A): cardinality, data, constraint, rollback, program limit.
_REQUEST_STATES: Final = ("21", "22", "23", "54")
# Connection, operator intervention (shutdown), and a server that has become a read-only standby.
_LOST_STATES: Final = ("08", "57P", "25006")
# Resources, locks, cancelled statements, input and output.
_BUSY_STATES: Final = ("53", "55", "57", "58")
# Deadlocks and other rollbacks in favour of another transaction: that one has been carried out meanwhile.
_AGAIN_STATES: Final = ("40",)
AGAIN_PAUSE: Final = 0.05


def classify(error: SQLAlchemyError) -> Failure:
    """What an error of a statement means."""
    if not isinstance(error, DBAPIError):
        return Failure.REFUSED
    state: str | None = getattr(error.orig, "pgcode", None)
    if error.connection_invalidated or (state or "").startswith(_LOST_STATES):
        return Failure.LOST
    if state is not None:
        if state.startswith(_REQUEST_STATES):
            return Failure.REQUEST
        if state.startswith(_AGAIN_STATES):
            return Failure.AGAIN
        return Failure.BUSY if state.startswith(_BUSY_STATES) else Failure.REFUSED
    names = {base.__name__ for base in type(error.orig).__mro__}
    return Failure.REQUEST if names & {"IntegrityError", "DataError"} else Failure.REFUSED


def brief(error: BaseException) -> str:
    """An error in one line: the first of the driver's, because later ones may quote values."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return f"{type(original).__name__}: {lines[0] if lines else 'no message'}"


def post(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Call a function on the event loop from another thread; nobody waits any more when the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


class _Lost(Exception):
    """The connection broke before anything was committed."""


class Link:
    """A connection for one thread.

    Args:
        engine: makes the connections.
        health: is told what happens.
        deadline: seconds that one piece of work may take before `check` cuts the connection.
        writes: whether work runs in transactions that write.
    """

    def __init__(self, engine: Engine, health: Health, deadline: float, *, writes: bool) -> None:
        self._engine = engine
        self._health = health
        self._deadline = deadline
        self._writes = writes
        self._connection: Connection | None = None
        self._raw: Any = None
        self._busy_since: float | None = None
        self._overdue = False

    def run(self, work: Callable[[Connection], R]) -> R:
        """Do work in a transaction (its own statements when the link does not write) and commit.

        Work is done a second time, on a new connection, when the old one turns out to be gone: a restart of the
        database while nothing was going on is not noticed by anybody.

        Raises:
            Unreachable, Busy: nothing was changed, and a later attempt may succeed.
            Uncertain: whether anything was changed is not known.
            StorageUnavailable: the database refuses.
            RequestRefused: the database refuses this work; nothing was changed.
            Exception: what `work` raised; nothing was changed.
        """
        try:
            return self._attempt(work)
        except _Lost:
            pass
        try:
            return self._attempt(work)
        except _Lost as lost:
            self._health.failed(str(lost))
            raise Unreachable("the connection to the database broke") from lost

    def check(self, now: float) -> None:
        """Cut the connection when its work has taken too long (called from another thread than `run`)."""
        started = self._busy_since
        if started is None or now - started < self._deadline or self._overdue:
            return
        self._overdue = True
        log.error("database_stalled", seconds=round(now - started, 1))
        _cut(self._raw)

    def close(self) -> None:
        """Give the connection up."""
        connection, self._connection, self._raw = self._connection, None, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()
            with suppress(SQLAlchemyError):
                connection.close()

    def _attempt(self, work: Callable[[Connection], R]) -> R:
        connection = self._connect()
        self._overdue = False
        self._busy_since = time.monotonic()
        committing = False
        try:
            if self._writes:
                with connection.begin() as transaction:
                    result = work(connection)
                    committing = True
                    transaction.commit()
            else:
                result = _read(connection, work)
        except SQLAlchemyError as error:
            raise self._translate(error, committing=committing) from error
        finally:
            self._busy_since = None
        self._health.succeeded()
        return result

    def _connect(self) -> Connection:
        if self._connection is not None:
            return self._connection
        try:
            connection = self._engine.connect()
            if self._writes:
                connection = for_writing(connection)
            elif self._engine.dialect.name == "postgresql":
                # A read is one statement: without BEGIN and ROLLBACK it is one round trip instead of three.
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        except SQLAlchemyError as error:
            self._health.failed(brief(error))
            raise Unreachable("the database cannot be reached") from error
        self._connection = connection
        self._raw = connection.connection.dbapi_connection
        return connection

    def _translate(self, error: SQLAlchemyError, *, committing: bool) -> Exception:
        failure = classify(error)
        uncertain = committing and self._writes
        if self._overdue:
            self.close()
            problem = "the database did not answer in time"
            # SQLite has no server that could be down: this one statement was too much.
            if self._engine.dialect.name == "sqlite":
                return StorageUnavailable(problem)
            self._health.failed(f"no answer within {self._deadline:g} s")
            return Uncertain(problem) if uncertain else Unreachable(problem)
        if failure is Failure.LOST:
            self.close()
            # Whether an interrupted commit took place is unknown: doing it again might do it twice.
            if uncertain:
                self._health.failed(brief(error))
                return Uncertain("the connection to the database broke during a commit")
            return _Lost(brief(error))
        if failure is Failure.REQUEST and not committing:
            return RequestRefused(brief(error))
        log.error("database_refused", problem=brief(error))
        if failure is Failure.AGAIN:
            return Busy("another transaction was in the way", AGAIN_PAUSE)
        return Busy("the database refused") if failure is Failure.BUSY else StorageUnavailable("the database refused")


def _read(connection: Connection, work: Callable[[Connection], R]) -> R:
    """Do work that only reads. What the driver is given directly (`Query`) needs no transaction around it."""
    try:
        return work(connection)
    finally:
        if connection.in_transaction():
            connection.rollback()


def _cut(raw: Any) -> None:
    """End a wait for the database in another thread; that thread then gets an error from its driver."""
    if hasattr(raw, "interrupt"):  # SQLite
        raw.interrupt()
        return
    try:
        # A cancel request would have to reach the very server that does not answer; the socket is ours.
        descriptor = os.dup(raw.fileno())
    except (psycopg2.InterfaceError, OSError):
        return  # closed by its own thread in the meantime
    with socket.socket(fileno=descriptor) as duplicate, suppress(OSError):
        duplicate.shutdown(socket.SHUT_RDWR)

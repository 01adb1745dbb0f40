"""SQLAlchemy engines for the databases that are supported: PostgreSQL and SQLite.

Addresses are `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`, or libpq's form with one or more
hosts: `postgresql://user:password@db1:5432,db2:5432/name?sslmode=verify-full`. With several hosts, the one
that accepts writes is used. What stands after the `?` is passed on to libpq and wins over the settings made
here; a password can stay out of the address with `?passfile=/path`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy import URL, event
from sqlalchemy.exc import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection as SQLiteConnection

    from sqlalchemy import Connection, Engine

CONNECT_TIMEOUT: Final = 3.0
STATEMENT_TIMEOUT: Final = 10.0

_POSTGRESQL: Final = re.compile(
    r"postgres(?:ql)?(?:\+psycopg2)?://(?P<user>[^@/?]*@)?(?P<hosts>[^@/?]*)(?P<rest>[/?].*)?", re.DOTALL
)
_IMMEDIATE: Final = "monktalk_immediate"


class DatabaseURLError(ValueError):
    """The address of the database is malformed or of an unsupported kind; says so without the password."""


def create_engine(
    url: str,
    *,
    pool_size: int = 5,
    pre_ping: bool = True,
    connect_timeout: float = CONNECT_TIMEOUT,
    statement_timeout: float = STATEMENT_TIMEOUT,
) -> Engine:
    """An engine for an address; nothing is connected yet.

    Args:
        url: see the module.
        pool_size: connections kept open; more are made for a moment when more are asked for at once.
        pre_ping: test a connection before it is handed out, so that a restart of the database goes unnoticed.
        connect_timeout: seconds to wait for each host (at least 2: libpq).
        statement_timeout: seconds after which PostgreSQL gives a statement up, and SQLite stops waiting for a
            writer in another process; 0 means no limit on PostgreSQL.

    Raises:
        DatabaseURLError: the address cannot be used.
    """
    parsed, hosts = parse_url(url)
    # Bound values are secrets and message bodies: they must not get into the text of an exception.
    options: dict[str, Any] = {"hide_parameters": True, "pool_size": pool_size, "pool_pre_ping": pre_ping}
    if parsed.get_backend_name() == "sqlite":
        engine = sqlalchemy.create_engine(parsed, connect_args={"timeout": statement_timeout or 5}, **options)
        event.listen(engine, "do_connect", _create_sqlite_file)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    settings = hosts | _postgresql_settings(connect_timeout, statement_timeout)
    for name in parsed.query:
        settings.pop(name, None)
    return sqlalchemy.create_engine(parsed, connect_args=settings, pool_timeout=connect_timeout, **options)


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes.

    On SQLite it takes the write lock at its beginning: one that reads first and writes later would fail at
    once when another process writes in between.
    """
    with engine.connect().execution_options(**{_IMMEDIATE: True}) as connection, connection.begin():
        yield connection


def for_writing(connection: Connection) -> Connection:
    """Have the transactions of a connection begin like those of `write_transaction`."""
    return connection.execution_options(**{_IMMEDIATE: True})


def parse_url(url: str) -> tuple[URL, dict[str, str]]:
    """Split an address into SQLAlchemy's form and libpq's `host` and `port` (empty unless several are named).

    Raises:
        DatabaseURLError: the address cannot be used.
    """
    postgresql = _POSTGRESQL.fullmatch(url)
    hosts: dict[str, str] = {}
    if postgresql is not None:
        user, names, rest = (postgresql[group] or "" for group in ("user", "hosts", "rest"))
        if "," in names:
            hosts = _split_hosts(names)
            names = ""
        # The driver is named, because SQLAlchemy 2.0 and 2.1 choose different ones by themselves.
        url = f"postgresql+psycopg2://{user}{names}{rest}"
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseURLError(
            "the address of the database is malformed; expected sqlite:///path or "
            "postgresql://user:password@host:port/name"
        ) from None
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise DatabaseURLError(f"{backend} databases are not supported; use sqlite:///path or postgresql://...")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise DatabaseURLError("SQLite needs a file, because several threads use it: sqlite:///path")
    return parsed, hosts


def describe_url(url: str) -> str:
    """The address for people and logs, without its password."""
    parsed, _ = parse_url(url)
    # The query may hold a password too.
    text = parsed.set(query={}).render_as_string(hide_password=True)
    postgresql = _POSTGRESQL.fullmatch(url)
    if postgresql is None:
        return text
    hosts = str(postgresql["hosts"])
    _, slash, database = text.partition("://")[2].partition("/")
    user = f"{parsed.username}:***@" if parsed.password else f"{parsed.username}@" if parsed.username else ""
    return f"postgresql://{user}{hosts}{slash}{database}"


def _split_hosts(names: str) -> dict[str, str]:
    hosts, ports = [], []
    for name in names.split(","):
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]+)(?::(\d+))?", name)
        if match is None:
            raise DatabaseURLError(f"{name!r} in the address of the database is not host or host:port")
        hosts.append(match[1].strip("[]"))
        ports.append(match[2] or "5432")
    return {"host": ",".join(hosts), "port": ",".join(ports)}


def _postgresql_settings(connect_timeout: float, statement_timeout: float) -> dict[str, str]:
    """Settings of libpq: a dead host or network is noticed within seconds, by whichever side waits.

    `tcp_user_timeout` bounds the time that sent data stay unacknowledged, keepalives notice a peer that
    vanished while idle, and the server's own time limits end what a stopped client leaves behind.
    """
    statement = int(statement_timeout * 1000)
    return {
        "application_name": "monktalk",
        "client_encoding": "utf8",
        "connect_timeout": str(max(2, round(connect_timeout))),
        "target_session_attrs": "read-write",
        "keepalives": "1",
        "keepalives_idle": "10",
        "keepalives_interval": "3",
        "keepalives_count": "3",
        "tcp_user_timeout": "10000",
        "options": f"-c statement_timeout={statement} -c lock_timeout={statement // 2} "
        "-c idle_in_transaction_session_timeout=30000",
    }


def _create_sqlite_file(_dialect: object, _record: object, arguments: list[str], _options: dict[str, object]) -> None:
    """Keep others from reading it: it holds credentials. The files beside it inherit the mode."""
    path = Path(arguments[0])
    if path.parent.is_dir() and not path.exists():
        path.touch(mode=0o600)


def _prepare_sqlite(connection: SQLiteConnection, _record: object) -> None:
    # The driver's own transactions start late and break DDL; ours are begun by _begin_sqlite.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_IMMEDIATE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

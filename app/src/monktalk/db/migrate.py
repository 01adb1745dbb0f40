"""Brings a database to the schema of this release, and tells whether it is there.

Migrations only go forward, and only add what the release before can live with, so that releases can be rolled
forward node by node and rolled back by starting the older program on the newer schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from monktalk.db.engine import create_engine, parse_url, write_transaction
from monktalk.db.schema import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# An arbitrary number that stands for "the schema of MonkTalk" among PostgreSQL's advisory locks.
_LOCK: Final = 0x6D6F6E6B74616C6B

# A migration waits for another process's one, and may take long on a big table.
_NO_LIMIT: Final = 0.0
_SQLITE_WAIT: Final = 60.0


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The revision of a database ("" for none) beside the one that this program was written for."""

    found: str
    wanted: str
    known: bool

    @property
    def usable(self) -> bool:
        """Whether this program can work with it: the same revision, or one of a newer release."""
        return self.found == self.wanted or (bool(self.found) and not self.known)

    def problem(self) -> str:
        """A sentence for people; empty when the database is usable."""
        if self.usable:
            return ""
        found = f"has schema revision {self.found}" if self.found else "has no schema yet"
        return f"the database {found}, this program needs revision {self.wanted}; run: python -m monktalk.db upgrade"


def upgrade(url: str) -> SchemaState:
    """Apply the migrations that are missing. Any number of processes may do so at the same time.

    Raises:
        DatabaseURLError: the address cannot be used.
        ValueError: the tables that are there cannot be adopted; the message says why and what to do.
        sqlalchemy.exc.SQLAlchemyError: the database does not answer or refuses.
    """
    parsed, _ = parse_url(url)
    on_sqlite = parsed.get_backend_name() == "sqlite"
    engine = create_engine(url, statement_timeout=_SQLITE_WAIT if on_sqlite else _NO_LIMIT)
    try:
        with write_transaction(engine) as connection:
            if not on_sqlite:
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_LOCK)))
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return state_of(connection)
    finally:
        engine.dispose()


def state(engine: Engine) -> SchemaState:
    """The revision of the database behind an engine.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.
    """
    with engine.connect() as connection:
        return state_of(connection)


def check(url: str) -> list[str]:
    """What is wrong with a database, one sentence each; nothing when it is as it should be.

    Raises:
        DatabaseURLError, sqlalchemy.exc.SQLAlchemyError: as in `upgrade`.
    """
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            problem = state_of(connection).problem()
            if problem:
                return [problem]
            problems = [_difference(entry) for entry in _differences(connection)]
            if connection.dialect.name == "postgresql":
                problems += _check_postgresql(connection)
            return problems
    finally:
        engine.dispose()


def state_of(connection: Connection) -> SchemaState:
    """As `state`, over a connection that is there already."""
    script = ScriptDirectory.from_config(_config())
    found = MigrationContext.configure(connection).get_current_revision() or ""
    known = {revision.revision for revision in script.walk_revisions()}
    return SchemaState(found=found, wanted=script.get_current_head() or "", known=found in known)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


def _differences(connection: Connection) -> list[object]:
    """What Alembic finds to differ, without what others have put into the database."""
    ours = set(metadata.tables)

    def include(name: str | None, kind: str, _parents: object) -> bool:
        if kind == "table":
            return name in ours
        # Operators may add columns and indexes of their own.
        return kind != "index" or name in our_indexes

    our_indexes = {index.name for table in metadata.tables.values() for index in table.indexes}
    context = MigrationContext.configure(connection, opts={"include_name": include, "compare_type": False})
    found = compare_metadata(context, metadata)
    return [entry for entry in found if not (isinstance(entry, tuple) and entry[0] == "remove_column")]


def _difference(entry: object) -> str:
    if isinstance(entry, list):
        return "; ".join(_difference(part) for part in entry)
    if isinstance(entry, tuple):
        what = str(entry[0]).replace("add_", "missing ").replace("modify_", "different ").replace("_", " ")
        named = [part for part in entry[1:] if isinstance(part, str) or hasattr(part, "name")]
        names = [part if isinstance(part, str) else str(part.name) for part in named]
        return f"the schema differs from revision: {what}: {' '.join(names)}"
    return f"the schema differs: {entry}"


def _check_postgresql(connection: Connection) -> list[str]:
    """Settings of the server under which acknowledged messages could be lost or names damaged."""
    problems = []
    wanted = {
        "server_encoding": ["UTF8"],
        "fsync": ["on"],
        "full_page_writes": ["on"],
        "synchronous_commit": ["on", "local", "remote_write", "remote_apply"],
    }
    for name, allowed in wanted.items():
        value = connection.scalar(sqlalchemy.select(sqlalchemy.func.current_setting(name)))
        if value not in allowed:
            problems.append(f"PostgreSQL's setting {name} is {value}; it must be {' or '.join(allowed)}")
    return problems

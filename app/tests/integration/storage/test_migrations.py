"""The schema on PostgreSQL; `unit/db/test_migrate.py` has the rest, on SQLite."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from monktalk.db import migrate

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

pytestmark = pytest.mark.integration

OLD_TABLE = "CREATE TABLE web_users (node text, token text, domain text, filler int)"
OLD_ROW = "INSERT INTO web_users (node, token, domain) VALUES ('alice', 'secret', 'example.org')"


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def test_an_empty_database_is_brought_to_the_schema(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    assert migrate.upgrade(url).usable
    # The test server does without fsync; that is all there is to complain about.
    problems = migrate.check(url)
    assert [problem.split()[2] for problem in problems] == ["fsync", "full_page_writes"]
    postgres.execute("DROP INDEX offline_messages_mailbox", name_of(url))
    assert any("missing index: offline_messages_mailbox" in problem for problem in migrate.check(url))


def test_several_processes_upgrade_at_the_same_time(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    command = [sys.executable, "-m", "monktalk.db", "upgrade", url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert postgres.execute("SELECT version_num FROM alembic_version", name_of(url)) == [("0002",)]


def test_the_table_of_an_older_installation_is_adopted(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    for statement in (OLD_TABLE, OLD_ROW):
        postgres.execute(statement, name_of(url))
    assert migrate.upgrade(url).usable
    key = (
        "SELECT array_agg(attname::text ORDER BY attname) FROM pg_index JOIN pg_attribute"
        " ON attrelid = indrelid AND attnum = ANY (indkey)"
        " WHERE indrelid = 'web_users'::regclass AND indisprimary"
    )
    assert postgres.execute(key, name_of(url)) == [(["domain", "node"],)]
    postgres.execute(OLD_ROW.replace("alice", "bob"), name_of(url))
    assert postgres.execute("SELECT count(*) FROM web_users", name_of(url)) == [(2,)]


def test_duplicates_of_an_older_installation_are_told(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    for statement in (OLD_TABLE, OLD_ROW, OLD_ROW):
        postgres.execute(statement, name_of(url))
    with pytest.raises(ValueError, match="holds 1 accounts more than once"):
        migrate.upgrade(url)
    assert postgres.execute("SELECT to_regclass('keyvalue')", name_of(url)) == [(None,)]


def test_credentials_can_be_inserted_by_hand_also_after_the_table_has_grown(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    migrate.upgrade(url)
    postgres.execute(OLD_ROW, name_of(url))
    postgres.execute("ALTER TABLE web_users ADD COLUMN note text NOT NULL DEFAULT ''", name_of(url))
    postgres.execute(OLD_ROW.replace("alice", "bob"), name_of(url))
    rows = postgres.execute("SELECT node, token, domain FROM web_users ORDER BY node", name_of(url))
    assert rows == [("alice", "secret", "example.org"), ("bob", "secret", "example.org")]

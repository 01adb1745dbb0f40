from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, text

from monktalk.db import migrate
from monktalk.db.engine import create_engine, write_transaction
from monktalk.db.schema import metadata

if TYPE_CHECKING:
    from pathlib import Path

OLD_TABLE = "CREATE TABLE web_users (node TEXT, token TEXT, domain TEXT)"
OLD_ROW = "INSERT INTO web_users (node, token, domain) VALUES ('alice', 'secret', 'example.org')"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with write_transaction(engine) as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_an_empty_database_is_brought_to_the_schema(url: str) -> None:
    state = migrate.upgrade(url)
    assert state.usable
    assert state.found == state.wanted
    assert migrate.check(url) == []
    engine = create_engine(url)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


def test_upgrading_again_changes_nothing(url: str) -> None:
    migrate.upgrade(url)
    execute(url, OLD_ROW)
    assert migrate.upgrade(url).usable
    assert migrate.check(url) == []


def test_an_empty_database_is_not_usable(url: str) -> None:
    engine = create_engine(url)
    state = migrate.state(engine)
    engine.dispose()
    assert not state.usable
    assert "no schema yet" in state.problem()
    assert "python -m monktalk.db upgrade" in state.problem()
    assert migrate.check(url) == [state.problem()]


def test_the_schema_of_a_newer_release_is_usable(url: str) -> None:
    """Else no release could be rolled back, and no cluster upgraded node by node."""
    migrate.upgrade(url)
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    engine = create_engine(url)
    state = migrate.state(engine)
    engine.dispose()
    assert state.usable
    assert state.problem() == ""


def test_the_schema_of_an_older_release_is_not() -> None:
    state = migrate.SchemaState(found="0001", wanted="0002", known=True)
    assert not state.usable
    assert "has schema revision 0001, this program needs revision 0002" in state.problem()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DROP INDEX offline_messages_mailbox", "offline_messages_mailbox"),
        ("ALTER TABLE accounts DROP COLUMN reason", "reason"),
        ("DROP TABLE keyvalue", "keyvalue"),
    ],
)
def test_check_names_what_is_missing(url: str, damage: str, named: str) -> None:
    migrate.upgrade(url)
    execute(url, damage)
    (problem,) = migrate.check(url)
    assert named in problem
    assert "missing" in problem


def test_check_does_not_mind_what_operators_add(url: str) -> None:
    migrate.upgrade(url)
    execute(
        url,
        "ALTER TABLE web_users ADD COLUMN note TEXT",
        "CREATE INDEX my_own ON web_users (token)",
        "CREATE TABLE somebody_elses (x INTEGER)",
    )
    assert migrate.check(url) == []


def test_the_table_of_an_older_installation_is_adopted(url: str) -> None:
    execute(url, OLD_TABLE, OLD_ROW, OLD_ROW.replace("alice", "bob"))
    assert migrate.upgrade(url).usable
    assert migrate.check(url) == []
    engine = create_engine(url)
    assert set(inspect(engine).get_pk_constraint("web_users")["constrained_columns"]) == {"domain", "node"}
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT node, token, domain FROM web_users ORDER BY node")).all()
    engine.dispose()
    assert rows == [("alice", "secret", "example.org"), ("bob", "secret", "example.org")]


def test_a_table_with_another_key_gets_a_unique_index(url: str) -> None:
    execute(url, "CREATE TABLE web_users (id INTEGER PRIMARY KEY, node TEXT, token TEXT, domain TEXT)", OLD_ROW)
    assert migrate.upgrade(url).usable
    engine = create_engine(url)
    (index,) = inspect(engine).get_indexes("web_users")
    engine.dispose()
    assert index["unique"]
    assert index["column_names"] == ["domain", "node"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (OLD_ROW.replace("secret", "other"), "holds 1 accounts more than once"),
        ("INSERT INTO web_users (node, token) VALUES ('bob', 'x')", "without node, token or domain"),
    ],
)
def test_rows_that_leave_a_question_open_are_told_and_nothing_is_changed(url: str, row: str, problem: str) -> None:
    execute(url, OLD_TABLE, OLD_ROW, row)
    with pytest.raises(ValueError, match=problem) as caught:
        migrate.upgrade(url)
    assert "secret" not in str(caught.value)
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == ["web_users"]
    engine.dispose()


def test_several_processes_upgrade_at_the_same_time(url: str) -> None:
    command = [sys.executable, "-m", "monktalk.db", "upgrade", url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert migrate.check(url) == []

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError

from monktalk.db import migrate
from monktalk.db.engine import create_engine, write_transaction
from monktalk.xmpp.storage.sql.storage import SqlStorage

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

HOST = "example.org"


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/a.db"
    migrate.upgrade(url)
    return url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_credentials_can_be_inserted_by_hand_also_after_the_table_has_grown(engine: Engine) -> None:
    by_hand = "insert into web_users (node, token, domain) values ('{}', 'secret', 'example.org')"
    with write_transaction(engine) as connection:
        connection.execute(text(by_hand.format("alice")))
        connection.execute(text("ALTER TABLE web_users ADD COLUMN note TEXT NOT NULL DEFAULT ''"))
        connection.execute(text(by_hand.format("bob")))
        rows = connection.execute(text("SELECT node, token, domain FROM web_users ORDER BY node")).all()
    assert rows == [("alice", "secret", "example.org"), ("bob", "secret", "example.org")]


def test_an_account_has_one_password(engine: Engine) -> None:
    row = text("INSERT INTO web_users (node, token, domain) VALUES ('alice', :token, :domain)")
    with write_transaction(engine) as connection:
        connection.execute(row, {"token": "1", "domain": "example.org"})
        connection.execute(row, {"token": "2", "domain": "example.net"})
    with pytest.raises(IntegrityError), write_transaction(engine) as connection:
        connection.execute(row, {"token": "3", "domain": "example.org"})


class Plans:
    """Collects the statements of all connections, and asks SQLite how it carries them out."""

    def __init__(self) -> None:
        self.statements: set[str] = set()

    def listen(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(self.note)

    def note(self, statement: str) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
            self.statements.add(statement)

    def scans(self, engine: Engine) -> list[str]:
        """Statements that look at all rows of a table or sort in a temporary tree."""
        found = []
        with engine.connect() as connection:
            for statement in self.statements:
                if "sqlite_master" in statement or "sqlite_sequence" in statement:
                    continue
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
                steps = [row[-1] for row in plan]
                if any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in steps):
                    found.append(f"{statement}: {steps}")
        return found


class Raw:
    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


async def use_everything(storage: SqlStorage) -> None:
    store = storage.keyvalue("roster", Raw(), cache_size=1)
    version = await store.put(HOST, "alice", "k", b"", 0)
    await store.put(HOST, "alice", "k", b"", version)
    await store.put(HOST, "alice", "k", b"", None)
    await store.delete(HOST, "alice", "x", 0)
    await store.delete(HOST, "alice", "k", (await store.put(HOST, "alice", "k", b"", None)))
    await store.delete(HOST, "alice", "k")
    await store.get(HOST, "bob", "k")
    await store.keys(HOST, "alice")
    await store.owners(HOST)
    await store.delete_owner(HOST, "alice")
    await storage.offline.append(HOST, "bob", b"", 1.0, None, 1)
    await storage.offline.load(HOST, "bob", 10)
    await storage.offline.count(HOST, "bob")
    await storage.offline.remove(HOST, "bob", 1)
    await storage.offline.delete_user(HOST, "bob")
    await storage.offline.delete_expired(HOST, 1.0)
    await storage.offline.delete_older(HOST, 1.0)
    await use_sessions(storage)
    storage.accounts.seen(HOST, "alice", 1.0)
    await storage.accounts.add(HOST, "bob", 1.0)
    await storage.accounts.set_disabled(HOST, "bob", True)
    await storage.accounts.disabled(HOST, "carol")
    await storage.accounts.find(HOST, "bob")
    await storage.accounts.list(HOST, 1, 10)
    await storage.accounts.count(HOST)
    await storage.accounts.delete(HOST, "bob")


async def use_sessions(storage: SqlStorage) -> None:
    sessions, offline = storage.sessions, storage.offline
    one = await sessions.open("one", HOST, "bob", "r", "dead", True, b"")
    await sessions.open("two", HOST, "bob", "r", "dead", True, b"")
    await offline.deliver(HOST, "bob", b"", 1.0, [(one, 1)], "alice's", 1)
    await offline.deliver(HOST, "bob", b"", 1.0, [(one, 2)], "alice's", 1)
    await offline.append(HOST, "bob", b"", 1.0, 5.0, 1, "alice's", 2)
    await offline.append(HOST, "bob", b"", 1.0, 5.0, 0, "alice's", 2)
    await offline.assign(HOST, "bob", list(range(1, 1000)), one, 3)
    await sessions.handled(one, 1)
    (adopted,) = await sessions.adopt_from("dead", "me", 1)
    other, *_ = await sessions.adopt(HOST, "bob", "me")
    await offline.renumber(adopted.id, 0)
    await offline.reassign(HOST, "bob", adopted.id, [(1, other.id, 1), (2, None, 0)], close=True)
    await offline.forget_delivered(5.0)
    await sessions.close(other.id)
    await offline.delete_user(HOST, "bob")


async def test_every_query_has_its_index(url: str, engine: Engine) -> None:
    plans = Plans()
    storage = SqlStorage(url)
    event.listen(storage._engine, "connect", plans.listen)
    await storage.start()
    plans.statements.clear()  # those of the check of the schema
    await use_everything(storage)
    await storage.close()
    assert len(plans.statements) >= 60
    assert plans.scans(engine) == []

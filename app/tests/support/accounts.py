"""Accounts as the operator makes them: one row in ``web_users``, written with plain SQL."""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_serial = itertools.count(1)
_run = secrets.token_hex(3)


@dataclass(frozen=True)
class Account:
    """An account and its password."""

    user: str
    host: str
    password: str

    @property
    def jid(self) -> str:
        """The bare JID."""
        return f"{self.user}@{self.host}"


def fresh_name(name: str = "user") -> str:
    """A user name that no other test has."""
    return f"{name}-{_run}{next(_serial)}"


def execute(database: Path, statement: str, *values: str) -> None:
    """Run one statement and commit."""
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        connection.execute(statement, values)


def insert_account(database: Path, account: Account) -> None:
    """Insert the account as contracts for operators say: three columns, the token in clear."""
    execute(
        database,
        "insert into web_users (node, token, domain) values (?, ?, ?)",
        account.user,
        account.password,
        account.host,
    )


def stored_token(database: Path, account: Account) -> str:
    """What ``web_users`` holds for the account now."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        row = connection.execute(
            "select token from web_users where node = ? and domain = ?", (account.user, account.host)
        ).fetchone()
    assert row is not None, f"{account.jid} is not in web_users"
    return str(row[0])

"""The accounts of an embedded run."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing

import pytest

from monktalk.embedded import accounts, environment
from monktalk.embedded.files import Files, Unusable


@pytest.fixture
def make(variables):
    """``make(MONKTALK_ACCOUNTS="…")``: the accounts of a run with those variables; the passwords by JID."""

    def make(**more: str) -> dict[str, str]:
        settings = environment.read(variables | more)
        files = Files(settings)
        files.prepare()
        return accounts.make(settings, files)

    return make


@pytest.fixture
def files(variables) -> Files:
    return Files(environment.read(variables))


def query(files: Files, statement: str, *values: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(files.database)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def tokens(files: Files) -> dict[str, str]:
    """What `web_users` holds, by JID."""
    return {
        f"{node}@{domain}": token for node, domain, token in query(files, "select node, domain, token from web_users")
    }


def test_two_accounts_get_random_passwords(make, files):
    found = make()
    assert list(found) == ["alice@localhost", "bob@localhost"]
    assert tokens(files) == found
    assert len(set(found.values())) == 2
    assert all(len(password) >= 12 for password in found.values())


def test_the_server_knows_them_from_the_start(make, files):
    make()
    assert query(files, "select username from accounts order by username") == [("alice",), ("bob",)]


def test_passwords_stay_for_the_next_run(make, files):
    first = make()
    assert make() == first
    assert tokens(files) == first
    assert stat.S_IMODE(files.accounts.stat().st_mode) == 0o600


def test_accounts_and_administrator_are_named_by_the_environment(make, files):
    found = make(MONKTALK_ACCOUNTS="romeo:r", MONKTALK_ADMIN="boss:b", MONKTALK_DOMAIN="chat.example")
    assert found == {"romeo@chat.example": "r", "boss@chat.example": "b"}
    assert tokens(files) == found


def test_accounts_of_another_run_stay(make, files):
    first = make()
    make(MONKTALK_ACCOUNTS="romeo:r")
    assert tokens(files) == first | {"romeo@localhost": "r"}
    assert make() == first


def test_a_named_password_replaces_the_one_before(make, files):
    make(MONKTALK_ACCOUNTS="romeo:old")
    make(MONKTALK_ACCOUNTS="romeo:new")
    assert tokens(files)["romeo@localhost"] == "new"


def test_credentials_that_were_turned_into_keys_are_kept(make, files):
    make(MONKTALK_ACCOUNTS="romeo:secret")
    query(files, "update web_users set token = ?", "==MULTI_SCRAM==,…")
    make(MONKTALK_ACCOUNTS="romeo:secret")
    assert tokens(files) == {"romeo@localhost": "==MULTI_SCRAM==,…"}
    make(MONKTALK_ACCOUNTS="romeo:other")
    assert tokens(files) == {"romeo@localhost": "other"}


def test_an_account_that_was_removed_comes_back_with_its_password(make, files):
    first = make()
    query(files, "delete from web_users where node = 'alice'")
    assert make() == first
    assert tokens(files) == first


def test_passwords_that_can_not_be_read_are_told(make, files):
    make()
    files.accounts.write_text("{")
    with pytest.raises(Unusable, match=r"accounts\.json can't be read: .*; remove it, and new passwords are made up"):
        make()
    files.accounts.unlink()
    fresh = make()
    assert tokens(files) == fresh


def test_a_database_that_is_none_is_told(make, files):
    make()
    files.database.write_bytes(b"nonsense" * 1000)
    with pytest.raises(Unusable, match=r"the database .*monktalk\.db can't be used: file is not a database"):
        make()

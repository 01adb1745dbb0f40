from __future__ import annotations

import pytest

from monktalk.auth.errors import AccountExists, Unavailable
from monktalk.auth.web_users import WebUsersTable


@pytest.fixture
def table(database):
    table = WebUsersTable(database.url)
    yield table
    table.close()


def test_a_row_inserted_by_hand_is_found_also_when_the_table_has_grown(table, database):
    database.execute("alter table web_users add column colour text not null default 'green'")
    database.insert("alice", "secret")
    assert table.token("example.org", "alice") == "secret"
    table.insert("example.org", "bob", "hidden")
    assert database.token("bob") == "hidden"


def test_domains_do_not_see_each_other(table, database):
    database.insert("alice", "secret", "other.example")
    assert table.token("example.org", "alice") is None
    assert not table.set("example.org", "alice", "x")
    assert not table.delete("example.org", "alice")
    assert database.token("alice", "other.example") == "secret"


def test_names_are_compared_exactly_and_are_never_sql(table, database):
    database.insert("alice", "secret")
    for name in ("Alice", "alice ", "al%", "alice' or '1'='1", "alice'--"):
        assert table.token("example.org", name) is None


def test_an_account_is_made_once(table, database):
    table.insert("example.org", "alice", "first")
    with pytest.raises(AccountExists):
        table.insert("example.org", "alice", "second")
    assert database.token("alice") == "first"


def test_a_token_is_replaced_only_if_nobody_has_changed_it(table, database):
    database.insert("alice", "new")
    assert not table.replace("example.org", "alice", "old", "upgraded")
    assert database.token("alice") == "new"
    assert table.replace("example.org", "alice", "new", "upgraded")
    assert database.token("alice") == "upgraded"


def test_changes_say_whether_there_was_an_account(table, database):
    database.insert("alice", "secret")
    assert table.set("example.org", "alice", "other")
    assert table.delete("example.org", "alice")
    assert not table.set("example.org", "alice", "other")
    assert not table.delete("example.org", "alice")


def test_a_database_that_does_not_answer_is_unavailable_and_logged_without_any_value(tmp_path, caplog):
    table = WebUsersTable(f"sqlite:///{tmp_path}/nowhere/web_users.db")
    for action in (
        lambda: table.token("example.org", "alice"),
        lambda: table.insert("example.org", "alice", "s3cret"),
        lambda: table.delete("example.org", "alice"),
    ):
        with pytest.raises(Unavailable) as caught:
            action()
        assert caught.value.__cause__ is None
    assert [record.message for record in caplog.records] == ["database_failed"] * 3
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])
    table.close()


def test_a_constraint_that_is_not_ours_is_unavailable_and_not_quoted(table, database, caplog):
    database.execute("drop table web_users")
    database.execute(
        "create table web_users (node text, token text check (length(token) < 5), domain text, primary key (domain, node))"
    )
    with pytest.raises(Unavailable):
        table.insert("example.org", "alice", "s3cret")
    database.insert("alice", "ok")
    with pytest.raises(Unavailable):
        table.set("example.org", "alice", "s3cret")
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])


def test_nothing_is_connected_before_the_first_call(tmp_path):
    path = tmp_path / "web_users.db"
    WebUsersTable(f"sqlite:///{path}")
    assert not path.exists()

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from monktalk.db.engine import DatabaseURLError, create_engine, describe_url, parse_url, write_transaction

if TYPE_CHECKING:
    from pathlib import Path


def libpq_settings(url: str, **options: Any) -> dict[str, Any]:
    """What the driver would be called with."""
    engine = create_engine(url, **options)
    seen: dict[str, Any] = {}

    def do_connect(_dialect: object, _record: object, _arguments: object, settings: dict[str, Any]) -> None:
        seen.update(settings)
        raise ConnectionError

    event.listen(engine, "do_connect", do_connect)
    with pytest.raises(ConnectionError):
        engine.connect()
    return seen


def test_postgresql_is_called_with_bounded_waits() -> None:
    settings = libpq_settings("postgresql://monk:p%40ss@db.example:5433/xmpp", statement_timeout=4)
    assert settings["host"] == "db.example"
    assert int(settings["port"]) == 5433
    assert settings["user"] == "monk"
    assert settings["password"] == "p@ss"
    assert settings["dbname"] == "xmpp"
    assert settings["connect_timeout"] == "3"
    assert settings["target_session_attrs"] == "read-write"
    assert settings["keepalives"] == "1"
    assert "statement_timeout=4000" in settings["options"]
    assert "lock_timeout=2000" in settings["options"]


def test_several_hosts_are_left_to_libpq() -> None:
    settings = libpq_settings("postgresql://monk:pw@db1:5433,db2,[2001:db8::1]:5434/xmpp")
    assert settings["host"] == "db1,db2,2001:db8::1"
    assert settings["port"] == "5433,5432,5434"
    assert settings["dbname"] == "xmpp"
    assert settings["password"] == "pw"


def test_what_the_address_says_wins() -> None:
    settings = libpq_settings("postgresql://db/xmpp?connect_timeout=9&sslmode=verify-full&passfile=/run/pw")
    assert settings["connect_timeout"] == "9"
    assert settings["sslmode"] == "verify-full"
    assert settings["passfile"] == "/run/pw"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_driver_is_always_the_same(scheme: str) -> None:
    assert parse_url(f"{scheme}://db/xmpp")[0].drivername == "postgresql+psycopg2"


def test_a_socket_directory_may_stand_in_the_query() -> None:
    assert libpq_settings("postgresql://monk@/xmpp?host=/run/postgresql")["host"] == "/run/postgresql"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://monk:secret@db:5432/xmpp?password=secret", "postgresql://monk:***@db:5432/xmpp"),
        ("postgresql://monk:secret@a:1,[::1]/xmpp", "postgresql://monk:***@a:1,[::1]/xmpp"),
        ("postgres://monk@db/xmpp", "postgresql://monk@db/xmpp"),
        ("postgresql:///xmpp", "postgresql:///xmpp"),
        ("sqlite:////var/lib/monktalk.db", "sqlite:////var/lib/monktalk.db"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert describe_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "xmpp",
        "postgresql://user:secret@db:port/x",
        "postgresql://u:secret@db:5432,db 2:x/y",
        "mysql://u:secret@db/x",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(DatabaseURLError) as caught:
        create_engine(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_sqlite_is_durable_and_private(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(text("PRAGMA busy_timeout")) == 10_000
    with write_transaction(engine) as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["a.db"] == 0o600
    assert set(modes.values()) == {0o600}
    engine.dispose()


def test_a_missing_directory_is_an_error_of_the_database(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/missing/a.db")
    with pytest.raises(OperationalError):
        engine.connect()
    assert not (tmp_path / "missing").exists()


def test_a_transaction_that_reads_first_does_not_lose_against_another_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    engine = create_engine(url)
    with write_transaction(engine) as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (0)"))
    ready = threading.Barrier(4)

    def increment() -> None:
        ready.wait()
        for _ in range(25):
            with write_transaction(engine) as connection:
                value = connection.scalar(text("SELECT x FROM t"))
                connection.execute(text("UPDATE t SET x = :x"), {"x": value + 1})

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT x FROM t")) == 100
    engine.dispose()


def test_errors_do_not_quote_values(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("INSERT INTO missing VALUES (:token)"), {"token": "secret"})
    assert "secret" not in str(caught.value)
    engine.dispose()

"""A real PostgreSQL, as for the tests of the application, and another one that stands for another cluster."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from tests.postgres import postgres, postgres_victim  # noqa: F401 - fixtures

FUNCTIONS = Path(__file__).parents[1] / "files/dbcl.sql"


class Database:
    """A database with the functions in it, used by an owner who may do no more than owners may."""

    def __init__(self, server):
        self.server = server
        self.name = server.create_database().rpartition("/")[2]
        self.owner = f"owner_{self.name}"
        server.execute(f"create role {self.owner} login password 'owner'")
        server.execute(f"alter database {self.name} owner to {self.owner}")
        self.install()
        self.connection = psycopg2.connect(
            host="127.0.0.1", port=server.port, user=self.owner, password="owner", dbname=self.name
        )
        self.connection.autocommit = True

    def install(self):
        """What the role does."""
        self.server.execute(FUNCTIONS.read_text("utf-8"), self.name)
        self.server.execute(
            f"grant usage on schema dbcl to {self.owner};"
            f"grant select, insert, update, delete on all tables in schema dbcl to {self.owner};"
            f"grant usage on foreign data wrapper postgres_fdw to {self.owner};",
            self.name,
        )

    def run(self, statement, *values):
        """Rows of one statement, as the owner."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, statement, *values):
        return self.run(statement, *values)[0][0]

    def where(self, table, column):
        """Which values are in which part."""
        found = {}
        for part, value in self.run(f"select tableoid::regclass::text, {column} from {table} order by 1, 2"):  # noqa: S608
            found.setdefault(part, []).append(value)
        return found


@pytest.fixture(scope="module")
def server(postgres):  # noqa: F811
    return postgres


@pytest.fixture
def database(server):
    made = Database(server)
    yield made
    made.connection.close()


@pytest.fixture
def elsewhere(postgres_victim):  # noqa: F811
    made = Database(postgres_victim)
    yield made
    made.connection.close()

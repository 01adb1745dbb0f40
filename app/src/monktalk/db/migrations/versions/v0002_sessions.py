"""Messages that were given to sessions, and the sessions, so that another process can go on with them.

The release before goes on working: its mailbox queries find the prefix of the new index, what it stores waits in the
mailbox, and only its deletion of messages by age looks at more rows than it needs to.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for column in (
        sa.Column("session", sa.BigInteger(), nullable=True),
        sa.Column("out_seq", sa.BigInteger(), nullable=True),
        sa.Column("origin", BYTEWISE, nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("part", sa.Integer(), nullable=False, server_default="0"),
    ):
        op.add_column("offline_messages", column)
    op.drop_index("offline_messages_mailbox", "offline_messages")
    op.drop_index("offline_messages_stamp", "offline_messages")
    create_index("offline_messages_mailbox", ["host", "username", "session", "id"])
    create_index("offline_messages_stamp", ["host", "stamp"], only="session IS NULL")
    create_index("offline_messages_origin", ["origin", "number", "part"], only="origin IS NOT NULL", unique=True)
    create_index("offline_messages_session", ["session", "out_seq"], only="session IS NOT NULL")
    create_index("offline_messages_given", ["stamp"], only="session IS NOT NULL")
    create_sessions()


def create_index(name: str, columns: list[str], *, only: str | None = None, unique: bool = False) -> None:
    """An index of messages, or only of those that meet a condition."""
    where = sa.text(only) if only else None
    op.create_index(name, "offline_messages", columns, unique=unique, postgresql_where=where, sqlite_where=where)


def create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("token", BYTEWISE, nullable=False),
        sa.Column("host", BYTEWISE, nullable=False),
        sa.Column("username", BYTEWISE, nullable=False),
        sa.Column("resource", BYTEWISE, nullable=False),
        sa.Column("owner", BYTEWISE, nullable=False),
        sa.Column("handled", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("acknowledged", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("resumable", sa.Boolean(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("stamp", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="sessions_pkey"),
        sqlite_autoincrement=True,
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("sessions_token", "sessions", ["token"], unique=True)
    op.create_index("sessions_user", "sessions", ["host", "username"])
    op.create_index("sessions_owner", "sessions", ["owner", "id"])

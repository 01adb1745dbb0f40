"""The first schema: credentials, key-value store, offline messages, accounts.

An installation that this one replaces may have left its `web_users` in the database: that table is kept, and
only given the primary key that it lacked.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("web_users"):
        adopt_web_users()
    else:
        op.create_table(
            "web_users",
            sa.Column("node", BYTEWISE, nullable=False),
            sa.Column("token", sa.Text(), nullable=False),
            sa.Column("domain", BYTEWISE, nullable=False),
            sa.PrimaryKeyConstraint("domain", "node", name="web_users_pkey"),
        )
    op.create_table(
        "keyvalue",
        sa.Column("tbl", BYTEWISE, nullable=False),
        sa.Column("host", BYTEWISE, nullable=False),
        sa.Column("owner", BYTEWISE, nullable=False),
        sa.Column("key", BYTEWISE, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tbl", "host", "owner", "key", name="keyvalue_pkey"),
    )
    create_offline_messages()
    op.create_table(
        "accounts",
        sa.Column("host", BYTEWISE, nullable=False),
        sa.Column("username", BYTEWISE, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("last_login", sa.Double(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("host", "username", name="accounts_pkey"),
    )


def create_offline_messages() -> None:
    op.create_table(
        "offline_messages",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("host", BYTEWISE, nullable=False),
        sa.Column("username", BYTEWISE, nullable=False),
        sa.Column("stanza", sa.LargeBinary(), nullable=False),
        sa.Column("stamp", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="offline_messages_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_index("offline_messages_mailbox", "offline_messages", ["host", "username", "id"])
    op.create_index("offline_messages_stamp", "offline_messages", ["host", "stamp"])
    op.create_index(
        "offline_messages_expires",
        "offline_messages",
        ["host", "expires"],
        postgresql_where=sa.text("expires IS NOT NULL"),
        sqlite_where=sa.text("expires IS NOT NULL"),
    )


def adopt_web_users() -> None:
    """Give the table of an older installation its primary key.

    Raises:
        ValueError: its rows do not allow one; the message says how to find them.
    """
    connection = op.get_bind()
    users = sa.table("web_users", sa.column("node"), sa.column("token"), sa.column("domain"))
    unusable = sa.or_(users.c.node.is_(None), users.c.domain.is_(None), users.c.token.is_(None))
    if connection.scalar(sa.select(sa.func.count()).select_from(users).where(unusable)):
        raise ValueError(
            "the existing table web_users has rows without node, token or domain, which serve nobody; remove "
            " those with `node is null or token is null or domain is null`"
        )
    several = sa.select(users.c.domain).group_by(users.c.domain, users.c.node).having(sa.func.count() > 1)
    duplicates = connection.scalar(sa.select(sa.func.count()).select_from(several.subquery()))
    if duplicates:
        raise ValueError(
            f"the existing table web_users holds {duplicates} accounts more than once, so that it is open "
            "which password counts; find them with `group by domain, node having count(*) > 1` and leave one "
            "row of each"
        )
    with op.batch_alter_table("web_users") as table:
        for column in ("node", "domain"):
            table.alter_column(column, existing_type=sa.Text(), type_=BYTEWISE, nullable=False)
        table.alter_column("token", existing_type=sa.Text(), nullable=False)
        key = set(sa.inspect(connection).get_pk_constraint("web_users")["constrained_columns"])
        if not key:
            table.create_primary_key("web_users_pkey", ["domain", "node"])
        elif key != {"domain", "node"}:
            table.create_index("web_users_account", ["domain", "node"], unique=True)

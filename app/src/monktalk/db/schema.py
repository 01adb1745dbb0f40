"""The SQL schema of all programs, and which query each index serves.

Text that is compared or sorted has the collation "C" on PostgreSQL: comparisons are those of the bytes, as on
SQLite, sorting is the same everywhere, and an update of the C library's locales cannot damage an index.

web_users
    Credentials of the domains that authenticate on this database. `token` holds the password or its SCRAM
    form. Primary key (domain, node): `where domain = ? and node = ?`, the auth service's only read; it also
    makes that read unambiguous. Columns added later must have defaults, because operators insert
    (node, token, domain) by hand.
keyvalue
    Versioned values (rosters, vCards, private storage ...). Primary key (tbl, host, owner, key): all four for
    get, put and delete; its prefixes for the keys of an owner, the owners of a host, and deleting an owner.
offline_messages
    Messages waiting for a user. Index (host, username, id): load in order, remove up to an id, count, delete
    a user. Index (host, expires), only of messages that expire: delete expired messages. Index (host, stamp):
    delete messages older than a date. Ids are not used again, so that `remove up to` cannot hit a message
    that arrived later.
accounts
    Accounts seen or made. Primary key (host, username): find, disable, delete; its prefix lists and counts a
    host.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    false,
)

metadata: Final = MetaData(naming_convention={"pk": "%(table_name)s_pkey", "ix": "%(table_name)s_%(column_0_N_name)s"})

BYTEWISE: Final = Text().with_variant(Text(collation="C"), "postgresql")

# SQLite gives out ids only for its own INTEGER type, which has 64 bits there.
SERIAL: Final = BigInteger().with_variant(Integer(), "sqlite")

web_users: Final = Table(
    "web_users",
    metadata,
    Column("node", BYTEWISE, nullable=False),
    Column("token", Text, nullable=False),
    Column("domain", BYTEWISE, nullable=False),
    PrimaryKeyConstraint("domain", "node"),
)

keyvalue: Final = Table(
    "keyvalue",
    metadata,
    Column("tbl", BYTEWISE, nullable=False),
    Column("host", BYTEWISE, nullable=False),
    Column("owner", BYTEWISE, nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
    PrimaryKeyConstraint("tbl", "host", "owner", "key"),
)

offline_messages: Final = Table(
    "offline_messages",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("host", BYTEWISE, nullable=False),
    Column("username", BYTEWISE, nullable=False),
    Column("stanza", LargeBinary, nullable=False),
    Column("stamp", Double, nullable=False),
    Column("expires", Double, nullable=True),
    sqlite_autoincrement=True,
)
Index("offline_messages_mailbox", *(offline_messages.c[name] for name in ("host", "username", "id")))
Index("offline_messages_stamp", offline_messages.c.host, offline_messages.c.stamp)
Index(
    "offline_messages_expires",
    offline_messages.c.host,
    offline_messages.c.expires,
    postgresql_where=offline_messages.c.expires.is_not(None),
    sqlite_where=offline_messages.c.expires.is_not(None),
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("host", BYTEWISE, nullable=False),
    Column("username", BYTEWISE, nullable=False),
    Column("created", Double, nullable=False),
    Column("last_login", Double, nullable=True),
    Column("disabled", Boolean, nullable=False, server_default=false()),
    Column("reason", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("host", "username"),
)

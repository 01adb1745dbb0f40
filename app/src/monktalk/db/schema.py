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
    Messages for users: waiting in the mailbox (`session` null), or given to a session as the `out_seq`-th stanza of
    its stream. Index (host, username, session, id): what waits, in order, up to an id, how many; deleting a user,
    waiting and given; releases that know no sessions use its prefix. Index (host, expires), only of messages that
    expire: delete expired messages. Index (host, stamp), only of those that wait: delete messages older than a
    date. Unique index (origin, number, part): recognise what a sender repeats; `part` counts the sessions that one
    message was given to. Index (session, out_seq), only of given ones: what an adopted session has, in order.
    Index (stamp), only of given ones: forget what was delivered long ago. Ids are not used again, so that `remove
    up to` cannot hit a message that arrived later.
sessions
    Sessions, so that another process can go on with those of one that died. `id` changes with every adoption.
    Unique index (token): opening a session again after an interrupted commit. Index (host, username): adopt the
    sessions of a user. Index (owner, id): adopt those of a dead owner, count them. Rows are updated all the time:
    `fillfactor` leaves room for that on the same page, without touching an index (PostgreSQL's HOT updates).
accounts
    Accounts seen or made. Primary key (host, username): find, disable, delete; its prefix lists and counts a
    host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

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
    Column("session", BigInteger, nullable=True),
    Column("out_seq", BigInteger, nullable=True),
    Column("origin", BYTEWISE, nullable=True),
    Column("number", BigInteger, nullable=True),
    Column("part", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
_MESSAGE: Final = offline_messages.c


def _index(name: str, *columns: Column[Any], only: ColumnElement[bool] | None = None, unique: bool = False) -> None:
    Index(name, *columns, unique=unique, postgresql_where=only, sqlite_where=only)


_index("offline_messages_mailbox", _MESSAGE.host, _MESSAGE.username, _MESSAGE.session, _MESSAGE.id)
_index("offline_messages_stamp", _MESSAGE.host, _MESSAGE.stamp, only=_MESSAGE.session.is_(None))
_index("offline_messages_expires", _MESSAGE.host, _MESSAGE.expires, only=_MESSAGE.expires.is_not(None))
_index(
    "offline_messages_origin",
    _MESSAGE.origin,
    _MESSAGE.number,
    _MESSAGE.part,
    only=_MESSAGE.origin.is_not(None),
    unique=True,
)
_index("offline_messages_session", _MESSAGE.session, _MESSAGE.out_seq, only=_MESSAGE.session.is_not(None))
_index("offline_messages_given", _MESSAGE.stamp, only=_MESSAGE.session.is_not(None))

sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("token", BYTEWISE, nullable=False),
    Column("host", BYTEWISE, nullable=False),
    Column("username", BYTEWISE, nullable=False),
    Column("resource", BYTEWISE, nullable=False),
    Column("owner", BYTEWISE, nullable=False),
    Column("handled", BigInteger, nullable=False, server_default="0"),
    Column("acknowledged", BigInteger, nullable=False, server_default="0"),
    Column("resumable", Boolean, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("stamp", Double, nullable=False),
    sqlite_autoincrement=True,
    postgresql_with={"fillfactor": 50},
)
_index("sessions_token", sessions.c.token, unique=True)
_index("sessions_user", sessions.c.host, sessions.c.username)
_index("sessions_owner", sessions.c.owner, sessions.c.id)

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

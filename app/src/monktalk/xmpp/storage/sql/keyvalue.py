"""Key-value tables in SQL: each write is one statement that compares the version and swaps the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, select, update

from monktalk.db.query import Query
from monktalk.db.schema import keyvalue
from monktalk.xmpp.storage.interfaces import VersionConflict
from monktalk.xmpp.storage.sql.dialect import inserts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.keyvalue import Key
    from monktalk.xmpp.storage.sql.submit import SubmitRead, SubmitWrite

Row = dict[str, str]
"""The four columns of the primary key."""

_COLUMNS = keyvalue.c
_THIS_OWNER = and_(
    _COLUMNS.tbl == bindparam("p_tbl"),
    _COLUMNS.host == bindparam("p_host"),
    _COLUMNS.owner == bindparam("p_owner"),
)
_THIS_ROW = and_(_THIS_OWNER, _COLUMNS.key == bindparam("p_key"))
_THIS_VERSION = and_(_THIS_ROW, _COLUMNS.version == bindparam("p_expected"))

_READ = Query(select(_COLUMNS.value, _COLUMNS.version).where(_THIS_ROW))
_VERSION = select(_COLUMNS.version).where(_THIS_ROW)
_KEYS = select(_COLUMNS.key).where(_THIS_OWNER).order_by(_COLUMNS.key)
_OWNERS = (
    select(_COLUMNS.owner)
    .where(_COLUMNS.tbl == bindparam("p_tbl"), _COLUMNS.host == bindparam("p_host"))
    .distinct()
    .order_by(_COLUMNS.owner)
)
_SWAP = update(keyvalue).where(_THIS_VERSION).values(value=bindparam("p_value"), version=bindparam("p_expected") + 1)
_NEW = inserts(keyvalue, lambda insert: insert.on_conflict_do_nothing())
_UPSERT = inserts(
    keyvalue,
    lambda insert: insert.on_conflict_do_update(
        index_elements=list(keyvalue.primary_key),
        set_={"value": insert.excluded.value, "version": _COLUMNS.version + 1},
    ),
)
_DELETE = delete(keyvalue).where(_THIS_ROW)
_DELETE_VERSION = delete(keyvalue).where(_THIS_VERSION)
_DELETE_OWNER = delete(keyvalue).where(_THIS_OWNER)


@dataclass(frozen=True, slots=True)
class Put:
    """Store `data`; a value that is not there yet gets the version `first`."""

    table: str
    key: Key
    data: bytes
    expected: int | None
    first: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one value."""

    table: str
    key: Key
    expected: int | None


@dataclass(frozen=True, slots=True)
class DeleteOwner:
    """Delete all values of an owner; `key` has host and owner only."""

    table: str
    key: tuple[str, str]


Request = Put | Delete | DeleteOwner


class KeyValueApplier:
    """Carries out writes of key-value tables. See `Applier`."""

    def begin(self) -> None:
        """Nothing is kept between writes."""

    def settle(self, *, committed: bool) -> None:
        """Nothing is kept between writes."""

    def alone(self, request: Request) -> bool:
        """See `Applier.alone`."""
        return False

    def repeat(self, request: Request) -> bool:
        """See `Applier.repeat`. A write that took place would be taken for somebody else's."""
        return False

    def apply(self, connection: Connection, requests: Sequence[Request]) -> list[Any]:
        """See `Applier.apply`. Outcomes: version (put), whether it was there (delete), count (owner)."""
        outcomes: list[Any] = [None] * len(requests)
        # All processes lock rows in the same order, so that none waits for another in a circle. The sort is
        # stable: writes of one owner stay in the order of the calls.
        for place in sorted(range(len(requests)), key=lambda at: (requests[at].table, *requests[at].key[:2])):
            try:
                outcomes[place] = _apply(connection, requests[place])
            except VersionConflict as conflict:
                outcomes[place] = conflict
        return outcomes


class SqlKeyValue:
    """A `KeyValueBackend` on SQL; `now` is the time in seconds since 1970."""

    def __init__(
        self, write: SubmitWrite, read: SubmitRead, applier: KeyValueApplier, now: Callable[[], float]
    ) -> None:
        self._write = write
        self._read = read
        self._applier = applier
        self._now = now

    def read(self, table: str, key: Key) -> asyncio.Future[tuple[bytes, int] | None]:
        """See `KeyValueBackend.read`."""
        row = _row(table, *key)

        def work(connection: Connection) -> tuple[bytes, int] | None:
            for value, version in _READ.rows(connection, row):
                return bytes(value), version
            return None

        return self._read(work)

    def put(self, table: str, key: Key, data: bytes, expected: int | None) -> asyncio.Future[int]:
        """See `KeyValueBackend.put`."""
        # Counting from the time makes versions unique over deletions: a value that is put again later starts
        # above every version that the deleted one ever had.
        first = int(self._now() * 1_000_000)
        return self._write(self._applier, Put(table, key, data, expected, first), len(data))

    def delete(self, table: str, key: Key, expected: int | None) -> asyncio.Future[bool]:
        """See `KeyValueBackend.delete`."""
        return self._write(self._applier, Delete(table, key, expected))

    def delete_owner(self, table: str, host: str, owner: str) -> asyncio.Future[int]:
        """See `KeyValueBackend.delete_owner`."""
        return self._write(self._applier, DeleteOwner(table, (host, owner)))

    def keys(self, table: str, host: str, owner: str) -> asyncio.Future[list[str]]:
        """See `KeyValueBackend.keys`."""
        row = _row(table, host, owner)
        return self._read(lambda connection: list(connection.scalars(_KEYS, row)))

    def owners(self, table: str, host: str) -> asyncio.Future[list[str]]:
        """See `KeyValueBackend.owners`."""
        row = _row(table, host)
        return self._read(lambda connection: list(connection.scalars(_OWNERS, row)))


def _row(table: str, *key: str) -> Row:
    return dict(zip(("p_tbl", "p_host", "p_owner", "p_key"), (table, *key), strict=False))


def _apply(connection: Connection, request: Request) -> int | bool:
    match request:
        case Put():
            return _put(connection, request)
        case Delete():
            return _delete(connection, request)
        case DeleteOwner():
            return connection.execute(_DELETE_OWNER, _row(request.table, *request.key)).rowcount


def _put(connection: Connection, request: Put) -> int:
    row = _row(request.table, *request.key)
    if request.expected:
        swapped = connection.execute(_SWAP, row | {"p_value": request.data, "p_expected": request.expected})
        if swapped.rowcount == 0:
            raise _conflict(request)
        return request.expected + 1
    host, owner, key = request.key
    new = {
        "tbl": request.table,
        "host": host,
        "owner": owner,
        "key": key,
        "value": request.data,
        "version": request.first,
    }
    if request.expected == 0:
        if connection.execute(_NEW[connection.dialect.name], new).rowcount == 0:
            raise _conflict(request)
        return request.first
    connection.execute(_UPSERT[connection.dialect.name], new)
    # The row is locked by this transaction. (RETURNING would save this, but needs SQLite 3.35.)
    return int(connection.execute(_VERSION, row).scalar_one())


def _delete(connection: Connection, request: Delete) -> bool:
    row = _row(request.table, *request.key)
    if request.expected is None:
        return connection.execute(_DELETE, row).rowcount > 0
    if request.expected == 0:
        if connection.execute(_VERSION, row).one_or_none() is not None:
            raise _conflict(request)
        return False
    if connection.execute(_DELETE_VERSION, row | {"p_expected": request.expected}).rowcount == 0:
        raise _conflict(request)
    return True


def _conflict(request: Put | Delete) -> VersionConflict:
    names = "/".join(request.key)
    return VersionConflict(f"{request.table} {names}: the stored version is not {request.expected}")

"""Taking over sessions of other owners.

A session that is taken over gets a new id. Whoever writes to it under the former one holds a lock on that key, or finds
it gone; whoever else wants to adopt it does so, too.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, select, text, true

from monktalk.db.schema import sessions
from monktalk.xmpp.storage.interfaces import Adopted, SessionMessage
from monktalk.xmpp.storage.sql.dialect import on_postgresql
from monktalk.xmpp.storage.sql.statements import MESSAGES_OF, MOVE_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from monktalk.xmpp.storage.sql.requests import Adopt

MAX_LOST: Final = 1_000

_COLUMNS = sessions.c
_LOCK = select(_COLUMNS.id).order_by(_COLUMNS.id).with_for_update()

# PostgreSQL only. The names of the columns are those of `Adopted`.
_RENAME = text(
    "UPDATE sessions AS session SET id = DEFAULT, owner = :owner"
    " FROM unnest(CAST(:ids AS bigint[])) AS former(id) WHERE session.id = former.id"
    " RETURNING former.id AS former, session.id, token, host, username AS user, resource, handled, acknowledged,"
    " resumable, state, stamp"
)


@dataclass(slots=True)
class _Taken:
    former: int
    adopted: Adopted


class Adoption:
    """Carries out adoptions, and remembers those that nobody has heard of because the commit was interrupted."""

    def __init__(self) -> None:
        self._lost: OrderedDict[int, None] = OrderedDict()
        self._taken: list[_Taken] = []

    @property
    def has_lost(self) -> bool:
        """There are adoptions that nobody has heard of."""
        return bool(self._lost)

    def begin(self) -> None:
        """A transaction begins."""
        self._taken.clear()

    def settle(self, *, committed: bool) -> None:
        """The transaction is durable, or was rolled back, or nobody knows."""
        for taken in self._taken:
            if committed:
                self._lost.pop(taken.former, None)
            else:
                self._lost[taken.adopted.id] = None
        while len(self._lost) > MAX_LOST:
            self._lost.popitem(last=False)
        self.begin()

    def adopt(self, connection: Connection, request: Adopt) -> list[Adopted]:
        """The sessions that the request asks for, and those of it that an earlier attempt has taken."""
        ids = self._find(connection, request)
        if not ids:
            return []
        rename = _rename_on_postgresql if on_postgresql(connection) else _rename_on_sqlite
        taken = rename(connection, ids, request.owner)
        MOVE_MESSAGES.run(connection, [(new.adopted.id, new.former, new.adopted.acknowledged) for new in taken])
        messages: dict[int, list[SessionMessage]] = {new.adopted.id: new.adopted.messages for new in taken}
        for session, out_seq, stamp, stanza in MESSAGES_OF.rows(connection, [(id_,) for id_ in messages]):
            messages[session].append(SessionMessage(out_seq, stamp, bytes(stanza)))
        self._taken += taken
        return [new.adopted for new in taken]

    def _find(self, connection: Connection, request: Adopt) -> list[int]:
        """Ids of sessions, which are locked then."""
        here: ColumnElement[bool] = true()
        if request.mailbox is None:
            found = _find_of_owner(connection, request.dead_owner, request.limit)
        else:
            host, user = request.mailbox
            here = and_(_COLUMNS.host == host, _COLUMNS.username == user)
            others = connection.scalars(select(_COLUMNS.id).where(here, _COLUMNS.owner != request.owner)).all()
            # By their ids in a second statement: whoever was faster has changed them.
            found = _lock(connection, _COLUMNS.id.in_(others)) if others else []
        if not self._lost:
            return found
        # Last, because an interrupted commit may only just have come to its end.
        return found + _lock(connection, and_(_COLUMNS.id.in_(self._lost), _COLUMNS.owner == request.owner, here))


def _lock(connection: Connection, condition: ColumnElement[bool]) -> list[int]:
    return list(connection.scalars(_LOCK.where(condition)))


def _find_of_owner(connection: Connection, owner: str, limit: int) -> list[int]:
    statement = select(_COLUMNS.id).where(_COLUMNS.owner == owner).order_by(_COLUMNS.id).limit(limit)
    free = connection.scalars(statement.with_for_update(skip_locked=True)).all()
    # Nothing free is not nothing left: what another adopter has locked is gone in a moment, but a last
    # transaction of the owner may be dying slowly.
    return list(free or connection.scalars(statement.with_for_update()))


def _rename_on_postgresql(connection: Connection, ids: Sequence[int], owner: str) -> list[_Taken]:
    rows = connection.execute(_RENAME, {"owner": owner, "ids": ids}).all()
    return sorted((_taken(row.former, row) for row in rows), key=lambda taken: taken.former)


def _rename_on_sqlite(connection: Connection, ids: Sequence[int], owner: str) -> list[_Taken]:
    columns = [column.label("user") if column.name == "username" else column for column in _COLUMNS]
    rows = connection.execute(select(*columns).where(_COLUMNS.id.in_(ids)).order_by(_COLUMNS.id)).all()
    # An update of a key is not counted there as one that was given out.
    last = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'sessions'")).scalar_one()
    taken = []
    for new, row in enumerate(rows, last + 1):
        values = {"new": new, "owner": owner, "former": row.id}
        connection.execute(text("UPDATE sessions SET id = :new, owner = :owner WHERE id = :former"), values)
        adopted = _taken(row.id, row)
        taken.append(_Taken(row.id, replace(adopted.adopted, id=new)))
    connection.execute(
        text("UPDATE sqlite_sequence SET seq = :last WHERE name = 'sessions'"), {"last": last + len(rows)}
    )
    return taken


def _taken(former: int, row: Row[Any]) -> _Taken:
    adopted = Adopted(
        id=row.id,
        token=row.token,
        host=row.host,
        user=row.user,
        resource=row.resource,
        handled=row.handled,
        acknowledged=row.acknowledged,
        resumable=bool(row.resumable),
        state=bytes(row.state),
        stamp=row.stamp,
        messages=[],
    )
    return _Taken(former, adopted)

"""Messages that go from the mailbox to a session, from one session to another, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, null, or_, select, update

from monktalk.db.schema import offline_messages, sessions
from monktalk.xmpp.storage.sql.statements import (
    CLOSE_SESSIONS,
    DELETE_MESSAGES,
    INSERT_MESSAGES,
    PLACE_MESSAGES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.requests import Assign, Reassign, Renumber

_COLUMNS = offline_messages.c
_IDS = select(_COLUMNS.id).with_for_update()


def assign(connection: Connection, request: Assign, now: float) -> list[int]:
    """See `MessageStore.assign`. The session is locked."""
    host, user = request.mailbox
    wanted, highest = set(request.ids), max(request.ids, default=0)
    waiting = and_(
        _COLUMNS.host == host,
        _COLUMNS.username == user,
        _COLUMNS.session.is_(None),
        _COLUMNS.id <= highest,
        or_(_COLUMNS.expires.is_(None), _COLUMNS.expires > now),
    )
    # The session is null everywhere; by its name, the order is that of the index.
    ids = list(connection.scalars(_IDS.where(waiting).order_by(_COLUMNS.session, _COLUMNS.id)))
    # The numbers are new, unless an earlier attempt, whose commit was interrupted, has given them out.
    given = and_(_COLUMNS.session == request.session, _COLUMNS.out_seq >= request.first_out_seq)
    ids = sorted([*ids, *connection.scalars(_IDS.where(given, _COLUMNS.id <= highest))])
    ids = [id_ for id_ in ids if id_ in wanted]
    first = request.first_out_seq
    PLACE_MESSAGES.run(connection, [(request.session, out_seq, id_) for out_seq, id_ in enumerate(ids, first)])
    return ids


def reassign(connection: Connection, request: Reassign) -> None:
    """See `MessageStore.reassign`. The sessions are locked."""
    targets = {out_seq: (session, new) for out_seq, session, new in request.moves}
    moved = select(_COLUMNS.id, _COLUMNS.out_seq).where(
        _COLUMNS.session == request.session, _COLUMNS.out_seq.in_(targets)
    )
    rows = connection.execute(moved.order_by(_COLUMNS.out_seq, _COLUMNS.id).with_for_update()).all() if targets else []
    request.placed = [(row.id, *targets[row.out_seq]) for row in rows]
    PLACE_MESSAGES.run(connection, [(to, new, id_) for id_, to, new in request.placed if to is not None])
    _return(connection, [id_ for id_, to, _ in request.placed if to is None])
    if request.close:
        CLOSE_SESSIONS.run(connection, [(request.session,)])


def was_reassigned(connection: Connection, request: Reassign) -> bool:
    """Whether an earlier attempt, whose commit was interrupted, has closed the session, and nobody else."""
    if not (request.repeated and request.close):
        return False
    for id_, session, out_seq in request.placed:
        place = select(_COLUMNS.session, _COLUMNS.out_seq).where(_COLUMNS.id == id_)
        found = connection.execute(place).one_or_none()
        # What goes to the mailbox gets another id there; an adopter does not change ids.
        return found is None if session is None else found is not None and tuple(found) == (session, out_seq)
    return True


def renumber(connection: Connection, request: Renumber, now: float) -> None:
    """See `MessageStore.renumber`. The session is locked."""
    left = and_(_COLUMNS.session == request.session, _COLUMNS.out_seq > request.delivered_up_to)
    ids = connection.scalars(_IDS.where(left).order_by(_COLUMNS.out_seq, _COLUMNS.id)).all()
    first = request.delivered_up_to + 1
    PLACE_MESSAGES.run(connection, [(request.session, out_seq, id_) for out_seq, id_ in enumerate(ids, first)])
    changed = {"acknowledged": request.delivered_up_to, "stamp": now}
    connection.execute(update(sessions).where(sessions.c.id == request.session).values(changed))


def _return(connection: Connection, ids: Sequence[int]) -> None:
    """To the end of the mailbox, under new ids: what had been loaded up to some id does not include them."""
    if not ids:
        return
    columns = (
        _COLUMNS.host,
        _COLUMNS.username,
        _COLUMNS.stanza,
        _COLUMNS.stamp,
        _COLUMNS.expires,
        null(),
        null(),
        _COLUMNS.origin,
        _COLUMNS.number,
        _COLUMNS.part,
    )
    found = select(*columns).where(_COLUMNS.id.in_(ids)).order_by(_COLUMNS.out_seq, _COLUMNS.id)
    rows = [tuple(row) for row in connection.execute(found)]
    DELETE_MESSAGES.run(connection, [(id_,) for id_ in ids])
    INSERT_MESSAGES.run(connection, rows)

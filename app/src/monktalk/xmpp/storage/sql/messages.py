"""Carries out the writes of messages and sessions.

The requests of a group that come in numbers are carried out together: all messages are one INSERT, all changes of
sessions one UPDATE. The others follow in the order of the calls, and then sessions are closed. A group is cut where this
order would change what a request means: where one names a session that an earlier one has closed, or stores for one
whose messages an earlier one moves.

On PostgreSQL a transaction that adds to mailboxes locks them first (advisory locks), so that ids grow in the order of
the commits. Without that, a message with a lower id could become visible after one with a higher id was loaded, and
`remove` or `assign` up to the higher one would take it unseen. The sessions that a transaction names are locked next:
none of them is adopted before it ends.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, select, text

from monktalk.db.schema import offline_messages, sessions
from monktalk.xmpp.storage.sql.adoption import Adoption
from monktalk.xmpp.storage.sql.dialect import on_postgresql
from monktalk.xmpp.storage.sql.insertion import store
from monktalk.xmpp.storage.sql.moving import assign, reassign, renumber, was_reassigned
from monktalk.xmpp.storage.sql.quota import Quota
from monktalk.xmpp.storage.sql.requests import (
    Adopt,
    Append,
    Assign,
    Close,
    Deliver,
    Forget,
    Open,
    Progress,
    Reassign,
    Remove,
    Renumber,
)
from monktalk.xmpp.storage.sql.statements import (
    CHANGE_SESSIONS,
    CLOSE_SESSIONS,
    LOCK_MAILBOXES,
    LOCK_SESSIONS,
    OPEN_SESSIONS,
    OPENED_SESSIONS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.requests import Mailbox, Request

_COLUMNS = offline_messages.c
# PostgreSQL only: a commit waits for the standby only if its transaction has written something.
_WRITE_SOMETHING = text("SELECT pg_logical_emit_message(true, 'monktalk', '')")


class MessagesApplier:
    """Carries out writes of messages and sessions. See `Applier`.

    Args:
        now: the time in seconds since 1970.
        monotonic: seconds that only grow.
    """

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._quota = Quota(now, monotonic)
        self._adoption = Adoption()

    @property
    def has_lost(self) -> bool:
        """There are adoptions that nobody has heard of, because the commit was interrupted."""
        return self._adoption.has_lost

    def begin(self) -> None:
        """See `Applier.begin`."""
        self._quota.begin()
        self._adoption.begin()

    def settle(self, *, committed: bool) -> None:
        """See `Applier.settle`."""
        self._quota.settle(committed=committed)
        self._adoption.settle(committed=committed)

    def alone(self, request: Request) -> bool:
        """See `Applier.alone`. An adoption waits for the owner, who may wait for something of the adopter's."""
        return isinstance(request, Adopt)

    def repeat(self, request: Request) -> bool:
        """See `Applier.repeat`. Only a message without origin could come to be there twice."""
        if isinstance(request, Close | Reassign):
            request.repeated = True
        return not (isinstance(request, Append) and request.source is None)

    def apply(self, connection: Connection, requests: Sequence[Request]) -> list[Any]:
        """See `Applier.apply`. The outcomes are what the methods of the stores return."""
        _lock_mailboxes(connection, requests)
        live = _lock_sessions(connection, requests)
        if any(isinstance(request, Close | Reassign) and request.repeated for request in requests):
            _be_durable(connection)
        outcomes: list[Any] = [None] * len(requests)
        for places in _parts(requests):
            for kind, work in (
                (Open, self._open),
                (Append | Deliver, self._store),
                (Progress, self._change),
                (Assign | Reassign | Renumber | Remove | Forget | Adopt, self._one_by_one),
                (Close, self._close),
            ):
                chosen = [place for place in places if isinstance(requests[place], kind)]
                if chosen:
                    concerned: list[Any] = [requests[place] for place in chosen]
                    found = work(connection, live, concerned)
                    for place, outcome in zip(chosen, found, strict=True):
                        outcomes[place] = outcome
        return outcomes

    def _store(self, connection: Connection, live: set[int], requests: Sequence[Any]) -> Sequence[Any]:
        return store(connection, self._quota, live, requests)

    def _open(self, connection: Connection, live: set[int], requests: Sequence[Open]) -> Sequence[Any]:
        now = self._now()
        OPEN_SESSIONS.run(
            connection,
            [(new.token, *new.mailbox, new.resource, new.owner, new.resumable, new.state, now) for new in requests],
        )
        tokens = [(new.token,) for new in requests]
        found = {token: (id_, owner) for token, id_, owner in OPENED_SESSIONS.rows(connection, tokens)}
        outcomes: list[Any] = []
        for new in requests:
            id_, owner = found.get(new.token, (0, None))
            taken = ValueError("another owner has a session with this token")
            outcomes.append(id_ if owner == new.owner else taken)
        return outcomes

    def _change(self, connection: Connection, live: set[int], requests: Sequence[Progress]) -> Sequence[Any]:
        changes: dict[int, Progress] = {}
        for request in requests:
            if request.id in live:
                former = changes.setdefault(request.id, request)
                if former is not request:
                    changes[request.id] = _merged(former, request)
        now = self._now()
        CHANGE_SESSIONS.run(
            connection,
            [
                (change.handled, change.acknowledged, change.state, change.resumable, now, change.id)
                for change in changes.values()
            ],
        )
        return [request.id in live for request in requests]

    def _close(self, connection: Connection, live: set[int], requests: Sequence[Close]) -> Sequence[Any]:
        # What an earlier attempt has closed is gone, too.
        outcomes = [request.id in live or request.repeated for request in requests]
        closed = {request.id for request in requests} & live
        CLOSE_SESSIONS.run(connection, [(id_,) for id_ in sorted(closed)])
        live -= closed
        return outcomes

    def _one_by_one(self, connection: Connection, live: set[int], requests: Sequence[Any]) -> Sequence[Any]:
        return [self._alone(connection, live, request) for request in requests]

    def _alone(self, connection: Connection, live: set[int], request: Request) -> Any:
        match request:
            case Assign() if request.session in live:
                self._quota.forget(request.mailbox)
                return assign(connection, request, self._now())
            case Reassign():
                return self._reassign(connection, live, request)
            case Renumber():
                if request.session in live:
                    renumber(connection, request, self._now())
                return request.session in live
            case Remove():
                return self._remove(connection, request)
            case Forget():
                return _forget(connection, request)
            case Adopt():
                return self._adoption.adopt(connection, request)
        return None

    def _reassign(self, connection: Connection, live: set[int], request: Reassign) -> bool:
        self._quota.forget(request.mailbox)
        if not live.issuperset(request.sessions_named()):
            return was_reassigned(connection, request)
        reassign(connection, request)
        if request.close:
            live.discard(request.session)
        return True

    def _remove(self, connection: Connection, request: Remove) -> int:
        self._quota.forget(request.mailbox)
        waiting = delete(offline_messages).where(request.condition, _COLUMNS.session.is_(None))
        removed = connection.execute(waiting).rowcount
        if request.given:
            connection.execute(delete(offline_messages).where(request.condition))
        return removed


def _be_durable(connection: Connection) -> None:
    """What an earlier attempt has done may not be on the standby yet, and there may be nothing left to do."""
    if on_postgresql(connection):
        connection.execute(_WRITE_SOMETHING)


def _merged(former: Progress, later: Progress) -> Progress:
    return Progress(
        former.id,
        handled=_most(former.handled, later.handled),
        acknowledged=_most(former.acknowledged, later.acknowledged),
        state=former.state if later.state is None else later.state,
        resumable=former.resumable if later.resumable is None else later.resumable,
    )


def _most(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def _forget(connection: Connection, request: Forget) -> int:
    not_acknowledged = exists().where(sessions.c.id == _COLUMNS.session, sessions.c.acknowledged < _COLUMNS.out_seq)
    delivered = (
        select(_COLUMNS.id)
        .where(_COLUMNS.session.is_not(None), _COLUMNS.stamp < request.before, ~not_acknowledged)
        .order_by(_COLUMNS.stamp)
        .limit(request.limit)
        # Several processes forget at the same time.
        .with_for_update(skip_locked=True, of=offline_messages)
    )
    ids = connection.scalars(delivered).all()
    return connection.execute(delete(offline_messages).where(_COLUMNS.id.in_(ids))).rowcount if ids else 0


def _parts(requests: Sequence[Request]) -> Iterator[list[int]]:
    """The places of a group's requests, cut where they have to be carried out in the order of the calls."""
    part: list[int] = []
    closed: set[int] = set()
    moved: set[int] = set()
    for place, request in enumerate(requests):
        barred = moved if request.batched else closed
        if barred and not barred.isdisjoint(request.sessions_named()):
            yield part
            part, closed, moved = [], set(), set()
        part.append(place)
        if not request.batched:
            moved.update(request.sessions_named())
        if isinstance(request, Close):
            closed.add(request.id)
    yield part


def _lock_mailboxes(connection: Connection, requests: Sequence[Request]) -> None:
    if not on_postgresql(connection):
        return
    mailboxes = {request.mailbox for request in requests if isinstance(request, Append)}
    mailboxes.update(request.mailbox for request in requests if isinstance(request, Reassign))
    LOCK_MAILBOXES.rows(connection, [(number,) for number in sorted(map(_lock_number, mailboxes))])


def _lock_number(mailbox: Mailbox) -> int:
    """A 64-bit number that stands for a mailbox; that two share one now and then only costs a wait."""
    digest = blake2b("\0".join(mailbox).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _lock_sessions(connection: Connection, requests: Sequence[Request]) -> set[int]:
    """Those of the sessions named that are not superseded."""
    named = {session for request in requests for session in request.sessions_named()}
    return {id_ for (id_,) in LOCK_SESSIONS.rows(connection, [(session,) for session in sorted(named)])}

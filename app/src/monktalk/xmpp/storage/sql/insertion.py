"""Storing messages of a group: one INSERT, and no query as long as nothing is repeated.

A row that is there already, by origin, number and part, is left out by the database. Only when rows were left out, the
group looks for them. A message that is there exactly as it was to be stored was stored by an earlier attempt of the same
request, whose commit was interrupted; any other one is a duplicate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, delete

from monktalk.db.schema import offline_messages
from monktalk.xmpp.storage.interfaces import Delivered
from monktalk.xmpp.storage.sql.requests import Append, Deliver
from monktalk.xmpp.storage.sql.statements import INSERT_MESSAGES, KNOWN_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.quota import Quota
    from monktalk.xmpp.storage.sql.requests import Source

Parts = dict[int, tuple[int | None, int | None]]
"""Session and `out_seq` of a message's rows, by part."""

_COLUMNS = offline_messages.c
_DELETE_PART = delete(offline_messages).where(
    and_(
        _COLUMNS.origin == bindparam("p_origin"),
        _COLUMNS.number == bindparam("p_number"),
        _COLUMNS.part == bindparam("p_part"),
    )
)

_ORIGIN: Final = 7
"""Where a row has its origin; the number and the part follow."""


def store(
    connection: Connection, quota: Quota, live: set[int], requests: Sequence[Append | Deliver]
) -> list[bool | Delivered]:
    """Store messages in the order of the requests.

    Args:
        connection: in the transaction of the group.
        quota: what it counts is corrected.
        live: sessions that are not superseded, and are locked.
        requests: messages, also several with the same source.
    """
    return _Insertion(connection, quota).run(live, requests)


def _in_one_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows, those of known origin in the order of their names.

    Of two transactions that store the same messages, neither waits for the other for ever then. Messages of one origin
    stay in order.
    """
    places = [place for place, row in enumerate(rows) if row[_ORIGIN] is not None]
    ordered = list(rows)
    for place, row in zip(places, sorted((rows[place] for place in places), key=_name), strict=True):
        ordered[place] = row
    return ordered


def _name(row: tuple[Any, ...]) -> tuple[str, int, int]:
    return row[_ORIGIN], row[_ORIGIN + 1], row[_ORIGIN + 2]


class _Insertion:
    def __init__(self, connection: Connection, quota: Quota) -> None:
        self._connection = connection
        self._quota = quota
        self._claimed: dict[Source, int] = {}
        self._refused: dict[int, Source] = {}

    def run(self, live: set[int], requests: Sequence[Append | Deliver]) -> list[bool | Delivered]:
        mailboxes = {request.mailbox for request in requests if isinstance(request, Append)}
        self._quota.prepare(self._connection, mailboxes)
        outcomes: list[bool | Delivered] = []
        rows: list[tuple[Any, ...]] = []
        for place, request in enumerate(requests):
            accepted, outcome = self._accept(place, request, live)
            outcomes.append(outcome)
            if accepted:
                rows += request.rows()
        inserted = INSERT_MESSAGES.run(self._connection, _in_one_order(rows))
        self._quota.inserted()
        if self._refused:
            # The mailbox may be full because of the very messages that are repeated.
            known = self._known(set(self._refused.values()))
            for place, source in self._refused.items():
                outcomes[place] = source in known
        if inserted < len(rows):
            self._find_duplicates(requests, outcomes)
        return outcomes

    def _accept(self, place: int, request: Append | Deliver, live: set[int]) -> tuple[bool, bool | Delivered]:
        """Whether to insert a message, and what to say about it for the time being."""
        source = request.source
        if isinstance(request, Deliver):
            if not live.issuperset(request.sessions_named()):
                return False, Delivered.SUPERSEDED
            if source in self._claimed:
                return False, Delivered.DUPLICATE
        elif source is not None and source in self._claimed:
            return False, True
        elif not self._quota.has_room(self._connection, request.mailbox, request.limit):
            if source is not None:
                self._refused[place] = source
            return False, False
        if source is not None:
            self._claimed[source] = place
        return True, Delivered.STORED if isinstance(request, Deliver) else True

    def _find_duplicates(self, requests: Sequence[Append | Deliver], outcomes: list[bool | Delivered]) -> None:
        known = self._known(self._claimed)
        surplus = []
        for source, place in self._claimed.items():
            request = requests[place]
            if isinstance(request, Append):
                self._quota.forget(request.mailbox)
                continue
            wanted: Parts = dict(enumerate(request.sessions))
            found = known.get(source, {})
            if found != wanted:
                outcomes[place] = Delivered.DUPLICATE
                # Some of its rows may have been inserted beside those that were there.
                surplus += [(*source, part) for part in wanted if found.get(part) == wanted[part]]
        for origin, number, part in surplus:
            self._connection.execute(_DELETE_PART, {"p_origin": origin, "p_number": number, "p_part": part})

    def _known(self, sources: Collection[Source]) -> dict[Source, Parts]:
        found: dict[Source, Parts] = {}
        for origin, number, part, session, out_seq in KNOWN_MESSAGES.rows(self._connection, list(sources)):
            found.setdefault((origin, number), {})[part] = (session, out_seq)
        return found

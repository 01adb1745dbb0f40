"""How many messages a mailbox holds: counted once, then kept and corrected in the writer's thread.

Appends of other processes are seen when the number is counted again, which happens at latest after `RECOUNT_AFTER`
seconds and before a message is refused: nobody is refused wrongly, and several processes together exceed a quota by
no more than they store within that time.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, func, select, text

from monktalk.db.schema import offline_messages
from monktalk.xmpp.storage.sql.dialect import on_postgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.requests import Mailbox

RECOUNT_AFTER: Final = 60.0
RECOUNT_FULL_AFTER: Final = 1.0
MAX_COUNTS: Final = 50_000

_COLUMNS = offline_messages.c
_WAITING = (
    _COLUMNS.host == bindparam("p_host"),
    _COLUMNS.username == bindparam("p_user"),
    _COLUMNS.session.is_(None),
)
_COUNT = select(func.count()).select_from(offline_messages).where(*_WAITING)
_DROP_EXPIRED = delete(offline_messages).where(*_WAITING, _COLUMNS.expires <= bindparam("p_now"))
# PostgreSQL only: one round trip for all mailboxes of a group.
_COUNT_MANY = text(
    "SELECT box.host, box.username, (SELECT count(*) FROM offline_messages AS message"
    " WHERE message.host = box.host AND message.username = box.username AND message.session IS NULL)"
    " FROM unnest(CAST(:hosts AS text[]), CAST(:users AS text[])) AS box(host, username)"
)


@dataclass(slots=True)
class _Count:
    messages: int
    counted: float


class Quota:
    """The numbers of messages that wait, through transactions that may be rolled back.

    Args:
        now: the time in seconds since 1970.
        monotonic: seconds that only grow.
    """

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._counts: OrderedDict[Mailbox, _Count] = OrderedDict()
        self._changed: dict[Mailbox, _Count] = {}
        self._unknown: set[Mailbox | None] = set()
        self._accepted: Counter[Mailbox] = Counter()

    def begin(self) -> None:
        """A transaction begins."""
        self._changed.clear()
        self._unknown.clear()
        self._accepted.clear()

    def settle(self, *, committed: bool) -> None:
        """What was counted since `begin` is durable, or not."""
        if not committed:
            self._unknown.update(self._changed)
        for mailbox, count in self._changed.items():
            self._counts[mailbox] = count
            self._counts.move_to_end(mailbox)
        if None in self._unknown:
            self._counts.clear()
        for unknown in self._unknown:
            if unknown is not None:
                self._counts.pop(unknown, None)
        while len(self._counts) > MAX_COUNTS:
            self._counts.popitem(last=False)
        self.begin()

    def forget(self, mailbox: Mailbox | None) -> None:
        """The number of a mailbox (None: of any) is not known any more, once the transaction is settled."""
        self._unknown.add(mailbox)

    def inserted(self) -> None:
        """What was accepted is in the table now."""
        self._accepted.clear()

    def prepare(self, connection: Connection, mailboxes: Iterable[Mailbox]) -> None:
        """Make the numbers of mailboxes known, before `has_room` is asked for them."""
        now = self._monotonic()
        unknown = []
        for mailbox in mailboxes:
            if mailbox in self._changed:
                continue
            count = self._counts.get(mailbox)
            if count is None or now - count.counted > RECOUNT_AFTER:
                unknown.append(mailbox)
                self._changed[mailbox] = _Count(0, now)
            else:
                self._changed[mailbox] = _Count(count.messages, count.counted)
        if unknown and on_postgresql(connection):
            hosts, users = zip(*unknown, strict=True)
            for host, user, messages in connection.execute(_COUNT_MANY, {"hosts": list(hosts), "users": list(users)}):
                self._changed[host, user].messages = messages
            return
        for mailbox in unknown:
            self._changed[mailbox].messages = self._count(connection, mailbox)

    def has_room(self, connection: Connection, mailbox: Mailbox, limit: int) -> bool:
        """Whether a mailbox holds less than `limit` messages; one more is counted then."""
        count = self._changed[mailbox]
        now = self._monotonic()
        if count.messages >= limit and now - count.counted > RECOUNT_FULL_AFTER:
            host, user = mailbox
            # What has expired no longer counts; nobody else may have deleted it yet.
            connection.execute(_DROP_EXPIRED, {"p_host": host, "p_user": user, "p_now": self._now()})
            # Those that have just been accepted are not in the table yet.
            count.messages = self._count(connection, mailbox) + self._accepted[mailbox]
            count.counted = now
        if count.messages >= limit:
            return False
        count.messages += 1
        self._accepted[mailbox] += 1
        return True

    @staticmethod
    def _count(connection: Connection, mailbox: Mailbox) -> int:
        where = {"p_host": mailbox[0], "p_user": mailbox[1]}
        return int(connection.execute(_COUNT, where).scalar_one())

"""Accounts in SQL. Logins are merged before they are written: one row each, however often somebody came."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, or_, select

from monktalk.common.logging import get_logger
from monktalk.db.query import Query
from monktalk.db.schema import accounts
from monktalk.xmpp.storage.cache import ReadCache
from monktalk.xmpp.storage.interfaces import ACCOUNTS_TABLE, Account
from monktalk.xmpp.storage.sql.dialect import Insert, inserts
from monktalk.xmpp.storage.text import check_key, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.cache import Activity
    from monktalk.xmpp.storage.interfaces import AccountList
    from monktalk.xmpp.storage.sql.submit import SubmitRead, SubmitWrite

log = get_logger(__name__)

Name = tuple[str, str]
"""Host and user."""

CACHE_SIZE = 50_000

_COLUMNS = accounts.c
_THIS = (_COLUMNS.host == bindparam("p_host"), _COLUMNS.username == bindparam("p_user"))
_FIELDS = (_COLUMNS.username, _COLUMNS.created, _COLUMNS.last_login, _COLUMNS.disabled, _COLUMNS.reason)
_FIND = select(*_FIELDS).where(*_THIS)
_DISABLED = Query(select(_COLUMNS.disabled).where(*_THIS))
_DELETE = delete(accounts).where(*_THIS)
_COUNT = select(func.count()).select_from(accounts).where(_COLUMNS.host == bindparam("p_host"))
_LIST = select(*_FIELDS).where(_COLUMNS.host == bindparam("p_host")).order_by(_COLUMNS.username)


def _later_login(insert: Insert) -> Insert:
    later = or_(_COLUMNS.last_login.is_(None), _COLUMNS.last_login < insert.excluded.last_login)
    return insert.on_conflict_do_update(
        index_elements=list(accounts.primary_key), set_={"last_login": insert.excluded.last_login}, where=later
    )


_SEEN = inserts(accounts, _later_login)
_ADD = inserts(accounts, lambda insert: insert.on_conflict_do_nothing())
_SET_DISABLED = inserts(
    accounts,
    lambda insert: insert.on_conflict_do_update(
        index_elements=list(accounts.primary_key),
        set_={"disabled": insert.excluded.disabled, "reason": insert.excluded.reason},
    ),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A login."""

    name: Name
    when: float


@dataclass(frozen=True, slots=True)
class Add:
    """An account that was made."""

    name: Name
    when: float


@dataclass(frozen=True, slots=True)
class SetDisabled:
    """Disable or enable; `when` is the creation of an account that is not known yet."""

    name: Name
    disabled: bool
    reason: str
    when: float


@dataclass(frozen=True, slots=True)
class Delete:
    """Forget an account."""

    name: Name


Request = Seen | Add | SetDisabled | Delete


class AccountsApplier:
    """Carries out writes of accounts. See `Applier`."""

    def begin(self) -> None:
        """Nothing is kept between writes."""

    def settle(self, *, committed: bool) -> None:
        """Nothing is kept between writes."""

    def alone(self, request: Request) -> bool:
        """See `Applier.alone`."""
        return False

    def repeat(self, request: Request) -> bool:
        """See `Applier.repeat`."""
        return True

    def apply(self, connection: Connection, requests: Sequence[Request]) -> list[Any]:
        """See `Applier.apply`. All outcomes are None."""
        logins: dict[Name, float] = {}
        for request in requests:
            if isinstance(request, Seen):
                logins[request.name] = max(request.when, logins.get(request.name, request.when))
        if logins:
            _seen(connection, logins)
        for request in requests:
            match request:
                case Add():
                    _add(connection, request)
                case SetDisabled():
                    _set_disabled(connection, request)
                case Delete(name):
                    connection.execute(_DELETE, _where(name))
        return [None] * len(requests)


class SqlAccounts:
    """An `AccountStore` on SQL.

    Args:
        write: carries out the writes.
        read: carries out the reads.
        applier: the one that the writer knows.
        now: the time in seconds since 1970.
        announce: called with table, host, user and "" when this process has changed an account.
    """

    def __init__(
        self,
        write: SubmitWrite,
        read: SubmitRead,
        applier: AccountsApplier,
        *,
        now: Callable[[], float],
        announce: Callable[[str, str, str, str], None],
    ) -> None:
        self._write = write
        self._read = read
        self._applier = applier
        self._now = now
        self._announce = announce
        self._disabled: ReadCache[Name, bool] = ReadCache(CACHE_SIZE)

    def seen(self, host: str, user: str, when: float) -> None:
        """See `AccountStore.seen`."""
        check_key(host, user)
        self._write(self._applier, Seen((host, user), when)).add_done_callback(_log_lost_login)

    async def add(self, host: str, user: str, when: float) -> None:
        """See `AccountStore.add`."""
        check_key(host, user)
        await self._write(self._applier, Add((host, user), when))

    async def list(self, host: str, offset: int = 0, limit: int | None = None) -> AccountList:
        """See `AccountStore.list`."""
        check_text(host)
        statement = _LIST.offset(offset).limit(limit)

        def work(connection: Connection) -> AccountList:
            return [_account(row) for row in connection.execute(statement, {"p_host": host})]

        return await self._read(work)

    async def count(self, host: str) -> int:
        """See `AccountStore.count`."""
        check_text(host)
        return await self._read(lambda connection: int(connection.execute(_COUNT, {"p_host": host}).scalar_one()))

    async def find(self, host: str, user: str) -> Account | None:
        """See `AccountStore.find`."""
        check_text(host, user)

        def work(connection: Connection) -> Account | None:
            row = connection.execute(_FIND, _where((host, user))).one_or_none()
            return _account(row) if row is not None else None

        return await self._read(work)

    async def set_disabled(self, host: str, user: str, disabled: bool, reason: str = "") -> None:
        """See `AccountStore.set_disabled`."""
        check_key(host, user)
        check_text(reason)
        await self._change((host, user), SetDisabled((host, user), disabled, reason, self._now()), disabled)

    async def delete(self, host: str, user: str) -> None:
        """See `AccountStore.delete`."""
        check_text(host, user)
        await self._change((host, user), Delete((host, user)), disabled=False)

    async def disabled(self, host: str, user: str) -> bool:
        """See `AccountStore.disabled`."""
        return bool(await self._disabled.get((host, user), partial(self._read_disabled, (host, user))))

    def invalidate(self, host: str, user: str) -> None:
        """Another process has changed the account."""
        self._disabled.invalidate((host, user))

    def invalidate_all(self) -> None:
        """Other processes may have changed any account."""
        self._disabled.clear()

    def trust_cache(self, trusted: bool) -> None:
        """See `Storage.trust_cache`."""
        self._disabled.trust(trusted)

    async def _change(self, name: Name, request: Request, disabled: bool) -> None:
        future = self._write(self._applier, request)
        if not future.done():
            activity = self._disabled.begin_write(name)
            future.add_done_callback(partial(self._changed, name, activity, disabled))
        await asyncio.shield(future)

    def _changed(self, name: Name, activity: Activity, disabled: bool, future: asyncio.Future[None]) -> None:
        if future.exception() is None:
            self._disabled.written(name, activity, disabled)
        else:
            self._disabled.not_written(name, activity)
        self._announce(ACCOUNTS_TABLE, *name, "")

    def _read_disabled(self, name: Name) -> asyncio.Future[bool | None]:
        check_text(*name)
        # Unknown accounts are cached like enabled ones: there is nothing else to know about them.
        return self._read(lambda connection: any(disabled for (disabled,) in _DISABLED.rows(connection, _where(name))))


def _seen(connection: Connection, logins: dict[Name, float]) -> None:
    rows = [
        {"host": host, "username": user, "created": when, "last_login": when}
        # All processes lock rows in the same order.
        for (host, user), when in sorted(logins.items())
    ]
    connection.execute(_SEEN[connection.dialect.name], rows)


def _add(connection: Connection, request: Add) -> None:
    host, user = request.name
    new = {"host": host, "username": user, "created": request.when}
    connection.execute(_ADD[connection.dialect.name], new)


def _set_disabled(connection: Connection, request: SetDisabled) -> None:
    host, user = request.name
    new = {
        "host": host,
        "username": user,
        "created": request.when,
        "disabled": request.disabled,
        "reason": request.reason,
    }
    connection.execute(_SET_DISABLED[connection.dialect.name], new)


def _where(name: Name) -> dict[str, str]:
    return {"p_host": name[0], "p_user": name[1]}


def _account(row: Any) -> Account:
    return Account(row.username, row.created, row.last_login, row.disabled, row.reason)


def _log_lost_login(future: asyncio.Future[None]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        log.debug("login_not_remembered", problem=str(error))

"""A storage without a database: for tests and for trying things out. Nothing survives the process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from monktalk.xmpp.storage.base import TableRegistry
from monktalk.xmpp.storage.interfaces import (
    ACCOUNTS_TABLE,
    Account,
    StorageUnavailable,
    VersionConflict,
)
from monktalk.xmpp.storage.memory_messages import MemoryMessages, MemorySessions, Tables
from monktalk.xmpp.storage.text import check_key, check_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from monktalk.xmpp.storage.interfaces import AccountList, AccountStore, MessageStore, SessionStore
    from monktalk.xmpp.storage.keyvalue import Key

R = TypeVar("R")


class MemoryStorage(TableRegistry):
    """A `Storage` in memory. Results arrive in a later iteration of the loop, as those of a database do.

    `set_available(False)` makes all operations fail as they do while a database is away.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._worker = _Worker()
        super().__init__(_MemoryKeyValue(self._worker, now))
        tables = Tables(now)
        self._messages = MemoryMessages(self._worker.submit, tables)
        self._sessions = MemorySessions(self._worker.submit, tables)
        self._accounts = _MemoryAccounts(self._worker, now, self.announce)

    @property
    def offline(self) -> MessageStore:
        """See `Storage.offline`."""
        return self._messages

    @property
    def sessions(self) -> SessionStore:
        """See `Storage.sessions`."""
        return self._sessions

    @property
    def accounts(self) -> AccountStore:
        """See `Storage.accounts`."""
        return self._accounts

    async def start(self) -> None:
        """See `Storage.start`."""
        self._worker.problem = ""

    async def close(self) -> None:
        """See `Storage.close`."""
        # What was called before is due in this iteration of the loop.
        await asyncio.sleep(0)
        self._worker.problem = "the storage is closed"

    def healthy(self) -> bool:
        """See `Storage.healthy`."""
        return not self._worker.problem

    def set_available(self, available: bool) -> None:
        """Go away like a database, or come back."""
        self._worker.problem = "" if available else "the storage is switched off"


class _Worker:
    """Carries operations out one after the other, each in the next iteration of the loop."""

    def __init__(self) -> None:
        self.problem = "the storage is not started"

    def submit(self, work: Callable[[], R]) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if self.problem:
            future.set_exception(StorageUnavailable(self.problem))
        else:
            loop.call_soon(self._run, work, future)
        return future

    def _run(self, work: Callable[[], R], future: asyncio.Future[R]) -> None:
        try:
            result = work()
        except (VersionConflict, ValueError) as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)


class _MemoryKeyValue:
    """A `KeyValueBackend` in a dictionary."""

    def __init__(self, worker: _Worker, now: Callable[[], float]) -> None:
        self._submit = worker.submit
        self._now = now
        self._tables: dict[str, dict[Key, tuple[bytes, int]]] = {}
        self._last = 0

    def read(self, table: str, key: Key) -> asyncio.Future[tuple[bytes, int] | None]:
        return self._submit(lambda: self._rows(table).get(key))

    def put(self, table: str, key: Key, data: bytes, expected: int | None) -> asyncio.Future[int]:
        def work() -> int:
            rows = self._rows(table)
            version = self._check(rows, key, expected)
            rows[key] = (data, version + 1 if version else self._first_version())
            return rows[key][1]

        return self._submit(work)

    def delete(self, table: str, key: Key, expected: int | None) -> asyncio.Future[bool]:
        def work() -> bool:
            rows = self._rows(table)
            self._check(rows, key, expected)
            return rows.pop(key, None) is not None

        return self._submit(work)

    def delete_owner(self, table: str, host: str, owner: str) -> asyncio.Future[int]:
        def work() -> int:
            rows = self._rows(table)
            keys = [key for key in rows if key[:2] == (host, owner)]
            for key in keys:
                del rows[key]
            return len(keys)

        return self._submit(work)

    def keys(self, table: str, host: str, owner: str) -> asyncio.Future[list[str]]:
        return self._submit(lambda: sorted(key[2] for key in self._rows(table) if key[:2] == (host, owner)))

    def owners(self, table: str, host: str) -> asyncio.Future[list[str]]:
        return self._submit(lambda: sorted({key[1] for key in self._rows(table) if key[0] == host}))

    def _rows(self, table: str) -> dict[Key, tuple[bytes, int]]:
        return self._tables.setdefault(table, {})

    def _first_version(self) -> int:
        self._last = max(self._last + 1, int(self._now() * 1_000_000))
        return self._last

    @staticmethod
    def _check(rows: dict[Key, tuple[bytes, int]], key: Key, expected: int | None) -> int:
        _, version = rows.get(key, (b"", 0))
        if expected is not None and expected != version:
            raise VersionConflict(f"version {expected} was expected, version {version} is stored")
        return version


class _MemoryAccounts:
    """An `AccountStore` in a dictionary."""

    def __init__(
        self, worker: _Worker, now: Callable[[], float], announce: Callable[[str, str, str, str], None]
    ) -> None:
        self._submit = worker.submit
        self._now = now
        self._announce = announce
        self._accounts: dict[tuple[str, str], Account] = {}

    def seen(self, host: str, user: str, when: float) -> None:
        check_key(host, user)

        def work() -> None:
            account = self._accounts.get((host, user), Account(user, when, None, disabled=False))
            last = when if account.last_login is None else max(when, account.last_login)
            self._accounts[host, user] = replace(account, last_login=last)

        future = self._submit(work)
        future.add_done_callback(asyncio.Future.exception)

    async def add(self, host: str, user: str, when: float) -> None:
        check_key(host, user)
        new = Account(user, when, None, disabled=False)
        await self._submit(lambda: self._accounts.setdefault((host, user), new))

    async def list(self, host: str, offset: int = 0, limit: int | None = None) -> AccountList:
        check_text(host)
        end = None if limit is None else offset + limit
        return await self._submit(lambda: self._of(host)[offset:end])

    async def count(self, host: str) -> int:
        check_text(host)
        return await self._submit(lambda: len(self._of(host)))

    async def find(self, host: str, user: str) -> Account | None:
        check_text(host, user)
        return await self._submit(lambda: self._accounts.get((host, user)))

    async def set_disabled(self, host: str, user: str, disabled: bool, reason: str = "") -> None:
        check_key(host, user)
        check_text(reason)

        def work() -> None:
            account = self._accounts.get((host, user), Account(user, self._now(), None, disabled=False))
            self._accounts[host, user] = replace(account, disabled=disabled, reason=reason)

        await self._submit(work)
        self._announce(ACCOUNTS_TABLE, host, user, "")

    async def disabled(self, host: str, user: str) -> bool:
        account = await self.find(host, user)
        return account is not None and account.disabled

    async def delete(self, host: str, user: str) -> None:
        check_text(host, user)
        await self._submit(lambda: self._accounts.pop((host, user), None))
        self._announce(ACCOUNTS_TABLE, host, user, "")

    def _of(self, host: str) -> AccountList:
        return [account for (domain, _), account in sorted(self._accounts.items()) if domain == host]

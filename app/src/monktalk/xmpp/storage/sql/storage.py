"""The storage on SQLite or PostgreSQL: threads, connections, and the stores over them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from monktalk.common.logging import get_logger
from monktalk.db import migrate
from monktalk.db.engine import CONNECT_TIMEOUT, STATEMENT_TIMEOUT, create_engine, describe_url
from monktalk.xmpp.storage.base import TableRegistry
from monktalk.xmpp.storage.interfaces import ACCOUNTS_TABLE, StorageError, StorageUnavailable
from monktalk.xmpp.storage.sql.accounts import AccountsApplier, SqlAccounts
from monktalk.xmpp.storage.sql.keyvalue import KeyValueApplier, SqlKeyValue
from monktalk.xmpp.storage.sql.link import Health, Link
from monktalk.xmpp.storage.sql.messages import MessagesApplier
from monktalk.xmpp.storage.sql.offline import SqlMessages
from monktalk.xmpp.storage.sql.reader import ReaderPool
from monktalk.xmpp.storage.sql.sessions import SqlSessions
from monktalk.xmpp.storage.sql.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.interfaces import AccountStore, MessageStore, SessionStore

log = get_logger(__name__)

R = TypeVar("R")

WATCH_INTERVAL: Final = 1.0
PATIENCE_AT_CLOSE: Final = 10.0


class SqlStorage(TableRegistry):
    """A `Storage` on a database.

    Args:
        url: the address (see `monktalk.db.engine`).
        readers: threads, and connections, that read.
        queue_limit: writes, and reads, that wait for the database at most; more fail at once.
        queue_bytes: sum of the sizes of the waiting writes at most.
        gather: seconds for which the writer waits for more when few writes are queued.
        statement_timeout: seconds after which the database gives a statement up; a database that has not
            answered three seconds later is considered dead.
        patience: seconds for which operations wait while the database is away or overloaded; with none, they
            fail at once.
        now: the time in seconds since 1970.

    Raises:
        DatabaseURLError: the address cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        readers: int = 2,
        queue_limit: int = 10_000,
        queue_bytes: int = 64 * 1024 * 1024,
        gather: float = 0.002,
        statement_timeout: float = STATEMENT_TIMEOUT,
        patience: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = describe_url(url)
        self._engine = create_engine(url, pool_size=readers + 1, pre_ping=False, statement_timeout=statement_timeout)
        self._health = Health()
        deadline = statement_timeout + CONNECT_TIMEOUT
        self._links = [Link(self._engine, self._health, deadline, writes=number == 0) for number in range(readers + 1)]
        self._queue_limit = queue_limit
        self._queue_bytes = queue_bytes
        self._gather = gather
        self._patience = patience
        self._writer: Writer | None = None
        self._reader: ReaderPool | None = None
        self._watch: asyncio.TimerHandle | None = None
        keyvalues, accounts, messages = KeyValueApplier(), AccountsApplier(), MessagesApplier(now)
        self._appliers = (keyvalues, accounts, messages)
        super().__init__(SqlKeyValue(self._write, self._read, keyvalues, now))
        self._accounts = SqlAccounts(self._write, self._read, accounts, now=now, announce=self.announce)
        self._messages = SqlMessages(self._write, self._read, messages, now)
        self._sessions = SqlSessions(self._write, self._read, messages)

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
        if self._writer is not None:
            raise StorageError("the storage has been started already")
        self._reader = ReaderPool(self._links[1:], self._health, limit=self._queue_limit, patience=self._patience)
        self._writer = Writer(
            self._links[0],
            self._health,
            self._appliers,
            limit=self._queue_limit,
            limit_bytes=self._queue_bytes,
            gather=self._gather,
            patience=self._patience,
        )
        self._tick()
        try:
            state = await self._reader.submit(migrate.state_of, patient=False)
        except StorageUnavailable:
            log.warning("database_unavailable_at_start", database=self._name)
            return
        if not state.usable:
            await self.close()
            raise StorageError(state.problem())
        log.info("database_opened", database=self._name, revision=state.found)

    async def close(self) -> None:
        """See `Storage.close`."""
        if self._writer is None or self._reader is None:
            return
        written = await self._writer.close(PATIENCE_AT_CLOSE)
        read = await self._reader.close(PATIENCE_AT_CLOSE)
        if self._watch is not None:
            self._watch.cancel()
        if written and read:
            self._engine.dispose()
        else:
            log.error("database_close_timed_out", seconds=PATIENCE_AT_CLOSE)

    def healthy(self) -> bool:
        """See `Storage.healthy`."""
        return self._writer is not None and self._writer.open and not self._health.down

    def invalidate(self, table: str, host: str, owner: str, key: str) -> None:
        """See `Storage.invalidate`."""
        if table == ACCOUNTS_TABLE:
            self._accounts.invalidate(host, owner)
        else:
            super().invalidate(table, host, owner, key)

    def invalidate_all(self) -> None:
        """See `Storage.invalidate_all`."""
        super().invalidate_all()
        self._accounts.invalidate_all()

    def trust_cache(self, trusted: bool) -> None:
        """See `Storage.trust_cache`."""
        super().trust_cache(trusted)
        self._accounts.trust_cache(trusted)

    def statistics(self) -> dict[str, int]:
        """Numbers for monitoring: what waits now, and what has been done since the start."""
        writer, reader = self._writer, self._reader
        return {
            "queued_writes": writer.queued if writer else 0,
            "queued_reads": reader.queued if reader else 0,
            "writes": writer.writes if writer else 0,
            "transactions": writer.transactions if writer else 0,
            "reads": reader.reads if reader else 0,
        }

    def _write(self, applier: Any, request: Any, size: int = 0) -> asyncio.Future[Any]:
        if self._writer is None:
            return _refused("the storage is not started")
        return self._writer.submit(applier, request, size)

    def _read(self, work: Callable[[Connection], R]) -> asyncio.Future[R]:
        if self._reader is None:
            return _refused("the storage is not started")
        return self._reader.submit(work)

    def _tick(self) -> None:
        now = time.monotonic()
        for link in self._links:
            link.check(now)
        self._watch = asyncio.get_running_loop().call_later(WATCH_INTERVAL, self._tick)


def _refused(reason: str) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(StorageUnavailable(reason))
    return future

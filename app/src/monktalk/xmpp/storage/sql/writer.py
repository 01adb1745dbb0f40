"""Group commit: one thread that takes every write that is queued and commits them in one transaction.

While one commit is on its way to the disk and to the standby, the next group gathers. A write is answered when
its transaction is durable. When a group fails because of one write, its writes are tried again, each behind a
savepoint of its own, so that the others are not harmed.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from monktalk.common.logging import get_logger
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from monktalk.xmpp.storage.sql.link import PROBE_INTERVAL, Failure, RequestRefused, brief, classify, post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.link import Health, Link

log = get_logger(__name__)

MAX_GROUP: Final = 256
"""Writes in one transaction. Bounds the advisory locks that a transaction holds (see sql/offline.py)."""


FEW: Final = 32
"""With fewer writes queued than this, the writer waits a moment for more."""


class _Signal(Enum):
    WAKE = auto()  # the database has gone away: start to probe
    END = auto()


class Applier(Protocol):
    """Carries out the writes of one store, in the writer's thread."""

    def begin(self) -> None:
        """A transaction begins; one that was begun and not settled never happened."""
        ...

    def apply(self, connection: Connection, requests: Sequence[Any]) -> list[Any]:
        """Carry out requests in the current transaction; one outcome each, an exception for one that failed."""
        ...

    def settle(self, *, committed: bool) -> None:
        """What has been applied since `begin` is durable, or was rolled back, or (rarely) nobody knows."""
        ...


@dataclass(slots=True, eq=False)
class _Write:
    applier: Applier
    request: Any
    size: int
    future: asyncio.Future[Any]


class Writer:
    """The queue of writes and the thread that empties it.

    Args:
        link: its connection.
        health: whether the database answers.
        appliers: in the order in which a transaction calls them (the same in all processes: it is the order in
            which locks are taken).
        limit: writes queued at most.
        limit_bytes: sum of the sizes of queued writes at most.
        gather: seconds to wait for more when few are queued.
    """

    def __init__(
        self,
        link: Link,
        health: Health,
        appliers: Sequence[Applier],
        *,
        limit: int,
        limit_bytes: int,
        gather: float,
    ) -> None:
        self._link = link
        self._health = health
        self._appliers = appliers
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._gather = gather
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Write | _Signal] = queue.SimpleQueue()
        self.queued = 0
        self._queued_bytes = 0
        self._next_probe = 0.0
        self.open = True
        self.writes = 0
        self.transactions = 0
        health.on_down = partial(self._queue.put, _Signal.WAKE)
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    def submit(self, applier: Applier, request: Any, size: int = 0) -> asyncio.Future[Any]:
        """Queue a write; the future resolves when it is durable, or is refused already when it is returned."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.open:
            future.set_exception(StorageUnavailable("the storage is closed"))
        elif self._health.down:
            future.set_exception(StorageUnavailable("the database is away"))
        elif self.queued >= self._limit or self._queued_bytes + size > self._limit_bytes:
            future.set_exception(StorageUnavailable("too many writes are waiting for the database"))
        else:
            self.queued += 1
            self._queued_bytes += size
            self._queue.put(_Write(applier, request, size, future))
        return future

    async def close(self, patience: float) -> bool:
        """Write what is queued and stop; False when that took longer than `patience` seconds."""
        if self.open:
            self.open = False
            self._queue.put(_Signal.END)
        await self._loop.run_in_executor(None, self._thread.join, patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._take()
            if group:
                outcomes = self._commit(group)
                post(self._loop, self._deliver, group, outcomes)
            if self._health.down and going:
                self._probe()
        self._link.close()

    def _take(self) -> tuple[list[_Write], bool]:
        """Wait for writes, or until it is time for a probe; False when nothing will come any more."""
        group: list[_Write] = []
        try:
            item = self._queue.get(timeout=PROBE_INTERVAL if self._health.down else None)
            if isinstance(item, _Write) and self._queue.qsize() < FEW:
                time.sleep(self._gather)
            while isinstance(item, _Write):
                group.append(item)
                if len(group) == MAX_GROUP:
                    return group, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return group, True
        return group, item is not _Signal.END

    def _commit(self, group: list[_Write]) -> list[Any]:
        if self._health.down:
            return [StorageUnavailable("the database is away") for _ in group]
        try:
            outcomes = self._in_transaction(group, one_by_one=False)
        except StorageUnavailable as error:
            return [StorageUnavailable(str(error)) for _ in group]
        except Exception as error:  # noqa: BLE001 - whatever one write did wrong, the others must not suffer
            log.warning("group_commit_failed", writes=len(group), problem=brief(error))
        else:
            return outcomes
        try:
            return self._in_transaction(group, one_by_one=True)
        except StorageUnavailable as error:
            return [StorageUnavailable(str(error)) for _ in group]
        except Exception as error:
            log.exception("write_failed", writes=len(group))
            return [StorageUnavailable(brief(error)) for _ in group]

    def _in_transaction(self, group: list[_Write], *, one_by_one: bool) -> list[Any]:
        apply = self._apply_one_by_one if one_by_one else self._apply_together

        def work(connection: Connection) -> list[Any]:
            for applier in self._appliers:
                applier.begin()
            return apply(connection, group)

        committed = False
        try:
            outcomes = self._link.run(work)
            committed = True
        finally:
            for applier in self._appliers:
                applier.settle(committed=committed)
        self.transactions += 1
        return outcomes

    def _apply_together(self, connection: Connection, group: list[_Write]) -> list[Any]:
        outcomes: list[Any] = [None] * len(group)
        for applier in self._appliers:
            places = [place for place, write in enumerate(group) if write.applier is applier]
            if places:
                found = applier.apply(connection, [group[place].request for place in places])
                for place, outcome in zip(places, found, strict=True):
                    outcomes[place] = outcome
        return outcomes

    def _apply_one_by_one(self, connection: Connection, group: list[_Write]) -> list[Any]:
        return [self._apply_alone(connection, write) for write in group]

    def _apply_alone(self, connection: Connection, write: _Write) -> Any:
        try:
            with connection.begin_nested():
                (outcome,) = write.applier.apply(connection, [write.request])
        except SQLAlchemyError as error:
            if classify(error) is not Failure.REQUEST:
                raise
            log.warning("write_refused", request=type(write.request).__name__, problem=brief(error))
            return StorageUnavailable("the database refused this write")
        except Exception as error:
            log.exception("write_failed", request=type(write.request).__name__)
            return error
        return outcome

    def _probe(self) -> None:
        now = time.monotonic()
        if now < self._next_probe:
            return
        self._next_probe = now + PROBE_INTERVAL / 2
        try:
            self._link.run(lambda connection: connection.execute(select(1)).all())
        except (StorageUnavailable, RequestRefused) as error:
            log.debug("database_probe_failed", problem=brief(error))

    def _deliver(self, group: list[_Write], outcomes: list[Any]) -> None:
        for write, outcome in zip(group, outcomes, strict=True):
            self.queued -= 1
            self.writes += 1
            self._queued_bytes -= write.size
            if write.future.done():  # given up by the one who asked
                continue
            if isinstance(outcome, Exception):
                write.future.set_exception(outcome)
            else:
                write.future.set_result(outcome)

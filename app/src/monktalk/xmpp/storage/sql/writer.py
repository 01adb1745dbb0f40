"""Group commit: one thread that takes every write that is queued and commits them in one transaction.

While one commit is on its way to the disk and to the standby, the next group gathers. A write is answered when
its transaction is durable. When a group fails because of one write, its writes are tried again, each behind a
savepoint of its own, so that the others are not harmed.

With patience, writes wait while the database is away, and a group that failed for no fault of its own is tried again.
When its commit was interrupted, so that it may have taken place, only those are that can be repeated without harm.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from monktalk.common.logging import get_logger
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from monktalk.xmpp.storage.sql.link import (
    PROBE_INTERVAL,
    Busy,
    Failure,
    RequestRefused,
    Uncertain,
    Unreachable,
    brief,
    classify,
    post,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.link import Health, Link

log = get_logger(__name__)

MAX_GROUP: Final = 256
"""Writes in one transaction. Bounds the advisory locks that a transaction holds (see sql/messages.py)."""

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

    def alone(self, request: Any) -> bool:
        """Whether a request needs a transaction of its own, because it locks what others write."""
        ...

    def repeat(self, request: Any) -> bool:
        """Nobody knows whether a request was carried out: whether it can be repeated all the same, without harm."""
        ...


@dataclass(slots=True, eq=False)
class _Write:
    applier: Applier
    request: Any
    size: int
    future: asyncio.Future[Any]
    until: float


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
        patience: seconds for which writes wait while the database is away.
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
        patience: float = 0.0,
    ) -> None:
        self._link = link
        self._health = health
        self._appliers = appliers
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._gather = gather
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Write | _Signal] = queue.SimpleQueue()
        self.queued = 0
        self._queued_bytes = 0
        self._waiting: deque[_Write] = deque()  # the thread's own: taken from the queue, and not decided yet
        self._next_probe = 0.0
        self._next_attempt = 0.0
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
        elif self._health.down and not self._patience:
            future.set_exception(StorageUnavailable("the database is away"))
        elif self.queued >= self._limit or self._queued_bytes + size > self._limit_bytes:
            future.set_exception(StorageUnavailable("too many writes are waiting for the database"))
        else:
            self.queued += 1
            self._queued_bytes += size
            self._queue.put(_Write(applier, request, size, future, time.monotonic() + self._patience))
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
            going = self._take()
            if self._health.down and going:
                self._probe()
            if not self._held() or not going:
                self._commit_waiting(everything=not going)
            self._give_up()
        self._link.close()

    def _held(self) -> bool:
        """Whether it is too early for an attempt to write."""
        return self._health.down or time.monotonic() < self._next_attempt

    def _take(self) -> bool:
        """Wait for writes, or until it is time for a probe or an attempt; False when nothing will come any more."""
        try:
            if self._held():
                item = self._queue.get(timeout=PROBE_INTERVAL)
            elif self._waiting:
                item = self._queue.get_nowait()
            else:
                item = self._queue.get()
                if isinstance(item, _Write) and self._queue.qsize() < FEW:
                    time.sleep(self._gather)
            while item is not _Signal.END:
                if isinstance(item, _Write):
                    self._waiting.append(item)
                if len(self._waiting) >= MAX_GROUP and not self._health.down:
                    return True
                item = self._queue.get_nowait()
        except queue.Empty:
            return True
        return False

    def _give_up(self) -> None:
        """Answer those whose patience is over, while the database is away."""
        now = time.monotonic()
        group: list[_Write] = []
        while self._waiting and self._health.down and self._waiting[0].until <= now:
            group.append(self._waiting.popleft())
        self._answer(group, [StorageUnavailable("the database is away") for _ in group])

    def _commit_waiting(self, *, everything: bool) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                self._answer(group, self._commit(group))
            except StorageUnavailable as error:
                self._failed(group, error)
            if not everything:
                return

    def _next_group(self) -> list[_Write]:
        """Writes for one transaction: many, or one that wants to be alone."""
        group = [self._waiting.popleft()]
        if not group[0].applier.alone(group[0].request):
            while self._waiting and len(group) < MAX_GROUP:
                if self._waiting[0].applier.alone(self._waiting[0].request):
                    break
                group.append(self._waiting.popleft())
        return group

    def _commit(self, group: list[_Write]) -> list[Any]:
        if self._health.down:
            raise Unreachable("the database is away")
        try:
            return self._in_transaction(group, one_by_one=False)
        except StorageUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one write did wrong, the others must not suffer
            log.warning("group_commit_failed", writes=len(group), problem=brief(error))
        try:
            return self._in_transaction(group, one_by_one=True)
        except StorageUnavailable:
            raise
        except Exception as error:
            log.exception("write_failed", writes=len(group))
            raise StorageUnavailable(brief(error)) from error

    def _failed(self, group: list[_Write], error: StorageUnavailable) -> None:
        """Keep those writes for another attempt that can be repeated, and answer the others."""
        again: list[_Write] = []
        lost: list[_Write] = []
        if isinstance(error, Busy):
            self._next_attempt = time.monotonic() + error.pause
        for write in group:
            (again if self._may_repeat(write, error) else lost).append(write)
        self._waiting.extendleft(reversed(again))
        if again:
            log.warning("writes_repeated", writes=len(again), problem=str(error))
        self._answer(lost, [StorageUnavailable(str(error)) for _ in lost])

    def _may_repeat(self, write: _Write, error: StorageUnavailable) -> bool:
        if not self.open or time.monotonic() >= write.until:
            return False
        if isinstance(error, Uncertain):
            return write.applier.repeat(write.request)
        return isinstance(error, Unreachable | Busy)

    def _answer(self, group: list[_Write], outcomes: list[Any]) -> None:
        if group:
            post(self._loop, self._deliver, group, outcomes)

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

"""Reads: a few threads, each with a connection of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from monktalk.common.logging import get_logger
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from monktalk.xmpp.storage.sql.link import PROBE_INTERVAL, RequestRefused, Unreachable, brief, post

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.link import Health, Link

log = get_logger(__name__)

R = TypeVar("R")

MAX_WAIT: Final = 10.0
"""Seconds that a read waits for a thread before it fails."""


class _Job(NamedTuple):
    """A read. It fails after `until`, and while the database is away after `patient_until`."""

    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    until: float
    patient_until: float


class ReaderPool:
    """The queue of reads and the threads that carry them out.

    Args:
        links: one connection a thread.
        health: whether the database answers.
        limit: reads queued at most.
        patience: seconds for which reads wait while the database is away.
    """

    def __init__(self, links: Sequence[Link], health: Health, *, limit: int, patience: float = 0.0) -> None:
        self._health = health
        self._limit = limit
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._calling = False
        self.queued = 0
        self._open = True
        self.reads = 0
        self._threads = [
            threading.Thread(target=self._run, args=(link,), name=f"storage-reader-{number}", daemon=True)
            for number, link in enumerate(links)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[Connection], R], *, patient: bool = True) -> asyncio.Future[R]:
        """Queue a read; the future resolves to what `work` returns, or is refused already.

        One that is not `patient` does not wait for a database that is away.
        """
        patience = self._patience if patient else 0.0
        future: asyncio.Future[R] = self._loop.create_future()
        if not self._open:
            future.set_exception(StorageUnavailable("the storage is closed"))
        elif self._health.down and not patience:
            future.set_exception(StorageUnavailable("the database is away"))
        elif self.queued >= self._limit:
            future.set_exception(StorageUnavailable("too many reads are waiting for the database"))
        else:
            self.queued += 1
            now = time.monotonic()
            self._queue.put(_Job(work, future, now + max(MAX_WAIT, patience), now + patience))
        return future

    async def close(self, patience: float) -> bool:
        """Finish what is queued and stop; False when that took longer than `patience` seconds."""
        if self._open:
            self._open = False
            for _ in self._threads:
                self._queue.put(None)
        until = time.monotonic() + patience
        for thread in self._threads:
            await self._loop.run_in_executor(None, thread.join, max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, link: Link) -> None:
        while (job := self._queue.get()) is not None:
            self._done.append((job.future, self._read(link, job)))
            # The loop is woken once for all that is done by the time that it gets there.
            if not self._calling:
                self._calling = True
                post(self._loop, self._deliver)
        link.close()

    def _read(self, link: Link, job: _Job) -> Any:
        while True:
            self._wait(job.patient_until)
            if self._health.down:
                return StorageUnavailable("the database is away")
            if time.monotonic() > job.until:
                return StorageUnavailable("too many reads are waiting for the database")
            try:
                return link.run(job.work)
            except Unreachable as error:
                if time.monotonic() > job.patient_until:
                    return StorageUnavailable(str(error))
            except StorageUnavailable as error:
                return StorageUnavailable(str(error))
            except RequestRefused as error:
                log.warning("read_refused", problem=brief(error))
                return StorageUnavailable("the database refused this read")
            except Exception as error:  # noqa: BLE001 - handed to the one who asked for this read
                return error

    def _wait(self, until: float) -> None:
        """Wait for a database that is away."""
        while self._health.down and self._open and (left := until - time.monotonic()) > 0:
            self._health.wait(min(left, PROBE_INTERVAL))

    def _deliver(self) -> None:
        # First, so that nothing that a thread adds from now on waits for a call that has been made already.
        self._calling = False
        while self._done:
            future, outcome = self._done.popleft()
            self.queued -= 1
            self.reads += 1
            if future.done():  # given up by the one who asked
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

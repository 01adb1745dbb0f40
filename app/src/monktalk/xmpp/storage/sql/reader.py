"""Reads: a few threads, each with a connection of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

from monktalk.common.logging import get_logger
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from monktalk.xmpp.storage.sql.link import RequestRefused, brief, post

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.link import Health, Link

log = get_logger(__name__)

R = TypeVar("R")

MAX_WAIT: Final = 10.0
"""Seconds that a read waits for a thread before it fails."""

_Job = tuple["Callable[[Connection], Any]", "asyncio.Future[Any]", float]


class ReaderPool:
    """The queue of reads and the threads that carry them out.

    Args:
        links: one connection a thread.
        health: whether the database answers.
        limit: reads queued at most.
    """

    def __init__(self, links: Sequence[Link], health: Health, *, limit: int) -> None:
        self._health = health
        self._limit = limit
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

    def submit(self, work: Callable[[Connection], R]) -> asyncio.Future[R]:
        """Queue a read; the future resolves to what `work` returns, or is refused already."""
        future: asyncio.Future[R] = self._loop.create_future()
        if not self._open:
            future.set_exception(StorageUnavailable("the storage is closed"))
        elif self._health.down:
            future.set_exception(StorageUnavailable("the database is away"))
        elif self.queued >= self._limit:
            future.set_exception(StorageUnavailable("too many reads are waiting for the database"))
        else:
            self.queued += 1
            self._queue.put((work, future, time.monotonic() + MAX_WAIT))
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
            work, future, until = job
            self._done.append((future, self._read(link, work, until)))
            # The loop is woken once for all that is done by the time that it gets there.
            if not self._calling:
                self._calling = True
                post(self._loop, self._deliver)
        link.close()

    def _read(self, link: Link, work: Callable[[Connection], Any], until: float) -> Any:
        if self._health.down:
            return StorageUnavailable("the database is away")
        if time.monotonic() > until:
            return StorageUnavailable("too many reads are waiting for the database")
        try:
            return link.run(work)
        except StorageUnavailable as error:
            return error
        except RequestRefused as error:
            log.warning("read_refused", problem=brief(error))
            return StorageUnavailable("the database refused this read")
        except Exception as error:  # noqa: BLE001 - handed to the one who asked for this read
            return error

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

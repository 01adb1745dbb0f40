"""Ends database calls that do not come back.

The server ends slow statements itself, and TCP notices a machine that has vanished. What is left is a server whose
processes stand still (a frozen disk, SIGSTOP): it holds its connections open and answers nothing, and libpq waits for
ever. A thread here shuts such connections down under it; the waiting call then fails like any lost connection.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monktalk.common.clock import Clock

_TICKS: Final = 8
"""How often it looks, within the time that a call may take."""

_IDLE_TICKS: Final = 80

log = get_logger(__name__)


class Watchdog:
    """Watches calls on sockets. May be used by many threads; its own thread runs only while there are calls.

    Args:
        limit: seconds that a call may take.
        clock: the time.
    """

    def __init__(self, limit: float, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: dict[object, tuple[float, int]] = {}
        self._running = False

    @contextmanager
    def watch(self, descriptor: int) -> Iterator[None]:
        """Shut the socket down if the block takes too long."""
        call = object()
        with self._lock:
            self._calls[call] = (self._clock.monotonic() + self._limit, descriptor)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="database watchdog", daemon=True).start()
        try:
            yield
        finally:
            # Under the lock, so that the descriptor is not shut down after it has been closed and used again.
            with self._lock:
                self._calls.pop(call, None)

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(self._limit / _TICKS)
            with self._lock:
                self._shut_down_late_ones()
                idle = 0 if self._calls else idle + 1
                if idle > _IDLE_TICKS:
                    self._running = False
                    return

    def _shut_down_late_ones(self) -> None:
        now = self._clock.monotonic()
        for call, (deadline, descriptor) in list(self._calls.items()):
            if deadline <= now:
                del self._calls[call]
                log.error("database_hangs", seconds=self._limit)
                with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)

"""A cable between two programs of a test, which can be cut: a relay of TCP connections in threads of its own."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

CHUNK = 65536


class Cable:
    """Leads from a port of the loopback interface to another one.

    Threads, since programs that need it are started and waited for by tests that do nothing else meanwhile.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._cut = False
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections; new ones are refused."""
        with self._lock:
            self._cut = True
            ends, self._ends = self._ends, set()
        for end in ends:
            _close(end)

    def mend(self) -> None:
        """Let new connections through."""
        with self._lock:
            self._cut = False

    def close(self) -> None:
        """End it."""
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                _close(near)
                continue
            with self._lock:
                if not self._cut:
                    self._ends |= {near, far}
                    for source, target in ((near, far), (far, near)):
                        threading.Thread(target=self._copy, args=(source, target), daemon=True).start()
                    continue
            _close(near)
            _close(far)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                target.sendall(data)
        with self._lock:
            self._ends -= {source, target}
        _close(source)
        _close(target)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
    end.close()

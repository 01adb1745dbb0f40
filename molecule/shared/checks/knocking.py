"""A client that connects in a loop, and remembers every failure: what a restart must not cause."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_HEADER = (
    "<?xml version='1.0'?><stream:stream to='{to}' version='1.0' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>"
)


@dataclass
class Knocking:
    """Opens streams, one after the other, each on a connection of its own, until it is left.

    A stream has to be answered with the features of the server within the patience of a client; a connection that is
    refused, reset or closed before is a failure.
    """

    address: str
    port: int
    domain: str
    patience: float = 30
    successes: int = 0
    longest: float = 0
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.once()
        self._thread = threading.Thread(target=self._loop, name=f"knocking at {self.port}")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._thread
        self._thread.join()

    def once(self) -> None:
        """Open a stream and close it again."""
        started = time.monotonic()
        with socket.create_connection((self.address, self.port), timeout=self.patience) as connection:
            connection.sendall(_HEADER.format(to=self.domain).encode())
            received = b""
            while b"</stream:features>" not in received:
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError(f"closed after {received[-200:]!r}")
                received += part
            connection.sendall(b"</stream:stream>")
        self.successes += 1
        self.longest = max(self.longest, time.monotonic() - started)

    def _loop(self) -> None:
        # At most 20 a second, so that it does not become a load test.
        while not self._over.wait(0.05):
            try:
                self.once()
            except OSError as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")

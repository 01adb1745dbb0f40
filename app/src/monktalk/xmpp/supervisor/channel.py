"""What supervisor and worker say to each other: a line of JSON a packet, with file descriptors where they are needed.

The packets go over a pair of UNIX sockets of type SEQPACKET, so that each arrives whole or not at all, and the end of one
side is seen by the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = get_logger(__name__)

Message = dict[str, Any]

MAX_PACKET: Final = 65536
"""Bytes of a message. What is longer, such as a configuration, goes as a file: see :func:`as_file`."""

MAX_DESCRIPTORS: Final = 253
"""What the kernel passes with one packet (SCM_MAX_FD)."""

_MAX_TEXT: Final = 16384


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, for the supervisor and for a worker."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end. ``received`` gets each message with its descriptors, which are its own then; ``ended`` is called once."""

    def __init__(
        self, sock: socket.socket, received: Callable[[Message, list[int]], None], ended: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = received
        self._ended = ended
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, kind: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        """Send a message, now or as soon as the other side has room for it. Nobody hears it when that has ended.

        Raises ValueError for one that is too long, or has too many descriptors.
        """
        packet = json.dumps({"type": kind, **fields}).encode() + b"\n"
        if len(packet) > MAX_PACKET or len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"a message of {len(packet)} bytes with {len(descriptors)} descriptors is too much")
        if not self._open:
            return
        if self._waiting or not self._send(packet, descriptors):
            if not self._waiting:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            self._waiting.append((packet, [os.dup(descriptor) for descriptor in descriptors]))

    def _send(self, packet: bytes, descriptors: Sequence[int]) -> bool:
        """False when there is no room now."""
        try:
            socket.send_fds(self._sock, [packet], list(descriptors))
        except BlockingIOError:
            return False
        except ConnectionError:
            log.debug("channel_broken")  # the end is read in a moment
        return True

    def _writable(self) -> None:
        while self._waiting:
            packet, descriptors = self._waiting[0]
            if not self._send(packet, descriptors):
                return
            self._waiting.popleft()
            _close(descriptors)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            packet, descriptors, _flags, _address = socket.recv_fds(self._sock, MAX_PACKET, MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except ConnectionError:
            packet, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if packet:
            self._received(json.loads(packet), descriptors)
        else:
            self.close()
            self._ended()

    def close(self) -> None:
        """End it. What the other side has not taken yet is lost."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for _packet, descriptors in self._waiting:
            _close(descriptors)
        self._waiting.clear()
        self._sock.close()


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def short(text: str) -> str:
    """A text that fits into a message."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} …"


def as_file(text: str) -> int:
    """A descriptor of a file in memory that holds the text. The caller closes it."""
    descriptor = os.memfd_create("configuration")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode())
    return descriptor


def from_file(descriptor: int) -> str:
    """What :func:`as_file` has put into the file, which is closed."""
    try:
        # Not by reading on: all workers have the same file, and the place in it would be common to them.
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()
    finally:
        os.close(descriptor)

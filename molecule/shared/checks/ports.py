"""Which ports of a host answer: a scan of all of them, from outside."""

from __future__ import annotations

import errno
import resource
import select
import socket
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below the usual limits of open files and of local ports.
_AT_ONCE = 8000


@dataclass
class Answers:
    """What a scan has found: ports that let us in, and ports that say no instead of keeping silent."""

    open: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)


def scan(address: str, patience: float = 0.4) -> Answers:
    """Try all TCP ports of an address. An answer from a host on the same network takes less than a millisecond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * _AT_ONCE)), hard))
    answers = Answers()
    ports = iter(range(1, 65536))
    while batch := _take(ports, _AT_ONCE):
        _scan(address, batch, time.monotonic() + patience, answers)
    return answers


def _take(ports: Iterator[int], count: int) -> list[int]:
    return list(islice(ports, count))


def _scan(address: str, ports: list[int], deadline: float, answers: Answers) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    pending: dict[int, tuple[socket.socket, int]] = {}
    poll = select.poll()
    try:
        for port in ports:
            attempt = socket.socket(family, socket.SOCK_STREAM)
            attempt.setblocking(False)
            status = attempt.connect_ex((address, port))
            if status == errno.EINPROGRESS:
                pending[attempt.fileno()] = (attempt, port)
                poll.register(attempt, select.POLLOUT)
            else:
                _note(answers, port, status)
                attempt.close()
        while pending and (left := deadline - time.monotonic()) > 0:
            for descriptor, _event in poll.poll(left * 1000):
                attempt, port = pending.pop(descriptor)
                poll.unregister(descriptor)
                _note(answers, port, attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                attempt.close()
    finally:
        for attempt, _port in pending.values():
            attempt.close()


def _note(answers: Answers, port: int, status: int) -> None:
    if status == 0:
        answers.open.add(port)
    elif status == errno.ECONNREFUSED:
        answers.refused.add(port)

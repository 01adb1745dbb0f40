"""The service manager: what it is told, by datagrams of `NAME=value` lines, sd_notify(3), and the sockets that it opens."""

from __future__ import annotations

import os
import socket
from typing import Final

from monktalk.common.logging import get_logger

log = get_logger(__name__)

_FIRST_SOCKET: Final = 3


def notify(*states: str) -> bool:
    """Tell the service manager `states`, such as "READY=1" or "STATUS=Draining".

    Returns whether a manager was told: False without NOTIFY_SOCKET, that is, when systemd did not start us.

    Raises:
        OSError: there is a notification socket and it takes no message.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace of UNIX sockets
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        # The manager's socket may be full; a notification is never worth a stopped event loop.
        sender.settimeout(1.0)
        sender.connect(address)
        sender.sendall("\n".join(states).encode())
    return True


def tell(*states: str) -> None:
    """As :func:`notify`; what the manager thinks is no reason to stop, or not to stop in good order: a failure is logged."""
    try:
        notify(*states)
    except OSError as error:
        log.warning("manager_not_told", reason=str(error))


def inherited_sockets() -> list[socket.socket]:
    """Return the sockets that the service manager has opened for this process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=_FIRST_SOCKET + index) for index in range(count)]


def watchdog_interval() -> float | None:
    """Return how many seconds may lie between two "WATCHDOG=1", or None when nobody watches.

    This is half of what the manager allows, as sd_watchdog_enabled(3) recommends.

    Raises:
        ValueError: WATCHDOG_USEC or WATCHDOG_PID is set to something that is not a positive number.
    """
    allowed = os.environ.get("WATCHDOG_USEC")
    if not allowed:
        return None
    watched = os.environ.get("WATCHDOG_PID")
    if watched and _positive("WATCHDOG_PID", watched) != os.getpid():
        return None
    return _positive("WATCHDOG_USEC", allowed) / 2_000_000


def _positive(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ValueError(f"The environment variable {name} is {text[:40]!r}, not a positive number.")

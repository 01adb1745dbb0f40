"""The ports that a server listens on: opened at the start, brought in line with the configuration by a reload."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from monktalk.common.logging import get_logger
from monktalk.xmpp.net.listener import ClientListener

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from monktalk.common.config import Settings
    from monktalk.xmpp.net.listener import Connections
    from monktalk.xmpp.net.tls import TlsContexts

log = get_logger(__name__)


class Ports:
    """The listeners of one process, in the order of the configuration."""

    def __init__(self, connections: Connections, tls: TlsContexts) -> None:
        self._connections = connections
        self._tls = tls
        self._listeners: list[ClientListener] = []

    def __iter__(self) -> Iterator[ClientListener]:
        return iter(self._listeners)

    async def open(self, wanted: Sequence[Settings], inherited: Sequence[socket.socket] = ()) -> None:
        """Listen wherever ``wanted`` says, on sockets of the service manager where it has opened that port.

        Raises OSError, with the address in it, for a port that can't be had.
        """
        for options, sock in zip(wanted, share_out(wanted, inherited), strict=True):
            self._listeners.append(await self._listen(options, sock))

    async def adopt(self, wanted: Sequence[Settings], sockets: Sequence[socket.socket]) -> None:
        """Listen on ``sockets``, one for each of ``wanted``, and on nothing else.

        A listener that is there already keeps the socket that it has. No connection is dropped.
        """
        old, listeners = list(self._listeners), []
        for options, sock in zip(wanted, sockets, strict=True):
            same = next((each for each in old if place(each.options) == place(options)), None)
            if same is None:
                listeners.append(await self._listen(options, sock))
                continue
            old.remove(same)
            same.options = options
            sock.close()
            listeners.append(same)
        for listener in old:
            await listener.close()
        self._listeners = listeners

    async def change(self, wanted: Sequence[Settings]) -> None:
        """Open what is new, give other options to what stays, close the rest. No connection is dropped.

        Raises OSError, with the address in it, for a port that can't be had; then everything is as it was.
        """
        old = list(self._listeners)
        places: list[tuple[Settings, ClientListener | None]] = []
        for options in wanted:
            same = next((each for each in old if place(each.options) == place(options)), None)
            if same is not None:
                old.remove(same)
            places.append((options, same))
        ports = {options.port for options, same in places if same is None}
        # The same port on another address can only be had when the old address has been given up.
        in_the_way = [listener for listener in old if listener.options.port in ports]
        for listener in in_the_way:
            await listener.close()
        opened: list[ClientListener] = []
        try:
            listeners: list[ClientListener] = []
            for options, same in places:
                if same is None:
                    opened.append(await self._listen(options))
                listeners.append(same or opened[-1])
        except OSError:
            for listener in opened:
                await listener.close()
            for listener in in_the_way:
                await listener.start()
            raise
        for options, same in places:
            if same is not None:
                same.options = options
        for listener in old:
            await listener.close()
        self._listeners = listeners

    async def close(self) -> None:
        """Accept no more connections."""
        for listener in self._listeners:
            await listener.close()

    async def _listen(self, options: Settings, sock: socket.socket | None = None) -> ClientListener:
        listener = ClientListener(self._connections, options, self._tls)
        await listener.start(sock)
        return listener


def share_out(wanted: Sequence[Settings], inherited: Iterable[socket.socket]) -> list[socket.socket | None]:
    """The inherited socket for each of ``wanted``, None where there is none; the others are closed, with a warning."""
    inherited = list(inherited)
    sockets = [sock for sock in inherited if sock.family in (socket.AF_INET, socket.AF_INET6)]
    unused = [sock for sock in inherited if sock not in sockets]
    found = []
    for options in wanted:
        sock = _matching(sockets, options)
        if sock is not None:
            sockets.remove(sock)
        found.append(sock)
    for sock in (*unused, *sockets):
        log.warning("socket_unused", address=sock.getsockname(), reason="no [[listen.c2s]] has its port")
        sock.close()
    return found


def place(options: Settings) -> tuple[str, int]:
    """Where a listener is, by which it is known again after a reload."""
    return options.address, options.port


def _matching(sockets: Sequence[socket.socket], options: Settings) -> socket.socket | None:
    """The socket with that port; the one with that address too, where several have the port."""
    fitting = [sock for sock in sockets if sock.getsockname()[1] == options.port]
    exact = (sock for sock in fitting if sock.getsockname()[0] == options.address)
    return next(exact, fitting[0] if fitting else None)

"""The listening sockets of a node, which all its workers accept from.

They are shared rather than one a worker (SO_REUSEPORT): a connection that a dying worker has not accepted yet waits in the
same queue for the others, and is not lost.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from monktalk.xmpp.net.ports import place, share_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monktalk.common.config import Settings


class NodeSockets:
    """A socket for each [[listen.c2s]], in that order."""

    def __init__(self) -> None:
        self._wanted: tuple[Settings, ...] = ()
        self._sockets: list[socket.socket] = []

    @property
    def descriptors(self) -> list[int]:
        """Of the sockets that are in force."""
        return [sock.fileno() for sock in self._sockets]

    @property
    def places(self) -> list[tuple[str, int]]:
        """Address and port of each, as configured; the port that was found where any was wanted."""
        return [
            (options.address, sock.getsockname()[1]) for options, sock in zip(self._wanted, self._sockets, strict=True)
        ]

    def open(self, wanted: Sequence[Settings], inherited: Iterable[socket.socket] = ()) -> None:
        """Bind what the service manager has not. Raises OSError, with the address in it, for a port that can't be had."""
        self._wanted = tuple(wanted)
        for options, sock in zip(wanted, share_out(wanted, inherited), strict=True):
            self._sockets.append(sock if sock is not None else bind(options))

    def change(self, wanted: Sequence[Settings]) -> NodeSockets:
        """The sockets for another configuration: those that stay are the same, new ones are bound.

        Take it over by :meth:`replace`, or give up by ``let_go(of=this)``. Raises OSError, and then nothing has changed.
        """
        new = NodeSockets()
        new._wanted = tuple(wanted)
        old = list(zip(self._wanted, self._sockets, strict=True))
        try:
            for options in wanted:
                same = next((pair for pair in old if place(pair[0]) == place(options)), None)
                if same is not None:
                    old.remove(same)
                new._sockets.append(same[1] if same is not None else bind(options))
        except OSError:
            new.let_go(of=self)
            raise
        return new

    def let_go(self, *, of: NodeSockets) -> None:
        """Close what ``of`` does not have, too."""
        for sock in self._sockets:
            if sock not in of._sockets:
                sock.close()

    def close(self) -> None:
        """Close all."""
        for sock in self._sockets:
            sock.close()


def bind(options: Settings) -> socket.socket:
    """A listening socket. Raises OSError with the address in it."""
    address, port = options.address, options.port
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(error.errno, f"can't listen on {address} port {port}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name)
        sock.listen(options.backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"can't listen on {address} port {port}: {error.strerror}") from None
    sock.setblocking(False)
    return sock

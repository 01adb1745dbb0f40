"""The bus that the configuration asks for."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from monktalk.xmpp.cluster.local import LocalBus
from monktalk.xmpp.cluster.natsbus import NatsBus, NatsOptions

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.cluster.bus import Bus

_PORT = 4222


def open_bus(settings: Settings, worker: int = 0) -> Bus:
    """The bus of the section ``cluster``, not connected yet; ``worker`` counts the workers of the node.

    Raises ValueError for an address or a name that can't be one, OSError for a file that can't be read.
    """
    node: str = settings.node or socket.gethostname()
    if settings.bus == "none":
        return LocalBus(node)
    options = NatsOptions(
        [address(text) for text in settings.servers],
        cluster=settings.name,
        user=settings.user,
        password=settings.password,
        tls=ssl.create_default_context(cafile=str(settings.ca)) if settings.ca else None,
    )
    return NatsBus(options, node, worker)


def address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[v6]:port`` or ``host``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no address of a NATS server: write host:port")
    return host.strip("[]"), int(port)

"""The nodes that belong to the cluster: written down in the storage, so that one that is missing is missed.

A node serves as soon as it is on the bus. The record says which nodes an operator expects there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from monktalk.xmpp.admin.registry import UsageError

if TYPE_CHECKING:
    from monktalk.xmpp.core.server import Server

TABLE: Final = "cluster_nodes"

_PREFIX: Final = "mongooseim@"
_CACHED: Final = 256


class _Codec:
    """Facts about a node as JSON."""

    def encode(self, value: dict[str, Any]) -> bytes:
        return json.dumps(value, sort_keys=True).encode()

    def decode(self, data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(data)
        return found


class Nodes:
    """The record. All methods raise :class:`~monktalk.xmpp.storage.interfaces.StorageUnavailable`."""

    def __init__(self, server: Server) -> None:
        self._cluster: str = server.config.section("cluster").name
        self._clock = server.clock
        self._store = server.storage.keyvalue(TABLE, _Codec(), _CACHED)

    async def names(self) -> list[str]:
        """The nodes that are expected, sorted."""
        return await self._store.owners(self._cluster)

    async def add(self, node: str, version: str) -> None:
        """Expect a node from now on."""
        facts = {"joined": self._clock.now(), "version": version}
        await self._store.put(self._cluster, node, "", facts, None)

    async def remove(self, node: str) -> bool:
        """Expect a node no more; False when it was not expected."""
        return await self._store.delete(self._cluster, node, "")


def parse_node(text: str) -> str:
    """The name of a node, which may be written as ``mongooseim@NAME``. Raises :class:`UsageError`."""
    node = text.removeprefix(_PREFIX)
    if not node or "@" in node:
        raise UsageError(f"{text!r} is no node: write NAME, or {_PREFIX}NAME, as in `mongooseimctl cluster_status`.")
    return node


def compatible(one: str, other: str) -> bool:
    """Whether nodes of these versions may be in one cluster: they have the same major number."""
    return one.partition(".")[0] == other.partition(".")[0]

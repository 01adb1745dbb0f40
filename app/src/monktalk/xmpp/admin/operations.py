"""What workers do for each other's commands about the cluster: facts, reload in two steps, draining."""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.config import ConfigError
from monktalk.common.logging import get_logger
from monktalk.xmpp.admin.registry import CommandError
from monktalk.xmpp.core.calls import CallFailed

if TYPE_CHECKING:
    from monktalk.xmpp.admin.context import Node

log = get_logger(__name__)

FACTS, CHECK, APPLY, DRAIN, UNDRAIN = "worker_facts", "reload_check", "reload_apply", "drain", "undrain"
"""Operations: what a worker is, reading its file, applying what was read, sending its clients elsewhere, and no more."""

LEFT: Final = "node_left"
"""The topic of the notice that a node has left the cluster, or was removed: nobody waits for it."""


def offer(node: Node) -> None:
    """Let other workers call the operations."""
    server = node.server

    async def facts() -> dict[str, Any]:
        return {
            "version": metadata.version("monktalk"),
            "pid": os.getpid(),
            "uptime_seconds": int(server.clock.now() - server.started),
            "sessions": server.hub.sessions(),
            "draining": node.draining or server.draining.wanted,
            "database": "reachable" if server.storage.healthy() else "unreachable",
        }

    async def check() -> str:
        try:
            return node.check()
        except (ConfigError, OSError) as error:
            raise CallFailed(str(error)) from None

    async def apply(version: str) -> dict[str, list[str]]:
        if await check() != version:
            raise CallFailed("The file was changed while it was being checked: repeat the reload.")
        try:
            report = await node.reload()
        except (ConfigError, OSError, CommandError) as error:
            raise CallFailed(str(error)) from None
        return {"applied": report.applied, "restart_needed": report.restart_needed}

    async def drain(seconds: float) -> int:
        await node.drain()
        return await server.drain(seconds)

    async def undrain() -> None:
        await node.undrain()
        server.undrain()

    def left(_topic: str, arguments: tuple[str, ...]) -> None:
        log.info("node_left", node=arguments[0])
        server.bus.forget(arguments[0])

    server.calls.offer(FACTS, facts)
    server.calls.offer(CHECK, check)
    server.calls.offer(APPLY, apply)
    server.calls.offer(DRAIN, drain)
    server.calls.offer(UNDRAIN, undrain)
    server.bus.on_notice(LEFT, left)

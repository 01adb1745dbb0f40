"""The server itself."""

from __future__ import annotations

from typing import Final

from monktalk.xmpp.admin.registry import Context, command

GROUP: Final = "Server"


@command("registered_vhosts", "", "List the hosts that are served.")
async def registered_vhosts(context: Context) -> list[str]:
    """The domains in the order of the configuration."""
    return list(context.server.hosts)

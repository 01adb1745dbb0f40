"""The module `admin_commands`: what the administrators of a host do from a client (XEP-0133)."""

from __future__ import annotations

from monktalk.xmpp.modules.admin_commands.module import AdminCommands

__all__ = ["AdminCommands"]

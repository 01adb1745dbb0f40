"""The module: offers the commands to the administrators of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.adhoc import Adhoc
from monktalk.xmpp.modules.admin_commands import accounts, statistics

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.modules.adhoc import FormCommand


class AdminCommands(Module):
    """Service administration (XEP-0133) for the administrators of the host, as ad-hoc commands."""

    name = "admin_commands"
    requires = ("adhoc",)

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._commands: list[FormCommand] = []

    async def start(self) -> None:
        """Offer the commands."""
        statistics.offer(self.host.server)
        self._commands = [*accounts.commands(self.host), *statistics.commands(self.host)]
        for command in self._commands:
            Adhoc.of(self.host).add(command)

    async def stop(self) -> None:
        """Take them back."""
        for command in self._commands:
            Adhoc.of(self.host).remove(command)

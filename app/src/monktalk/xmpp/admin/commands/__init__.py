"""All commands, a module for each topic."""

from __future__ import annotations

from typing import Final

from monktalk.xmpp.admin.commands import accounts, cluster, messages, other, roster, server, sessions, vcard
from monktalk.xmpp.admin.registry import Command, by_name, collect

TOPICS: Final = (server, cluster, accounts, sessions, roster, vcard, messages, other)

COMMANDS: Final[dict[str, Command]] = by_name(
    entry for topic in TOPICS for entry in collect(topic.GROUP, vars(topic).values())
)

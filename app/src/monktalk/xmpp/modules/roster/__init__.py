"""The module `roster`: who is in a user's contact list, and what is agreed about presence (RFC 6121 section 2)."""

from __future__ import annotations

from monktalk.xmpp.modules.roster.module import RosterModule
from monktalk.xmpp.modules.roster.store import Change
from monktalk.xmpp.modules.roster.value import BOTH, EMPTY, FROM, NONE, TO, Item, Roster

__all__ = ["BOTH", "EMPTY", "FROM", "NONE", "TO", "Change", "Item", "Roster", "RosterModule"]

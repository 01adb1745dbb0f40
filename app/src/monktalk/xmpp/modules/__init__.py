"""All modules that come with the server, by their name in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import RosterModule

if TYPE_CHECKING:
    from monktalk.xmpp.core.module import Module

ALL: dict[str, type[Module]] = {
    "presence": Presence,
    "roster": RosterModule,
}

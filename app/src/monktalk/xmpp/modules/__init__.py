"""All modules that come with the server, by their name in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.xmpp.modules.adhoc import Adhoc
from monktalk.xmpp.modules.admin_commands import AdminCommands
from monktalk.xmpp.modules.caps import Caps
from monktalk.xmpp.modules.disco import Disco
from monktalk.xmpp.modules.entity_time import EntityTime
from monktalk.xmpp.modules.last import Last
from monktalk.xmpp.modules.offline import Offline
from monktalk.xmpp.modules.ping import Ping
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.private import Private
from monktalk.xmpp.modules.register import Register
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.modules.stanza_id import StanzaIds
from monktalk.xmpp.modules.vcard import Vcard
from monktalk.xmpp.modules.version import Version

if TYPE_CHECKING:
    from monktalk.xmpp.core.module import Module

ALL: dict[str, type[Module]] = {
    "adhoc": Adhoc,
    "admin_commands": AdminCommands,
    "caps": Caps,
    "disco": Disco,
    "last": Last,
    "offline": Offline,
    "ping": Ping,
    "presence": Presence,
    "private": Private,
    "register": Register,
    "roster": RosterModule,
    "stanza_id": StanzaIds,
    "time": EntityTime,
    "vcard": Vcard,
    "version": Version,
}

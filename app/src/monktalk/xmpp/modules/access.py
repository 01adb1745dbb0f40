"""Who may learn something about an account: those whom its owner lets see his presence (RFC 6121 section 4.3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.xmpp.modules.roster import RosterModule

if TYPE_CHECKING:
    from monktalk.common.jid import JID
    from monktalk.xmpp.core.host import VirtualHost


async def sees_presence(host: VirtualHost, user: str, requester: JID) -> bool:
    """Whether the entity may see the presence of the host's user. Without a roster, as absent accounts are, nobody may.

    Raises :class:`StorageUnavailable`.
    """
    roster = host.modules.get(RosterModule.name)
    return isinstance(roster, RosterModule) and await roster.shows_presence_to(user, requester.bare)


def surely_unseen(host: VirtualHost, user: str, requester: JID) -> bool:
    """Whether :func:`sees_presence` is known to be False without asking the storage."""
    roster = host.modules.get(RosterModule.name)
    if not isinstance(roster, RosterModule):
        return True
    known = roster.peek(user)
    return known is not None and not known.shows_presence_to(requester.bare)

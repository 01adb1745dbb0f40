"""What is stored of a session, and how a session is made of it again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgpack

from monktalk.xmpp.core.session import Session
from monktalk.xmpp.protocol.sm import StreamManagement
from monktalk.xmpp.protocol.stanza import Stanza

if TYPE_CHECKING:
    import asyncio

    from monktalk.common.jid import JID
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.storage.interfaces import Adopted

PROVISIONAL: Final = 1 << 40
"""Numbers of stanzas for an adopted session begin here until its client says how many it has had."""


class Record:
    """What is stored of a session.

    ``rows`` are the numbers of the stanzas in the session's queue that are stored, in order. ``adopted`` is set between
    adoption and resumption: the number of each stanza in the queue as it is stored, None for those that are not. ``owed``
    is set when the client has asked for an acknowledgement of more than could be acknowledged then. ``renumbering`` is
    pending while the storage gives stanzas the numbers that they have for the client: until then none is added.
    """

    __slots__ = ("adopted", "asked", "handled", "id", "owed", "provisional", "renumbering", "rows", "token", "writing")

    def __init__(self, id_: int, token: str, handled: int = 0) -> None:
        self.id = id_
        self.token = token
        self.handled = handled
        self.rows: deque[int] = deque()
        self.adopted: list[int | None] | None = None
        self.provisional = PROVISIONAL
        self.writing = False
        self.asked = False
        self.owed = False
        self.renumbering: asyncio.Future[None] | None = None

    def next_provisional(self) -> int:
        """A number behind all that have been given."""
        self.provisional += 1
        return self.provisional


def encode(session: Session) -> bytes:
    """What an adopter has to know of a session."""
    presence = session.presence
    facts: dict[str, Any] = {
        "presence": presence.raw if presence is not None else None,
        "priority": session.priority,
        "interested": session.interested,
        "directed": sorted(session.directed) if session.directed else [],
        "lang": session.lang,
        "peer": session.peer,
        "secure": session.secure,
        "bound_at": session.bound_at,
        "sm": session.sm is not None,
        "extra": {name: value for name, value in (session.extra or {}).items() if isinstance(value, str)},
    }
    packed: bytes = msgpack.packb(facts)
    return packed


def restored(host: VirtualHost, jid: JID, adopted: Adopted) -> Session:
    """The session that was written down. It has no connection."""
    facts = msgpack.unpackb(adopted.state)
    session = Session(host, jid, None, facts["lang"])
    session.peer, session.secure, session.bound_at = facts["peer"], facts["secure"], facts["bound_at"]
    session.interested = facts["interested"]
    session.directed = set(facts["directed"]) or None
    session.extra = facts["extra"] or None
    session.priority = facts["priority"]
    if facts["presence"] is not None:
        session.presence = Stanza.from_bytes(facts["presence"])
        session.presence.sender = jid
        session.presence.recipient = None
    record = session.record = Record(adopted.id, adopted.token, adopted.handled)
    if facts["sm"] or adopted.resumable:
        sm = session.sm = StreamManagement(adopted.token if adopted.resumable else None)
        sm.received = sm.answered = adopted.handled
        sm.acknowledged = adopted.acknowledged
        for message in adopted.messages:
            sm.sent(message.stanza)
        record.adopted = [message.out_seq for message in adopted.messages]
        if record.adopted:
            record.provisional = max(PROVISIONAL, *(number for number in record.adopted if number is not None))
    return session

"""What becomes of stanzas that an ended session has not acknowledged (XEP-0198 section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.jid import JID
from monktalk.xmpp.core.iq import STORAGE_DOWN
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, Stanza
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.sm import StreamManagement


def redeliver(session: Session, sm: StreamManagement) -> None:
    """Find a place for everything in the queue of a session that is not in the session table any more.

    Messages go to those of the user's sessions that have not had them, or are stored when there is no other session.
    Senders of requests, and of messages that nobody takes, are told.
    """
    for number, raw in enumerate(sm.queue, sm.acknowledged + 1):
        stanza = addressed_stanza(session, raw)
        if stanza is not None:
            redeliver_one(session, sm, stanza, number)


def addressed_stanza(session: Session, raw: bytes) -> Stanza | None:
    """A stanza from the queue of a session; None for one that nobody else is to get."""
    stanza = Stanza.from_bytes(raw)
    sender = stanza.attributes.get("from")
    if sender is None or stanza.type == "error":
        return None
    stanza.sender = JID.parse(sender)
    to = stanza.attributes.get("to")
    stanza.recipient = JID.parse(to) if to else session.jid.to_bare()
    return stanza


def redeliver_one(session: Session, sm: StreamManagement, stanza: Stanza, number: int) -> None:
    """Find a place for one stanza, the ``number``-th that was sent to the session."""
    server = session.host.server
    try:
        _place(session, sm, stanza, number)
    except StanzaError as error:
        server.bounce(stanza, error)
    except StorageUnavailable:
        server.bounce(stanza, STORAGE_DOWN)


def _place(session: Session, sm: StreamManagement, stanza: Stanza, number: int) -> None:
    """``number`` is the stanza's among all that were sent to the session."""
    if stanza.name == IQ and stanza.type in ("get", "set"):
        raise StanzaError("service-unavailable")
    if stanza.name != MESSAGE or stanza.type == "headline":
        return
    if stanza.type == "groupchat":
        raise StanzaError("recipient-unavailable")
    host, user = session.host, session.jid.local
    others = [other for other in host.available_sessions(user) if (other.priority or 0) >= 0]
    if not others:
        host.undelivered(stanza, user)
        return
    assert stanza.recipient is not None
    for other in others:
        # One to the bare JID went to all sessions that were available then.
        if stanza.recipient.resource or number <= sm.missed_by(other.jid.resource):
            other.send(stanza.raw)

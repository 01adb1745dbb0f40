"""Durable before delivered: a message is stored with its place in each recipient's stream before it is sent.

So it survives this worker: whoever adopts a session sends what its client has not had, and an acknowledgement to the
sender means that. See ADR 8.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.iq import STORAGE_DOWN
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import IQ, open_tag
from monktalk.xmpp.storage.interfaces import Delivered, StorageUnavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Held, Session
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)

_FLEETING: Final = ("error", "groupchat", "headline")
"""Types of messages that nobody keeps."""


class DurableDelivery:
    """Delivers the messages of one host to sessions with stream management."""

    def __init__(self, host: VirtualHost) -> None:
        self._host = host
        self._server = host.server
        self._store = host.server.storage.offline
        self._numbers = itertools.count(1)

    def deliver(self, sessions: Sequence[Session], stanza: Stanza) -> None:
        """Send a message to sessions of its recipient: to those with stream management when it is stored for them."""
        kept = stanza.type not in _FLEETING and self._host.hooks.storable(stanza)
        targets: list[tuple[Session, Held]] = []
        for session in sessions:
            if kept and session.record is not None and session.sm is not None:
                targets.append((session, session.hold(stanza.raw)))
            else:
                session.send(stanza.raw)
        if not targets:
            return
        recipient = stanza.recipient
        assert recipient is not None
        receipt = stanza.receipt
        if receipt is not None:
            receipt.hold()
        if receipt is not None and receipt.origin:
            origin, number = receipt.origin, receipt.number
        else:
            origin, number = self._server.bus.worker, next(self._numbers)
        future = self._store.deliver(
            self._host.domain,
            recipient.local,
            stanza.raw,
            self._server.clock.now(),
            [(session.record.id, held.number) for session, held in targets if session.record is not None],
            f"{self._host.domain}:{origin}" if origin == self._server.bus.worker else origin,
            number,
        )
        future.add_done_callback(partial(self._stored, stanza, targets))

    def _stored(self, stanza: Stanza, targets: list[tuple[Session, Held]], future: asyncio.Future[Delivered]) -> None:
        """The fate of a message is known: send it, or put something else in its place, since it has a number."""
        error = None if future.cancelled() else future.exception()
        outcome = None if error is not None or future.cancelled() else future.result()
        if outcome is not Delivered.STORED:
            for session, held in targets:
                held.raw = filler(session)
        for session, held in targets:
            held.stored = outcome is Delivered.STORED
            held.ready = True
            session.flush_held()
        if outcome is Delivered.SUPERSEDED:
            _ = self._server.spawn(self._again([session for session, _ in targets], stanza))
        elif error is not None:
            if not isinstance(error, StorageUnavailable):
                log.error("message_not_stored", host=self._host.domain, reason=repr(error))
            self._server.bounce(stanza, STORAGE_DOWN)
        if stanza.receipt is not None and outcome is not Delivered.SUPERSEDED:
            stanza.receipt.release()

    async def _again(self, sessions: list[Session], stanza: Stanza) -> None:
        """At least one of the sessions is not ours any more: find out which, and keep the message for the others."""
        continuity = self._server.continuity
        try:
            for session in sessions:
                await continuity.check(session)
            assert stanza.recipient is not None
            self._host.undelivered(stanza, stanza.recipient.local)
        except StanzaError as error:
            self._server.bounce(stanza, error)
        except StorageUnavailable:
            self._server.bounce(stanza, STORAGE_DOWN)
        finally:
            if stanza.receipt is not None:
                stanza.receipt.release()


def filler(session: Session) -> bytes:
    """A stanza that takes the place of one that has a number and is not sent: clients ignore answers to nothing."""
    attributes = {"type": "result", "id": "none", "from": session.host.domain, "to": session.jid.full}
    return open_tag(IQ, attributes) + b"/>"

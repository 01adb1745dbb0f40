"""Handing stored messages to a session, each to one session, in order, no faster than its client takes them.

To a session that is written down (`[messages] guarantee`) it is given in the storage: nothing is lost, nothing comes twice.
Otherwise it is removed once it has been handed over: with stream management to the session's queue, from which it comes back
to be stored again if the client never acknowledges it; without, to the connection. So it may come twice (when the
connection or the server breaks down just then), and is lost only when the server process dies while it is on its way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.delivery import filler
from monktalk.xmpp.modules.offline.delay import stamped
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.record import Record
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.storage.interfaces import OfflineMessage

log = get_logger(__name__)

BATCH: Final = 100
"""Messages that are read from the storage at once."""

ASK_AGAIN_SECONDS: Final = 1.0
"""When the storage is asked again what it did not answer."""

CHUNK_BYTES: Final = 256 * 1024
"""Bytes that are sent before the client is given time to read."""


def takes_messages(session: Session) -> bool:
    """Whether the session is available, with a priority of zero or more."""
    return session.priority is not None and session.priority >= 0


class Delivery:
    """The deliveries of one host. ``writing`` are the appends that are not durable yet, by user."""

    def __init__(self, host: VirtualHost) -> None:
        self._host = host
        self._store = host.server.storage.offline
        self._busy: set[str] = set()
        self._interrupted: set[str] = set()
        self._more: set[str] = set()
        self.writing: dict[str, set[asyncio.Future[bool]]] = {}

    def busy(self, user: str) -> bool:
        """Whether some session is being given the user's messages: it gets those too that are stored meanwhile."""
        return user in self._busy

    def stored(self, user: str) -> None:
        """A message of a user who is busy has become durable: the reading under way may have come too early for it."""
        self._more.add(user)

    def interrupted(self, user: str) -> bool:
        """Whether messages are left from a delivery that came to no end."""
        return user in self._interrupted

    def forget(self, user: str) -> None:
        """The account is gone."""
        self._interrupted.discard(user)

    async def deliver(self, session: Session) -> None:
        """Give the session the messages that wait for its user, unless another session is just getting them.

        It returns when there are none left, or the session can't take more; then another session is tried.
        """
        user = session.jid.local
        if user in self._busy:
            return
        self._busy.add(user)
        self._interrupted.discard(user)
        try:
            complete = await self._hand_over(session)
        except StorageUnavailable as error:
            # Not at once to another session: what could not be removed would come twice.
            self._interrupted.add(user)
            log.warning("offline_delivery_failed", jid=session.jid.full, reason=str(error))
            return
        finally:
            self._busy.discard(user)
            self._more.discard(user)
        if not complete:
            log.info("offline_delivery_interrupted", jid=session.jid.full)
            self.left_over(user, session)

    def left_over(self, user: str, tried: Session | None = None) -> None:
        """Messages wait although the user has sessions: give them to one, to the next that is available otherwise."""
        self._interrupted.add(user)
        for session in self._host.available_sessions(user):
            if session is not tried and takes_messages(session) and (session.has_room() or session.can_queue()):
                _ = self._host.server.spawn(self.deliver(session))
                return

    async def _hand_over(self, session: Session) -> bool:
        """True when nothing is left."""
        domain, user = self._host.domain, session.jid.local
        while True:
            self._more.discard(user)
            messages = await self._store.load(domain, user, BATCH)
            if not messages and user not in self._more:
                writing = self.writing.get(user)
                if not writing:
                    return True
                await asyncio.wait(writing)
            for chunk in self._chunks(messages):
                if session.record is not None and session.sm is not None:
                    if not await self._assign(session, session.record, chunk):
                        return False
                    continue
                if not await session.drained():
                    return False
                # A queue keeps what is in it, whatever happens to the connection. Without one, the connection must stand.
                queued = session.sm is not None
                for message in chunk:
                    session.send(stamped(message.stanza, domain, message.stamp))
                if not queued and not await session.drained():
                    return False
                await self._store.remove(domain, user, chunk[-1].id)

    async def _assign(self, session: Session, record: Record, chunk: Sequence[OfflineMessage]) -> bool:
        """Give messages to a session that is written down, in the storage and in its stream alike. False: it takes none."""
        if session.link is not None and not await session.drained():
            return False
        if not session.can_queue():
            return False
        domain, user = self._host.domain, session.jid.local
        texts = {message.id: stamped(message.stanza, domain, message.stamp) for message in chunk}
        held = [session.hold(raw) for raw in texts.values()]
        while True:
            try:
                taken = await self._store.assign(domain, user, list(texts), record.id, held[0].number)
            except StorageUnavailable as error:
                # Perhaps they are the session's by now. Until that is known it is sent nothing more; whoever adopts it knows.
                log.warning("offline_delivery_waits", jid=session.jid.full, reason=str(error))
                await asyncio.sleep(ASK_AGAIN_SECONDS)
            else:
                break
        for place, entry in enumerate(held):
            entry.stored = taken is not None and place < len(taken)
            # Those that have expired meanwhile are not sent, but their numbers are given.
            entry.raw = texts[taken[place]] if taken is not None and entry.stored else filler(session)
            entry.ready = True
        session.flush_held()
        if taken is None:
            self._host.server.continuity.superseded(session)
        return taken is not None

    def _chunks(self, messages: Sequence[OfflineMessage]) -> Iterator[list[OfflineMessage]]:
        """The messages in portions that fit into half of a session's queue."""
        options = self._host.stream_management
        most, most_bytes = max(1, options.queue // 2), min(CHUNK_BYTES, options.queue_size // 2)
        chunk: list[OfflineMessage] = []
        size = 0
        for message in messages:
            if chunk and (len(chunk) >= most or size + len(message.stanza) > most_bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append(message)
            size += len(message.stanza)
        if chunk:
            yield chunk

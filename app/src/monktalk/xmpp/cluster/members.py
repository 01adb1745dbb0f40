"""Who is there: every worker says so several times a second, and is gone when it has not for a while.

Nothing is decided by votes. That a worker seems gone only leads to attempts to take its users over, which the storage refuses
when it is still there.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster import frames
from monktalk.xmpp.cluster.bus import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from monktalk.common.clock import Clock
    from monktalk.xmpp.cluster.nats.connection import Nats
    from monktalk.xmpp.cluster.nats.wire import Message
    from monktalk.xmpp.cluster.subjects import Subjects

log = get_logger(__name__)

BEAT_SECONDS: Final = 0.3
"""How often a worker says that it is there."""

GONE_SECONDS: Final = 1.5
"""A worker that has been silent for so long is gone."""

LATE_SECONDS: Final = GONE_SECONDS / 2
"""A worker that finds itself so late has been stopped for a while, and what others have said meanwhile is still unread."""

FORGET_SECONDS: Final = 3600.0
"""So long it is known that a worker was there; if it comes back by then, both sides have missed something."""

_BEAT, _HELLO, _BYE = 0, 1, 2


class Members:
    """The workers of the cluster.

    Args:
        nats: the connection.
        subjects: the names on it.
        me: this worker.
        sessions: tells how many sessions are here.
        clock: the time.
        joined: called for a worker that was not there before (or ``came_back``, after it had been gone).
        gone: called for one that is not there any more.
        stalled: called when this worker itself has been silent for so long that the others think that it is gone.
    """

    def __init__(
        self,
        nats: Nats,
        subjects: Subjects,
        me: Peer,
        sessions: Callable[[], int],
        clock: Clock,
        *,
        joined: Callable[[str, bool], None],
        gone: Callable[[str], None],
        stalled: Callable[[], None],
    ) -> None:
        self._nats = nats
        self._subject = subjects.beats
        self._me = me
        self._sessions = sessions
        self._clock = clock
        self._joined = joined
        self._gone = gone
        self._stalled = stalled
        self._last_beat = clock.monotonic()
        self._peers: dict[str, tuple[Peer, float]] = {}
        self._missing: dict[str, tuple[Peer, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.draining = False
        nats.subscribe(self._subject, self._receive)

    def start(self) -> None:
        """Begin to beat, and ask the others to say at once that they are there."""
        self._say(_HELLO)
        self._later()

    def stop(self) -> None:
        """Say good-bye."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._say(_BYE)

    def hello(self) -> None:
        """Ask the others to say at once that they are there."""
        self._say(_HELLO)

    def own(self) -> Peer:
        """This worker as it is now."""
        return replace(self._me, sessions=self._sessions(), draining=self.draining)

    def all(self) -> list[Peer]:
        """All workers, this one included, sorted by node and number."""
        peers = [self.own(), *(peer for peer, _ in self._peers.values())]
        return sorted(peers, key=lambda peer: (peer.node, peer.number, peer.started))

    def there(self, worker: str) -> bool:
        """Whether that worker is there, as far as we know."""
        return worker in self._peers or worker == self._me.name

    def missing(self) -> list[Peer]:
        """Workers that have vanished without a good-bye, unless another one has their number on their node by now."""
        places = {(peer.node, peer.number) for peer in self.all()}
        found = [peer for peer, _ in self._missing.values() if (peer.node, peer.number) not in places]
        return sorted(found, key=lambda peer: (peer.node, peer.number, peer.started))

    def forget(self, node: str) -> None:
        """The missing workers of that node will not come back."""
        self._missing = {name: entry for name, entry in self._missing.items() if entry[0].node != node}

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        self._later()
        self._say(_BEAT)
        now = self._clock.monotonic()
        gap, self._last_beat = now - self._last_beat, now
        if gap > GONE_SECONDS:
            log.warning("worker_stalled", reason=f"it did nothing for {gap:.1f} s")
            self._stalled()
        if gap > LATE_SECONDS or not self._nats.connected:
            # Nobody could be heard, or this worker has not listened: that says nothing about the others.
            self._peers = {name: (peer, now) for name, (peer, _) in self._peers.items()}
            return
        for name, (peer, heard) in list(self._peers.items()):
            if now - heard > GONE_SECONDS:
                del self._peers[name]
                self._missing[name] = peer, now
                log.warning("worker_gone", worker=name, reason=f"silent for {now - heard:.1f} s")
                self._gone(name)
        for name, (_, since) in list(self._missing.items()):
            if now - since > FORGET_SECONDS:
                del self._missing[name]

    def _say(self, what: int) -> None:
        me = self.own()
        facts = (me.name, me.node, me.number, me.version, me.started, me.sessions, me.draining)
        self._nats.publish(self._subject, frames.pack([(what, *facts)]))

    def _receive(self, message: Message) -> None:
        try:
            (frame,) = frames.unpack(message.payload)
            what, peer = frame[0], _peer(frame[1:])
        except ValueError as error:
            log.error("beat_refused", reason=str(error))
            return
        known = peer.name in self._peers
        if what == _BYE:
            self._missing.pop(peer.name, None)
            if known:
                del self._peers[peer.name]
                log.info("worker_left", worker=peer.name)
                self._gone(peer.name)
            return
        self._peers[peer.name] = (peer, self._clock.monotonic())
        if what == _HELLO:
            self._say(_BEAT)
        if not known:
            came_back = self._missing.pop(peer.name, None) is not None
            log.info("worker_came_back" if came_back else "worker_joined", worker=peer.name)
            self._joined(peer.name, came_back)


def _peer(facts: tuple[Any, ...]) -> Peer:
    if len(facts) < 7:
        raise ValueError("a beat has seven facts")
    name, node, number, version, started, sessions, draining = facts[:7]
    return Peer(str(name), str(node), int(number), str(version), float(started), int(sessions), bool(draining))

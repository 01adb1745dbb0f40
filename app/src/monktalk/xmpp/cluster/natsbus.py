"""The bus on NATS: homes, channels and members put together. See :class:`monktalk.xmpp.cluster.bus.Bus`."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.clock import Clock, SystemClock
from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster import frames
from monktalk.xmpp.cluster.bus import BusDown, Peer
from monktalk.xmpp.cluster.channels import Channels
from monktalk.xmpp.cluster.directory import Directory
from monktalk.xmpp.cluster.members import Members
from monktalk.xmpp.cluster.nats.connection import Nats
from monktalk.xmpp.cluster.subjects import Subjects, token

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from monktalk.xmpp.cluster.bus import Hub, Notice
    from monktalk.xmpp.cluster.frames import Frame
    from monktalk.xmpp.cluster.nats.wire import Message

log = get_logger(__name__)

CONNECT_SECONDS: Final = 5.0
"""How long somebody who logs in waits for the bus to come back."""

HOMES_A_FRAME: Final = 2000

_TO_USER, _TO_WORKER, _ELSEWHERE, _HOMES = 0, 1, 2, 3


@dataclass(frozen=True)
class NatsOptions:
    """How to reach NATS: host and port of each server, this node's own first."""

    servers: Sequence[tuple[str, int]]
    cluster: str = "monktalk"
    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None


class NatsBus:
    """A worker among others.

    Args:
        options: how to reach NATS.
        node: the name of the host; what can't be in a name on the bus is replaced.
        number: which worker of the node this is.
        clock: the time.
    """

    alone = False

    def __init__(self, options: NatsOptions, node: str, number: int = 0, clock: Clock | None = None) -> None:
        clean = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_") else "-" for sign in node)
        self.worker = token(f"{clean}-{number}-{secrets.token_hex(4)}")
        self._node = node
        self._number = number
        self._clock = clock or SystemClock()
        self._subjects = Subjects(options.cluster)
        self._nats = Nats(
            options.servers,
            name=self.worker,
            user=options.user,
            password=options.password,
            tls=options.tls,
            on_state=self._state,
        )
        self._connected = asyncio.Event()
        self._was_connected = False
        self._hub: Hub
        self._channels: Channels
        self._directory: Directory
        self._members: Members
        self._notices: dict[str, Notice] = {}

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self, hub: Hub) -> None:
        """Connect. Raises OSError when no NATS server lets us in."""
        self._hub = hub
        me = Peer(self.worker, self._node, self._number, version("monktalk"), time.time())
        self._channels = Channels(self._nats, self._subjects, self.worker, self._take, self._returned)
        self._directory = Directory(
            self._nats,
            self._subjects,
            self.worker,
            self._clock,
            send=self._channels.send,
            take=self._take,
            homeless=self._homeless,
            conflict=self._conflict,
        )
        self._members = Members(
            self._nats,
            self._subjects,
            me,
            hub.sessions,
            self._clock,
            joined=self._joined,
            gone=self._gone,
            stalled=hub.stalled,
        )
        self._nats.subscribe(self._subjects.everybody, self._notice)
        await self._nats.connect()
        await self._nats.flush()
        self._members.start()

    async def close(self) -> None:
        """Say good-bye, send back what has come too late, and disconnect."""
        self._channels.flush()
        self._members.stop()
        await self._nats.drain()
        self._directory.close()
        self._channels.flush()
        await self._nats.close()

    def _state(self, connected: bool) -> None:
        if not connected:
            self._connected.clear()
            self._hub.connected(False)
            return
        self._connected.set()
        self._hub.connected(True)
        if self._was_connected:
            # What was said meanwhile was missed, by us and by the others.
            self._members.hello()
            for peer in self._members.all():
                self._compare_with(peer.name)
        self._was_connected = True

    # -- members -------------------------------------------------------------------------------------------------

    def _joined(self, worker: str, came_back: bool) -> None:
        if came_back:
            self._hub.news_lost()
            self._compare_with(worker)

    def _gone(self, worker: str) -> None:
        self._directory.gone(worker)
        self._channels.forget(worker)
        self._hub.worker_gone(worker)

    def _compare_with(self, worker: str) -> None:
        if worker == self.worker:
            return
        homes = self._directory.compare()
        for begin in range(0, len(homes), HOMES_A_FRAME):
            self._channels.send(worker, (_HOMES, homes[begin : begin + HOMES_A_FRAME]))

    def peers(self) -> list[Peer]:
        """All workers that are there."""
        return self._members.all()

    def missing(self) -> list[Peer]:
        """Workers that have vanished without a good-bye."""
        return self._members.missing()

    def forget(self, node: str) -> None:
        """The missing workers of that node will not come back."""
        self._members.forget(node)

    @property
    def connected(self) -> bool:
        """Whether NATS is connected."""
        return self._nats.connected

    def drain(self, draining: bool = True) -> None:
        """Let the others know that this worker takes no new users, or does again."""
        self._members.draining = draining

    # -- homes ---------------------------------------------------------------------------------------------------

    async def arrive(self, host: str, user: str) -> str | None:
        """Find the user's home, or make it here (None). Raises :class:`BusDown`."""
        key = (host, user)
        if self._directory.is_home(key):
            return None
        if not self._nats.connected:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._connected.wait()
            except TimeoutError:
                raise BusDown("the other workers can't be reached") from None
        return await self._directory.arrive(key)

    def leave(self, host: str, user: str) -> None:
        """Be the user's home no longer."""
        self._directory.leave((host, user))

    def _conflict(self, host: str, user: str, worker: str, older: bool) -> None:
        self._hub.conflict(host, user, worker, older=older)

    def insist(self, host: str, user: str) -> None:
        """Tell other homes of the user that this one is older."""
        self._directory.insist((host, user))

    def is_home(self, host: str, user: str) -> bool:
        """Whether the user's home is here."""
        return self._directory.is_home((host, user))

    # -- frames --------------------------------------------------------------------------------------------------

    def send(self, worker: str, kind: int, *fields: Any) -> None:
        """Send a frame to a worker."""
        self._channels.send(worker, (_TO_WORKER, kind, *fields))

    def to_user(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """Send a frame to the home of a user that is not here; without one it goes to :meth:`Hub.homeless`."""
        self._directory.to_user((host, user), (_TO_USER, host, user, kind, fields))

    def cast(self, host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        """Send a frame to the home of a user that is not here, if he has one."""
        self._directory.cast((host, user), (_TO_USER, host, user, kind, fields))

    def _take(self, worker: str, frame: Frame) -> None:
        what = frame[0]
        if what == _TO_USER:
            _, host, user, kind, fields = frame[:5]
            if self._directory.is_home((host, user)):
                self._hub.user_frame(worker, host, user, kind, fields)
            else:
                self._channels.send(worker, (_ELSEWHERE, frame))
        elif what == _TO_WORKER:
            self._hub.worker_frame(worker, frame[1], frame[2:])
        elif what == _ELSEWHERE:
            self._again(worker, frame[1])
        elif what == _HOMES:
            for host, user, since in frame[1]:
                self._directory.claimed((host, user), worker, since)

    def _again(self, worker: str, frame: Frame) -> None:
        """A frame did not find its user where he was last."""
        _, host, user, kind, fields = frame[:5]
        self._directory.moved((host, user), worker)
        if self._hub.astray(host, user, kind, fields):
            return
        if self._directory.is_home((host, user)):
            self._hub.user_frame(self.worker, host, user, kind, fields)
        else:
            self._directory.to_user((host, user), frame)

    def _homeless(self, frame: Frame, certain: bool) -> None:
        _, host, user, kind, fields = frame[:5]
        self._hub.homeless(host, user, kind, fields, certain=certain)

    def _returned(self, worker: str, batch: list[Frame], gone: bool) -> None:
        """Frames have found nobody: the worker has ended, or one of us has no connection. Its beats will tell."""
        for frame in batch:
            if frame[0] == _TO_USER:
                self._again(worker, frame)
            elif frame[0] == _TO_WORKER and not gone:
                self._hub.unsent(worker, frame[1], frame[2:])
            elif frame[0] == _ELSEWHERE:
                log.debug("frame_dropped", worker=worker)

    # -- notices -------------------------------------------------------------------------------------------------

    def notify(self, topic: str, *arguments: str) -> None:
        """Send a notice to all other workers."""
        self._nats.publish(self._subjects.everybody, frames.pack([(topic, *arguments)]))

    def on_notice(self, topic: str, handler: Notice) -> None:
        """Call ``handler`` for the notices of others on that topic."""
        self._notices[topic] = handler

    def _notice(self, message: Message) -> None:
        for topic, *arguments in frames.unpack(message.payload):
            handler = self._notices.get(topic)
            if handler is not None:
                handler(topic, tuple(arguments))

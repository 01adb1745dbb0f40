"""Frames from this worker to others: gathered in one iteration of the event loop, sent in one message for each worker.

NATS says at once when a message has found nobody. What was in it goes back to the one who sent it, so that a worker's
end loses nothing that was sent after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster import frames
from monktalk.xmpp.cluster.nats.wire import NO_RESPONDERS

if TYPE_CHECKING:
    from monktalk.xmpp.cluster.frames import Frame
    from monktalk.xmpp.cluster.nats.connection import Nats
    from monktalk.xmpp.cluster.nats.wire import Message
    from monktalk.xmpp.cluster.subjects import Subjects

log = get_logger(__name__)

REMEMBERED: Final = 32
"""Messages to a worker that are remembered until the next ones, in case they come back."""

FORGET_SECONDS: Final = 10.0
"""So long what was sent to a worker that has gone may come back."""

Take = Callable[[str, "Frame"], None]
"""Called with the name of the worker that a frame has come from, and the frame."""

Returned = Callable[[str, "list[Frame]", bool], None]
"""Called with the name of a worker, and the frames that did not get there; with True when it has gone.

With False there was no connection to send them on.
"""


class _Channel:
    """What goes to one worker."""

    __slots__ = ("frames", "number", "sent", "size", "subject")

    def __init__(self, subject: bytes) -> None:
        self.subject = subject
        self.frames: list[Frame] = []
        self.size = 0
        self.number = 0
        self.sent: deque[tuple[int, list[Frame]]] = deque(maxlen=REMEMBERED)


class Channels:
    """The frames to and from all other workers.

    Args:
        nats: the connection.
        subjects: the names on it.
        me: the name of this worker.
        take: gets what comes.
        returned: gets what has not arrived.
    """

    def __init__(self, nats: Nats, subjects: Subjects, me: str, take: Take, returned: Returned) -> None:
        self._nats = nats
        self._subjects = subjects
        self._me = me
        self._take = take
        self._returned = returned
        self._channels: dict[str, _Channel] = {}
        self._waiting: list[_Channel] = []
        self._returns = subjects.returns(me) + b"."
        nats.subscribe(subjects.worker(me), self._receive)
        nats.subscribe(self._returns + b">", self._come_back)

    def send(self, worker: str, frame: Frame) -> None:
        """Send a frame behind those that were sent to that worker before."""
        size = frames.weight(frame)
        channel = self._channels.get(worker)
        if channel is None:
            channel = self._channels[worker] = _Channel(self._subjects.worker(worker))
        if not channel.frames:
            if not self._waiting:
                asyncio.get_running_loop().call_soon(self.flush)
            self._waiting.append(channel)
        elif channel.size + size > frames.MAX_BATCH:
            self._publish(channel)
        channel.frames.append(frame)
        channel.size += size

    def flush(self) -> None:
        """Send what is gathered."""
        waiting, self._waiting = self._waiting, []
        for channel in waiting:
            if channel.frames:
                self._publish(channel)

    def _publish(self, channel: _Channel) -> None:
        batch, channel.frames, channel.size = channel.frames, [], 0
        worker = channel.subject.rpartition(b".")[2]
        channel.number += 1
        channel.sent.append((channel.number, batch))
        back = b"%b%b.%d" % (self._returns, worker, channel.number)
        if not self._nats.publish(channel.subject, frames.pack([(self._me,), *batch]), back):
            channel.sent.pop()
            asyncio.get_running_loop().call_soon(self._returned, worker.decode(), batch, False)

    def forget(self, worker: str) -> None:
        """The worker is gone for good; what was sent to it just now may still come back."""
        channel = self._channels.get(worker)
        if channel is not None:
            asyncio.get_running_loop().call_later(FORGET_SECONDS, self._forget, worker, channel)

    def _forget(self, worker: str, channel: _Channel) -> None:
        if self._channels.get(worker) is channel and not channel.frames:
            del self._channels[worker]

    def _receive(self, message: Message) -> None:
        if message.status:
            return
        try:
            batch = frames.unpack(message.payload)
        except frames.FrameError as error:
            log.error("frames_refused", reason=str(error))
            return
        sender = batch[0][0]
        take = self._take
        for frame in batch[1:]:
            try:
                take(sender, frame)
            except Exception:
                log.exception("frame_failed", kind=frame[0], worker=sender)

    def _come_back(self, message: Message) -> None:
        """A message did not find its worker."""
        if message.status != NO_RESPONDERS:
            return
        _, worker, number = message.subject.rsplit(b".", 2)
        channel = self._channels.get(worker.decode())
        if channel is None:
            return
        lost = [batch for at, batch in channel.sent if at == int(number)]
        channel.sent = deque((entry for entry in channel.sent if entry[0] != int(number)), maxlen=REMEMBERED)
        self._returned(worker.decode(), [frame for batch in lost for frame in batch], True)

"""Where users are at home. The interest graph of NATS is the table: a home subscribes to its user's subject.

A worker that wants to become a home subscribes first and then asks on the subject. When nobody answers it is the home; two
that ask at once see each other, and the earlier one wins. Subscriptions vanish with their worker, so nothing has to be
cleaned up. On both sides of a partition a user may get a home of his own: such are found afterwards (see
:meth:`Directory.compare`), and the younger one hands over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster import frames
from monktalk.xmpp.cluster.bus import BusDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from monktalk.common.clock import Clock
    from monktalk.xmpp.cluster.frames import Frame
    from monktalk.xmpp.cluster.nats.connection import Nats
    from monktalk.xmpp.cluster.nats.wire import Message
    from monktalk.xmpp.cluster.subjects import Subjects

log = get_logger(__name__)

ANSWER_SECONDS: Final = 1.0
"""A question that has not been answered by then will not be: whoever should answer has just died."""

GRACE_SECONDS: Final = 0.05
"""How long to wait for a home when somebody has answered that he only wanted to become one."""

ANNOUNCE_SECONDS: Final = 2.5
"""When a new home says so once more, to whoever may have become one at the same moment at another NATS server.

Later than a worker that can't be heard is missed (see :mod:`members`): a longer division is noticed by that.
"""

MOST_LOCATIONS: Final = 100_000
"""Homes of others that are remembered."""

MOST_WAITING: Final = 1000
"""Frames for one user that wait until it is known where his home is."""

_ASK, _CAST, _CLAIM = 0, 1, 2
_HOME, _YIELDED, _EARLIER = 0, 1, 2
"""Answers: where the home is, that somebody wants to become it later than the one who asks, or earlier and will say more."""

Key = tuple[str, str]
"""Host and user."""


class _Home:
    """A user whose home is here, or is about to be."""

    __slots__ = ("asked", "decided", "since", "subject", "subscription")

    def __init__(self, since: float, subject: bytes, subscription: int, decided: asyncio.Future[str | None]) -> None:
        self.since = since
        self.subject = subject
        self.subscription = subscription
        self.decided: asyncio.Future[str | None] | None = decided
        self.asked: list[bytes] = []


class _Question(NamedTuple):
    key: Key
    deadline: float
    answered: Callable[[str | None, bool], None]
    """Called with the home, or None, and whether that is certain."""
    patient: bool = False
    """Somebody who was earlier has promised to say where the home is."""


class Directory:
    """Finds homes, and makes this worker one.

    Args:
        nats: the connection.
        subjects: the names on it.
        me: the name of this worker.
        clock: the time.
        send: sends a frame to a worker.
        take: gets frames that were cast to users whose home is here.
        homeless: gets frames for users who have no home, as far as is known; with True where that is certain.
        conflict: called with host, user, the other worker, and whether the home here is older, when there are two.
    """

    def __init__(
        self,
        nats: Nats,
        subjects: Subjects,
        me: str,
        clock: Clock,
        *,
        send: Callable[[str, Frame], None],
        take: Callable[[str, Frame], None],
        homeless: Callable[[Frame, bool], None],
        conflict: Callable[[str, str, str, bool], None],
    ) -> None:
        self._nats = nats
        self._subjects = subjects
        self._me = me
        self._clock = clock
        self._send = send
        self._take = take
        self._homeless = homeless
        self._conflict = conflict
        self.homes: dict[Key, _Home] = {}
        self._by_subject: dict[bytes, Key] = {}
        self._locations: dict[Key, str] = {}
        self._waiting: dict[Key, list[tuple[Frame, bool]]] = {}
        """Frames, and whether somebody wants to know when there is no home for them."""
        self._questions: dict[int, _Question] = {}
        self._last_question = 0
        self._answers = subjects.answers(me) + b"."
        self._announcements: deque[tuple[float, Key, _Home]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        nats.subscribe(self._answers + b"*", self._answered)

    def close(self) -> None:
        """Ask and announce nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- homes here ----------------------------------------------------------------------------------------------

    def is_home(self, key: Key) -> bool:
        """Whether the user's home is here, as far as that is decided."""
        home = self.homes.get(key)
        return home is not None and home.decided is None

    async def arrive(self, key: Key) -> str | None:
        """The worker that is the user's home; None when it is this one, from now on. Raises :class:`BusDown`."""
        home = self.homes.get(key)
        if home is not None:
            return None if home.decided is None else await asyncio.shield(home.decided)
        loop = asyncio.get_running_loop()
        subject = self._subjects.user(*key)
        subscription = self._nats.subscribe(subject, self._receive)
        decided: asyncio.Future[str | None] = loop.create_future()
        home = self.homes[key] = _Home(self._clock.now(), subject, subscription, decided)
        self._by_subject[subject] = key
        self._ask(key, subject, home.since, lambda worker, certain: self._decide(key, home, worker, certain=certain))
        return await asyncio.shield(decided)

    def _decide(self, key: Key, home: _Home, worker: str | None, *, certain: bool) -> None:
        decided, home.decided = home.decided, None
        asked, home.asked = home.asked, []
        if worker is None and not certain and not self._nats.connected:
            self._forget_home(key, home)
            if decided is not None and not decided.done():
                decided.set_exception(BusDown("the other workers can't be reached"))
            return
        for reply in asked:
            self._answer(reply, _HOME, home.since, worker)
        if worker is None:
            self._locations.pop(key, None)
            self._announcements.append((self._clock.monotonic() + ANNOUNCE_SECONDS, key, home))
            self._tick_later()
        else:
            self._remember(key, worker)
            self._forget_home(key, home)
        if decided is not None and not decided.done():
            decided.set_result(worker)
        if worker is None:
            self._release(key, None)

    def leave(self, key: Key) -> None:
        """Nobody of the user is here any more."""
        home = self.homes.get(key)
        if home is not None and home.decided is None:
            self._forget_home(key, home)

    def _forget_home(self, key: Key, home: _Home) -> None:
        if self.homes.get(key) is home:
            del self.homes[key]
            self._by_subject.pop(home.subject, None)
            self._nats.unsubscribe(home.subscription)

    def _receive(self, message: Message) -> None:
        """Something has come on the subject of a user whose home is here, or is about to be."""
        key = self._by_subject.get(message.subject)
        home = self.homes.get(key) if key is not None else None
        if key is None or home is None:
            return
        try:
            (frame,) = frames.unpack(message.payload)
        except ValueError as error:
            log.error("frames_refused", reason=str(error))
            return
        kind, worker, host, user = frame[:4]
        if (host, user) != key:
            return  # another name with the same hash
        if kind == _ASK:
            self._be_asked(home, worker, frame[4], message.reply)
        elif kind == _CLAIM:
            self.claimed(key, worker, frame[4])
        elif kind == _CAST and home.decided is None:
            self._take(worker, frame[4])

    def _be_asked(self, home: _Home, worker: str, since: float | None, reply: bytes) -> None:
        if home.decided is None:
            self._answer(reply, _HOME, home.since)
        elif since is None or (home.since, self._me) < (since, worker):
            # Perhaps this worker has to give way itself: who asks is told when that is decided.
            home.asked.append(reply)
            self._answer(reply, _EARLIER, home.since)
        else:
            self._answer(reply, _YIELDED, home.since)

    def _answer(self, reply: bytes, what: int, since: float, worker: str | None = None) -> None:
        self._nats.publish(reply, frames.pack([(what, worker or self._me, since)]))

    # -- two homes -----------------------------------------------------------------------------------------------

    def claimed(self, key: Key, worker: str, since: float) -> None:
        """Another worker is the user's home, too: the younger one hands over."""
        home = self.homes.get(key)
        if home is None or home.decided is not None or worker == self._me:
            return
        older = (home.since, self._me) < (since, worker)
        log.info("home_disputed", user="@".join(reversed(key)), worker=worker, older=older)
        self._conflict(*key, worker, older)

    def insist(self, key: Key) -> None:
        """Tell other homes of the user that this one is older."""
        home = self.homes.get(key)
        if home is not None and home.decided is None:
            self._announce(key, home)

    def _announce(self, key: Key, home: _Home) -> None:
        self._nats.publish(home.subject, frames.pack([(_CLAIM, self._me, *key, home.since)]))

    def compare(self) -> list[tuple[str, str, float]]:
        """All homes here, for a worker that was out of reach for a while; it calls :meth:`claimed` with each of them."""
        return [(*key, home.since) for key, home in self.homes.items() if home.decided is None]

    # -- homes elsewhere -----------------------------------------------------------------------------------------

    def to_user(self, key: Key, frame: Frame) -> None:
        """Send a frame to the user's home behind all that was sent there before."""
        worker = self._locations.get(key)
        if worker is not None:
            self._send(worker, frame)
            return
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [(frame, True)]
            self._locate(key)
        elif len(waiting) < MOST_WAITING:
            waiting.append((frame, True))
        else:
            self._homeless(frame, False)

    def cast(self, key: Key, frame: Frame) -> None:
        """Send a frame to the user's home, if he has one."""
        worker = self._locations.get(key)
        if worker is not None:
            self._send(worker, frame)
        elif (waiting := self._waiting.get(key)) is not None:
            if len(waiting) < MOST_WAITING:
                waiting.append((frame, False))
        else:
            self._nats.publish(self._subjects.user(*key), frames.pack([(_CAST, self._me, *key, frame)]))

    def _locate(self, key: Key) -> None:
        self._ask(key, self._subjects.user(*key), None, lambda worker, certain: self._located(key, worker, certain))

    def _located(self, key: Key, worker: str | None, certain: bool) -> None:
        if worker is not None:
            self._remember(key, worker)
        self._release(key, worker, certain=certain)

    def _release(self, key: Key, worker: str | None, *, certain: bool = True) -> None:
        """It is known where the user's home is: send what has waited for that."""
        for frame, wanted in self._waiting.pop(key, ()):
            if worker is not None:
                self._send(worker, frame)
            elif self.is_home(key):
                self._take(self._me, frame)
            elif wanted:
                self._homeless(frame, certain)

    def _remember(self, key: Key, worker: str) -> None:
        if len(self._locations) >= MOST_LOCATIONS:
            del self._locations[next(iter(self._locations))]
        self._locations[key] = worker

    def moved(self, key: Key, worker: str) -> None:
        """The user's home is not at that worker any more."""
        if self._locations.get(key) == worker:
            del self._locations[key]

    def gone(self, worker: str) -> None:
        """The worker is not there any more, and nobody's home."""
        for key in [key for key, at in self._locations.items() if at == worker]:
            del self._locations[key]

    # -- questions -----------------------------------------------------------------------------------------------

    def _ask(self, key: Key, subject: bytes, since: float | None, answered: Callable[[str | None, bool], None]) -> None:
        self._last_question += 1
        number = self._last_question
        self._questions[number] = _Question(key, self._clock.monotonic() + ANSWER_SECONDS, answered)
        self._nats.publish(subject, frames.pack([(_ASK, self._me, *key, since)]), b"%b%d" % (self._answers, number))
        self._tick_later()

    def _answered(self, message: Message) -> None:
        number = int(message.subject.rpartition(b".")[2])
        question = self._questions.get(number)
        if question is None:
            return
        worker: str | None = None
        if not message.status:
            (frame,) = frames.unpack(message.payload)
            if frame[0] != _HOME:
                self._put_off(number, question, frame[0])
                return
            worker = frame[1]
        del self._questions[number]
        question.answered(worker, True)

    def _put_off(self, number: int, question: _Question, answer: int) -> None:
        """Somebody else wants to become the home, too: wait for him if he was earlier, else for others, for a moment."""
        now = self._clock.monotonic()
        if answer == _EARLIER:
            self._questions[number] = question._replace(deadline=now + ANSWER_SECONDS, patient=True)
        elif not question.patient:
            # Perhaps somebody is the home already, and just has not answered yet.
            self._questions[number] = question._replace(deadline=min(question.deadline, now + GRACE_SECONDS))
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._settle, number)

    def _settle(self, number: int) -> None:
        question = self._questions.get(number)
        if question is not None and not question.patient:
            del self._questions[number]
            question.answered(None, True)

    def _tick_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS / 4, self._tick)

    def _tick(self) -> None:
        """Give up on questions, and announce new homes. One timer serves all; both lists are in the order of time."""
        self._timer = None
        now = self._clock.monotonic()
        late = [number for number, question in self._questions.items() if question.deadline <= now]
        for number in late:
            question = self._questions.pop(number, None)
            if question is not None:
                question.answered(None, False)
        while self._announcements and self._announcements[0][0] <= now:
            _, key, home = self._announcements.popleft()
            if self.homes.get(key) is home:
                self._announce(key, home)
        if self._questions or self._announcements:
            self._tick_later()

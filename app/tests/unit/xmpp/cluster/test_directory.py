"""Where users are at home."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.common.clock import ManualClock
from monktalk.xmpp.cluster import directory as directory_module
from monktalk.xmpp.cluster.bus import BusDown
from monktalk.xmpp.cluster.directory import ANNOUNCE_SECONDS, ANSWER_SECONDS, Directory
from monktalk.xmpp.cluster.subjects import Subjects
from tests.support.fakenats import Broker

JULIET = ("capulet.example", "juliet")
STANZA = ("stanza", 1)


class Worker:
    """One worker's directory, and what it has done. Frames go straight to the others."""

    def __init__(self, broker, clock, name, workers):
        self.name = name
        self.nats = broker.client()
        self.sent = []
        self.taken = []
        self.homeless = []
        self.handed_over = []
        self._workers = workers
        workers[name] = self
        self.directory = Directory(
            self.nats,
            Subjects("test"),
            name,
            clock,
            send=self._send,
            take=lambda worker, frame: self.taken.append((worker, frame)),
            homeless=lambda frame, certain: self.homeless.append((frame, certain)),
            conflict=self._conflict,
        )

    def _send(self, worker, frame):
        self.sent.append((worker, frame))
        self._workers[worker].taken.append((self.name, frame))

    def _conflict(self, host, user, worker, older):
        if older:
            self.directory.insist((host, user))
        else:
            self.handed_over.append((host, user, worker))
            self.directory.leave((host, user))


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def clock():
    return ManualClock(now=1_700_000_000.0, monotonic=1_000.0)


@pytest.fixture
async def workers(broker, clock):
    known = {}
    yield [Worker(broker, clock, name, known) for name in ("one", "two", "three")]
    for worker in known.values():
        worker.directory.close()


async def arrive(worker, broker, key=JULIET):
    found, _ = await asyncio.gather(worker.directory.arrive(key), broker.settled())
    return found


async def test_the_first_worker_to_which_a_user_comes_is_his_home(workers, broker):
    one, two, _ = workers
    assert await arrive(one, broker) is None
    assert await arrive(one, broker) is None, "and stays it"
    assert await arrive(two, broker) == "one"
    assert (one.directory.is_home(JULIET), two.directory.is_home(JULIET)) == (True, False)


async def test_when_the_last_session_has_ended_another_may_become_it(workers, broker):
    one, two, _ = workers
    await arrive(one, broker)
    one.directory.leave(JULIET)
    assert await arrive(two, broker) is None
    assert await arrive(one, broker) == "two"


async def test_clients_that_come_to_one_worker_at_once_wait_for_one_answer(workers, broker):
    one, *_ = workers
    waiting = [asyncio.create_task(one.directory.arrive(JULIET)) for _ in range(3)]
    await broker.settled()
    assert await asyncio.gather(*waiting) == [None] * 3


async def test_of_workers_that_ask_at_once_one_becomes_the_home(workers, broker, monkeypatch):
    monkeypatch.setattr(directory_module, "GRACE_SECONDS", 0.0)
    homes = await asyncio.gather(*(worker.directory.arrive(JULIET) for worker in workers), broker.settled())
    assert homes[:3] == [None, "one", "one"], "the names decide between equals"
    assert [worker.directory.is_home(JULIET) for worker in workers] == [True, False, False]


async def test_a_worker_that_does_not_answer_is_not_waited_for(workers, broker, clock):
    one, *_ = workers
    broker.lose = lambda _subject: True
    waiting = asyncio.create_task(one.directory.arrive(JULIET))
    await broker.settled()
    clock.advance(ANSWER_SECONDS)
    one.directory._tick()
    assert await waiting is None


async def test_without_a_connection_nobody_becomes_a_home(workers, broker, clock):
    one, *_ = workers
    one.nats.down()
    waiting = asyncio.create_task(one.directory.arrive(JULIET))
    await broker.settled()
    clock.advance(ANSWER_SECONDS)
    one.directory._tick()
    with pytest.raises(BusDown):
        await waiting
    assert not one.directory.is_home(JULIET)


async def test_frames_go_to_the_home_in_order(workers, broker):
    one, two, _ = workers
    await arrive(two, broker)
    for number in range(3):
        one.directory.to_user(JULIET, (number,))
    one.directory.cast(JULIET, (3,))
    await broker.settled()
    one.directory.to_user(JULIET, (4,))
    assert one.sent == [("two", (number,)) for number in range(5)]


async def test_frames_for_a_user_who_has_just_come_here_stay_here(workers, broker):
    one, *_ = workers
    broker.lose = lambda _subject: True
    one.directory.to_user(JULIET, STANZA)
    await broker.settled()
    broker.lose = lambda _subject: False
    await arrive(one, broker)
    assert (one.taken, one.homeless) == ([("one", STANZA)], [])


async def test_without_a_home_frames_are_homeless_but_for_those_that_nobody_misses(workers, broker):
    one, *_ = workers
    one.directory.to_user(JULIET, (1,))
    one.directory.cast(JULIET, (2,))
    one.directory.to_user(JULIET, (3,))
    await broker.settled()
    one.directory.cast(JULIET, (4,))
    await broker.settled()
    assert one.homeless == [((1,), True), ((3,), True)]


async def test_what_is_cast_finds_a_home_that_is_not_known_yet(workers, broker):
    one, two, _ = workers
    await arrive(two, broker)
    one.directory.cast(JULIET, STANZA)
    await broker.settled()
    assert two.taken == [("one", STANZA)]


async def test_without_an_answer_it_is_not_certain_that_there_is_no_home(workers, broker, clock):
    one, *_ = workers
    broker.lose = lambda _subject: True
    one.directory.to_user(JULIET, STANZA)
    await broker.settled()
    clock.advance(ANSWER_SECONDS)
    one.directory._tick()
    assert one.homeless == [(STANZA, False)]


async def test_frames_that_wait_are_limited(workers, broker, monkeypatch):
    monkeypatch.setattr(directory_module, "MOST_WAITING", 2)
    one, *_ = workers
    for number in range(3):
        one.directory.to_user(JULIET, (number,))
    one.directory.cast(JULIET, (3,))
    assert one.homeless == [((2,), False)]


async def test_who_has_moved_is_looked_for_again(workers, broker):
    one, two, three = workers
    await arrive(two, broker)
    one.directory.to_user(JULIET, (1,))
    await broker.settled()
    two.directory.leave(JULIET)
    await arrive(three, broker)
    one.directory.moved(JULIET, "two")
    one.directory.to_user(JULIET, (2,))
    await broker.settled()
    one.directory.moved(JULIET, "two")  # late, and about what is not believed any more
    one.directory.to_user(JULIET, (3,))
    assert one.sent == [("two", (1,)), ("three", (2,)), ("three", (3,))]


async def test_nobody_is_at_a_worker_that_has_gone(workers, broker):
    one, two, three = workers
    await arrive(two, broker)
    one.directory.to_user(JULIET, (1,))
    await broker.settled()
    two.nats.down()
    one.directory.gone("two")
    await arrive(three, broker)
    one.directory.to_user(JULIET, (2,))
    await broker.settled()
    assert one.sent[-1] == ("three", (2,))


async def test_only_so_many_homes_of_others_are_remembered(workers, broker, monkeypatch):
    monkeypatch.setattr(directory_module, "MOST_LOCATIONS", 2)
    one, two, _ = workers
    for user in ("a", "b", "c"):
        await arrive(two, broker, ("capulet.example", user))
        one.directory.to_user(("capulet.example", user), STANZA)
        await broker.settled()
    assert len(one.directory._locations) == 2


async def divided(workers, broker, clock):
    """The first two workers are both homes, the first one the older."""
    one, two, _ = workers
    await arrive(one, broker)
    clock.advance(1.0)
    broker.lose = lambda subject: b".user." in subject
    waiting = asyncio.create_task(two.directory.arrive(JULIET))
    await broker.settled()
    clock.advance(ANSWER_SECONDS)
    two.directory._tick()
    assert await waiting is None
    broker.lose = lambda _subject: False
    return one, two


async def test_of_two_homes_the_younger_one_hands_over_when_it_hears_of_the_other(workers, broker, clock):
    one, two = await divided(workers, broker, clock)
    for key_and_time in one.directory.compare():
        two.directory.claimed(key_and_time[:2], "one", key_and_time[2])
    assert two.handed_over == [(*JULIET, "one")]
    assert one.handed_over == []


async def test_the_older_one_says_so_to_the_younger(workers, broker, clock):
    one, two = await divided(workers, broker, clock)
    ((host, user, since),) = two.directory.compare()
    one.directory.claimed((host, user), "two", since)
    await broker.settled()
    assert two.handed_over == [(*JULIET, "one")]
    assert one.handed_over == []


async def test_a_new_home_says_so_again_after_a_while(workers, broker, clock):
    one, two = await divided(workers, broker, clock)
    clock.advance(ANNOUNCE_SECONDS)
    two.directory._tick()
    await broker.settled()
    assert (one.handed_over, two.handed_over) == ([], [(*JULIET, "one")])
    assert one.directory.is_home(JULIET)


async def test_users_with_the_same_hash_are_not_taken_for_each_other(workers, broker, clock, monkeypatch):
    monkeypatch.setattr(Subjects, "user", lambda self, host, user: b"test.user.same")
    one, two, _ = workers
    await arrive(one, broker)
    waiting = asyncio.create_task(two.directory.arrive(("capulet.example", "nurse")))
    await broker.settled()
    clock.advance(ANSWER_SECONDS)
    two.directory._tick()
    assert await waiting is None
    one.directory.cast(("capulet.example", "tybalt"), STANZA)
    await broker.settled()
    assert two.taken == []


async def test_nonsense_on_a_user_s_subject_is_refused(workers, broker, caplog):
    one, two, _ = workers
    await arrive(one, broker)
    two.nats.publish(Subjects("test").user(*JULIET), b"nonsense")
    await broker.settled()
    assert any(record.getMessage() == "frames_refused" for record in caplog.records)

"""Who is there."""

from __future__ import annotations

import pytest

from monktalk.common.clock import ManualClock
from monktalk.xmpp.cluster import members as members_module
from monktalk.xmpp.cluster.bus import Peer
from monktalk.xmpp.cluster.members import BEAT_SECONDS, GONE_SECONDS, Members
from monktalk.xmpp.cluster.subjects import Subjects
from tests.support.fakenats import Broker


class Worker:
    """One worker, and what it has heard of the others."""

    def __init__(self, broker, clock, name, node, number=0):
        self.name = name
        self.nats = broker.client()
        self.news = []
        self.count = 0
        self.members = Members(
            self.nats,
            Subjects("test"),
            Peer(name, node, number, "1.0", clock.now()),
            lambda: self.count,
            clock,
            joined=lambda worker, came_back: self.news.append(("came back" if came_back else "joined", worker)),
            gone=lambda worker: self.news.append(("gone", worker)),
            stalled=lambda: self.news.append(("stalled", name)),
        )

    def heard(self):
        news, self.news = self.news, []
        return news


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def clock():
    return ManualClock(now=1_700_000_000.0, monotonic=1_000.0)


@pytest.fixture
async def workers(broker, clock, monkeypatch):
    """Two workers that know each other. They beat when the test lets time pass."""
    monkeypatch.setattr(members_module.Members, "_later", lambda self: None)
    found = [Worker(broker, clock, "one", "verona"), Worker(broker, clock, "two", "mantua", 1)]
    for worker in found:
        worker.members.start()
    await broker.settled()
    return found


async def passes(seconds, broker, clock, *beating):
    """Time passes, and these workers say that they are there."""
    left = seconds
    while left > 0:
        clock.advance(min(left, BEAT_SECONDS))
        left -= BEAT_SECONDS
        for worker in beating:
            worker.members._beat()
        await broker.settled()


async def test_a_worker_is_known_as_soon_as_it_starts(workers):
    one, two = workers
    assert one.heard() == [("joined", "two")]
    assert two.heard() == [("joined", "one")]
    assert [peer.name for peer in one.members.all()] == ["two", "one"], "by node"
    assert one.members.there("two")
    assert one.members.there("one")
    assert not one.members.there("three")


async def test_beats_say_how_a_worker_is(workers, broker, clock):
    one, two = workers
    two.count, two.members.draining = 7, True
    await passes(BEAT_SECONDS, broker, clock, two)
    (peer,) = [peer for peer in one.members.all() if peer.name == "two"]
    assert (peer.node, peer.number, peer.sessions, peer.draining) == ("mantua", 1, 7, True)


async def test_who_says_nothing_is_gone_and_may_come_back(workers, broker, clock):
    one, two = workers
    one.heard()
    await passes(GONE_SECONDS + 2 * BEAT_SECONDS, broker, clock, one)
    assert one.heard() == [("gone", "two")]
    assert not one.members.there("two")
    await passes(BEAT_SECONDS, broker, clock, two)
    assert one.heard() == [("came back", "two")]


async def test_who_says_good_bye_is_gone_at_once(workers, broker):
    one, two = workers
    one.heard()
    two.members.stop()
    await broker.settled()
    assert one.heard() == [("gone", "two")]


async def test_nobody_is_missed_while_there_is_no_connection(workers, broker, clock):
    one, _ = workers
    one.heard()
    one.nats.down()
    await passes(10 * GONE_SECONDS, broker, clock, one)
    one.nats.up()
    await passes(BEAT_SECONDS, broker, clock, one)
    assert one.heard() == []


async def test_a_worker_that_was_stopped_for_a_while_misses_nobody(workers, broker, clock):
    """What the others have said meanwhile is still to be read when its timers are late."""
    one, _ = workers
    one.heard()
    clock.advance(10 * GONE_SECONDS)
    one.members._beat()
    assert one.heard() == [("stalled", "one")], "it has to look what others have taken over"
    await passes(GONE_SECONDS + 2 * BEAT_SECONDS, broker, clock, one)
    assert one.heard() == [("gone", "two")]


async def test_nonsense_is_refused(workers, broker, caplog):
    one, two = workers
    one.heard()
    two.nats.publish(Subjects("test").beats, b"nonsense")
    await broker.settled()
    assert one.heard() == []
    assert any(record.getMessage() == "beat_refused" for record in caplog.records)

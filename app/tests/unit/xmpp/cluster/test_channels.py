"""Frames from worker to worker."""

from __future__ import annotations

import pytest

from monktalk.xmpp.cluster import frames
from monktalk.xmpp.cluster.channels import Channels
from monktalk.xmpp.cluster.subjects import Subjects
from tests.support.fakenats import Broker


class End:
    """One worker's channels, and what has come through them."""

    def __init__(self, broker, name):
        self.nats = broker.client()
        self.taken = []
        self.returned = []
        self.channels = Channels(
            self.nats,
            Subjects("test"),
            name,
            lambda worker, frame: self.taken.append((worker, frame)),
            lambda worker, batch, gone: self.returned.append((worker, batch, gone)),
        )


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
async def ends(broker):
    return End(broker, "one"), End(broker, "two")


async def test_frames_of_one_iteration_leave_together_and_in_order(broker, ends, monkeypatch):
    one, two = ends
    published = []
    monkeypatch.setattr(
        one.nats, "publish", lambda *args, send=one.nats.publish: published.append(args[1]) or send(*args)
    )
    sent = [(1, number, b"stanza") for number in range(50)]
    for frame in sent:
        one.channels.send("two", frame)
    await broker.settled()
    assert two.taken == [("one", frame) for frame in sent]
    assert len(published) == 1


async def test_a_batch_has_a_size(broker, ends, monkeypatch):
    monkeypatch.setattr(frames, "MAX_BATCH", 1000)
    one, two = ends
    sizes = []
    monkeypatch.setattr(
        one.nats, "publish", lambda *args, send=one.nats.publish: sizes.append(len(args[1])) or send(*args)
    )
    # Wherever in the frame the stanza is, as in one that is sent back.
    for number in range(20):
        one.channels.send("two", (2, (0, number, (b"x" * 300,))))
    await broker.settled()
    assert [frame[1][1] for _, frame in two.taken] == list(range(20))
    assert max(sizes) < 1300


async def test_a_frame_that_fails_keeps_no_other_back(broker, ends, caplog):
    one, two = ends

    def take(worker, frame):
        if frame[0] == 1:
            raise RuntimeError("a bug")
        two.taken.append((worker, frame))

    two.channels._take = take
    one.channels.send("two", (1,))
    one.channels.send("two", (2,))
    await broker.settled()
    assert two.taken == [("one", (2,))]
    assert any(record.getMessage() == "frame_failed" for record in caplog.records)


async def test_frames_for_a_worker_that_is_not_there_come_back_in_order(broker, ends):
    one, _ = ends
    one.channels.send("three", (1, b"a"))
    one.channels.send("three", (2, b"b"))
    await broker.settled()
    assert one.returned == [("three", [(1, b"a"), (2, b"b")], True)]


async def test_batches_of_a_worker_that_is_being_forgotten_come_back_too(broker, ends):
    one, _ = ends
    one.channels.send("three", (1,))
    one.channels.flush()
    one.channels.send("three", (2,))
    one.channels.flush()
    one.channels.forget("three")
    await broker.settled()
    assert [batch for _, batch, _ in one.returned] == [[(1,)], [(2,)]]


async def test_a_worker_that_has_gone_is_forgotten(broker, ends, monkeypatch):
    monkeypatch.setattr("monktalk.xmpp.cluster.channels.FORGET_SECONDS", 0)
    one, _ = ends
    one.channels.send("three", (1,))
    await broker.settled()
    one.channels.forget("three")
    await broker.settled()
    assert "three" not in one.channels._channels


async def test_without_a_connection_frames_come_back_as_not_sent(broker, ends):
    one, two = ends
    one.nats.down()
    one.channels.send("two", (1, b"a"))
    await broker.settled()
    assert one.returned == [("two", [(1, b"a")], False)]
    one.nats.up()
    one.channels.send("two", (2,))
    await broker.settled()
    assert two.taken == [("one", (2,))]


async def test_nonsense_is_refused(broker, ends, caplog):
    one, two = ends
    one.nats.publish(Subjects("test").worker("two"), b"nonsense")
    await broker.settled()
    assert two.taken == []
    assert any(record.getMessage() == "frames_refused" for record in caplog.records)

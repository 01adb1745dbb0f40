"""Workers on the real NATS: homes, frames, notices, and what becomes of them when somebody goes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from monktalk.xmpp.cluster.bus import BusDown
from monktalk.xmpp.cluster.natsbus import NatsBus, NatsOptions
from tests.support.nats import NatsServer

pytestmark = pytest.mark.integration
HOST = "capulet.example"
SECONDS = 15


@pytest.fixture
def nats(tmp_path):
    found = NatsServer(tmp_path).start()
    yield found
    found.stop()


class Hub:
    """Takes down what the bus says."""

    def __init__(self, bus: NatsBus) -> None:
        self.bus = bus
        self.frames: list[tuple[Any, ...]] = []
        self.homeless_frames: list[tuple[Any, ...]] = []
        self.worker_frames: list[tuple[Any, ...]] = []
        self.not_sent: list[tuple[Any, ...]] = []
        self.gone: list[str] = []
        self.states: list[bool] = []
        self.lost = 0

    def user_frame(self, worker, host, user, kind, fields) -> None:
        self.frames.append((worker, user, kind, fields))

    def homeless(self, host, user, kind, fields, *, certain) -> None:
        self.homeless_frames.append((user, kind, fields, certain))

    def astray(self, host, user, kind, fields) -> bool:
        return False

    def worker_frame(self, worker, kind, fields) -> None:
        self.worker_frames.append((worker, kind, fields))

    def unsent(self, worker, kind, fields) -> None:
        self.not_sent.append((worker, kind, fields))

    def worker_gone(self, worker) -> None:
        self.gone.append(worker)

    def stalled(self) -> None:
        pass

    def conflict(self, host, user, worker, *, older) -> None:
        if older:
            self.bus.insist(host, user)
        else:
            self.bus.leave(host, user)

    def connected(self, connected) -> None:
        self.states.append(connected)

    def news_lost(self) -> None:
        self.lost += 1

    def sessions(self) -> int:
        return 0


@contextlib.asynccontextmanager
async def workers(nats, count=2):
    """Workers that know each other."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for number in range(count):
            bus = NatsBus(NatsOptions([nats.address]), f"node{number}")
            hub = Hub(bus)
            await bus.start(hub)
            stack.push_async_callback(bus.close)
            found.append(hub)
        await until(lambda: all(len(hub.bus.peers()) == count for hub in found), "they know each other")
        yield found


async def until(condition, what: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


async def test_a_user_has_one_home(nats):
    async with workers(nats, 3) as hubs:
        homes = await asyncio.gather(*(hub.bus.arrive(HOST, "juliet") for hub in hubs))
        (home,) = [hub for hub, found in zip(hubs, homes, strict=True) if found is None]
        assert [found for found in homes if found is not None] == [home.bus.worker] * 2
        assert [hub.bus.is_home(HOST, "juliet") for hub in hubs] == [hub is home for hub in hubs]
        home.bus.leave(HOST, "juliet")
        for hub in hubs:
            if hub is not home:
                assert await hub.bus.arrive(HOST, "juliet") in (None, hubs[0].bus.worker, hubs[1].bus.worker)


async def test_frames_for_a_user_arrive_in_order_also_when_he_moves(nats):
    async with workers(nats, 3) as (sender, one, two):
        await one.bus.arrive(HOST, "juliet")
        for number in range(100):
            sender.bus.to_user(HOST, "juliet", 1, (number,))
        await until(lambda: len(one.frames) == 100, "they arrive")
        one.bus.leave(HOST, "juliet")
        await two.bus.arrive(HOST, "juliet")
        for number in range(100, 200):
            sender.bus.to_user(HOST, "juliet", 1, (number,))
        await until(lambda: len(two.frames) == 100, "they arrive at the new home")
        numbers = [fields[0] for _, _, _, fields in one.frames + two.frames]
        assert numbers == list(range(200))
        assert {user for _, user, _, _ in two.frames} == {"juliet"}


async def test_frames_for_nobody_are_homeless(nats):
    async with workers(nats) as (sender, other):
        sender.bus.to_user(HOST, "nobody", 1, (b"x",))
        sender.bus.cast(HOST, "nobody", 1, (b"y",))
        await until(lambda: bool(sender.homeless_frames), "it comes back")
        assert sender.homeless_frames == [("nobody", 1, (b"x",), True)]
        assert other.frames == []


async def test_frames_and_notices_for_workers(nats):
    async with workers(nats) as (one, two):
        heard = []
        two.bus.on_notice("invalidate", lambda topic, what: heard.append((topic, what)))
        one.bus.send(two.bus.worker, 20, 1, b"data", ("facts", True))
        one.bus.notify("invalidate", "roster", HOST, "juliet")
        one.bus.notify("unknown")
        await until(lambda: bool(heard and two.worker_frames), "both arrive")
        assert two.worker_frames == [(one.bus.worker, 20, (1, b"data", ("facts", True)))]
        assert heard == [("invalidate", ("roster", HOST, "juliet"))]


async def test_a_worker_that_ends_is_noticed_at_once_and_its_users_are_homeless(nats):
    async with workers(nats, 3) as (one, two, three):
        await three.bus.arrive(HOST, "juliet")
        one.bus.to_user(HOST, "juliet", 1, (0,))
        await until(lambda: bool(three.frames), "it arrives")
        await three.bus.close()
        one.bus.to_user(HOST, "juliet", 1, (1,))
        await until(lambda: bool(one.homeless_frames), "it comes back")
        assert one.homeless_frames == [("juliet", 1, (1,), True)]
        await until(lambda: bool(one.gone and two.gone), "both notice")
        assert one.gone == two.gone == [three.bus.worker]
        assert [peer.node for peer in one.bus.peers()] == ["node0", "node1"]


async def test_an_outage_is_told_and_what_was_not_sent_too(nats):
    async with workers(nats) as (one, two):
        await two.bus.arrive(HOST, "juliet")
        nats.stop()
        await until(lambda: one.states == [True, False] and two.states == [True, False], "both notice")
        one.bus.send(two.bus.worker, 20, 7)
        one.bus.to_user(HOST, "nurse", 1, (b"x",))
        await until(lambda: bool(one.not_sent and one.homeless_frames), "they come back")
        assert one.not_sent == [(two.bus.worker, 20, (7,))]
        assert one.homeless_frames == [("nurse", 1, (b"x",), False)]
        nats.start()
        await until(lambda: one.states[-1] and two.states[-1], "both are back")
        one.bus.to_user(HOST, "juliet", 1, (b"y",))
        await until(lambda: bool(two.frames), "users are found as before")
        assert await one.bus.arrive(HOST, "juliet") == two.bus.worker


async def test_who_logs_in_waits_for_the_bus_but_not_for_ever(nats, monkeypatch):
    monkeypatch.setattr("monktalk.xmpp.cluster.natsbus.CONNECT_SECONDS", 0.1)
    async with workers(nats) as (one, two):
        await one.bus.arrive(HOST, "juliet")
        nats.stop()
        await until(lambda: one.states == [True, False] and two.states == [True, False], "both notice")
        assert await one.bus.arrive(HOST, "juliet") is None, "he is here"
        with pytest.raises(BusDown):
            await two.bus.arrive(HOST, "juliet")
        assert not two.bus.is_home(HOST, "juliet")
        nats.start()
        await until(lambda: one.states[-1] and two.states[-1], "both are back")
        assert await two.bus.arrive(HOST, "juliet") == one.bus.worker


async def test_what_is_too_large_is_dropped_and_nothing_else(nats, caplog):
    async with workers(nats) as (one, two):
        await two.bus.arrive(HOST, "juliet")
        one.bus.to_user(HOST, "juliet", 1, (b"x" * (2 * 1024 * 1024),))
        one.bus.cast(HOST, "juliet", 1, (b"x" * (2 * 1024 * 1024),))
        await one.bus.arrive(HOST, "romeo")
        one.bus.to_user(HOST, "juliet", 1, (b"y",))
        await until(lambda: bool(two.frames), "the next one arrives")
        assert two.frames == [(one.bus.worker, "juliet", 1, (b"y",))]
        assert one.states == [True]
    assert any(record.getMessage() == "message_too_large" for record in caplog.records)


async def test_many_frames_that_wait_for_an_answer_are_not_too_large_together(nats):
    async with workers(nats) as (one, two):
        await two.bus.arrive(HOST, "juliet")
        for number in range(40):
            one.bus.to_user(HOST, "juliet", 1, (number, b"x" * 100_000))
        await until(lambda: len(two.frames) == 40, "all arrive")
        assert [fields[0] for _, _, _, fields in two.frames] == list(range(40))
        assert one.states == [True]

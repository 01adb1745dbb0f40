"""Calls between workers, over a bus that is a list of frames."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from monktalk.xmpp.cluster.bus import Peer
from monktalk.xmpp.core import calls
from monktalk.xmpp.core.auth.errors import AccountMissing, AuthUnavailable
from monktalk.xmpp.core.calls import ANSWER, CALL, CallFailed, Calls, NoAnswer
from monktalk.xmpp.storage.interfaces import StorageUnavailable

HOST, ROMEO = "capulet.example", "romeo"


class Worker:
    """One of two workers, and its bus: what it sends arrives at the other one in the next iteration of the loop."""

    def __init__(self, number: int) -> None:
        self.worker = f"w{number}"
        self.peer = Peer(self.worker, f"node{number}", 0, "1.0", time.time())
        self.others: dict[str, Worker] = {}
        self.homes: set[str] = set()
        self.vanished: list[Peer] = []
        self.frames: list[int] = []
        self.deaf = False
        self.tasks: list[Any] = []
        server: Any = SimpleNamespace(bus=self, spawn=self._spawn)
        self.calls = Calls(server)

    def _spawn(self, work: Any) -> Any:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    def send(self, worker: str, kind: int, *fields: Any) -> None:
        other = self.others[worker]
        if not other.deaf:
            other.frames.append(kind)
            asyncio.get_running_loop().call_soon(other.calls.frame, self.worker, kind, fields)

    def is_home(self, _host: str, user: str) -> bool:
        return user in self.homes

    def to_user(self, _host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        assert kind == CALL
        loop = asyncio.get_running_loop()
        for other in self.others.values():
            if user in other.homes:
                if not other.deaf:
                    loop.call_soon(other.calls.home_frame, fields)
                return
        loop.call_soon(lambda: self.calls.homeless(fields, certain=True))

    def peers(self) -> list[Peer]:
        return [self.peer, *(other.peer for other in self.others.values())]

    def missing(self) -> list[Peer]:
        return self.vanished


@pytest.fixture
def pair():
    one, other = Worker(0), Worker(1)
    one.others, other.others = {other.worker: other}, {one.worker: one}
    for worker in (one, other):

        async def who(*arguments: Any, worker: Worker = worker) -> Any:
            return [worker.worker, *arguments]

        worker.calls.offer("who", who)
    return one, other


async def test_a_call_to_a_worker(pair):
    one, other = pair
    answer = await one.calls.at(other.peer, "who", "x", 7, None, b"bytes", {"a": [1]})
    assert answer == ("w1", "x", 7, None, b"bytes", {"a": (1,)})
    assert await one.calls.at(one.peer, "who") == ["w0"]


async def test_a_call_to_the_home_of_a_user(pair):
    one, other = pair
    assert await one.calls.at_home(HOST, ROMEO, "who") == ["w0"], "whoever has no home is served here"
    other.homes.add(ROMEO)
    assert await one.calls.at_home(HOST, ROMEO, "who", 1) == ("w1", 1)
    assert await other.calls.at_home(HOST, ROMEO, "who") == ["w1"]


async def test_a_home_that_may_be_there_is_waited_for(pair):
    one, _ = pair
    one.to_user = lambda _host, _user, _kind, fields: one.calls.homeless(fields, certain=False)
    with pytest.raises(NoAnswer, match=f"{ROMEO}@{HOST} is connected to has not answered within 0.01 s"):
        await one.calls.at_home(HOST, ROMEO, "who", seconds=0.01)


async def test_a_home_that_is_being_moved_is_looked_for_again(pair, monkeypatch):
    monkeypatch.setattr(calls, "RETRY_SECONDS", 0.001)
    one, other = pair
    other.homes.add(ROMEO)
    really, unknown = one.to_user, [1, 2]

    def to_user(host: str, user: str, kind: int, fields: tuple[Any, ...]) -> None:
        if unknown:
            unknown.pop()
            one.calls.homeless(fields, certain=False)
        else:
            really(host, user, kind, fields)

    one.to_user = to_user
    assert await one.calls.at_home(HOST, ROMEO, "who") == ("w1",)
    unknown += [1]
    one.homes.add("juliet")
    one.is_home = lambda _host, _user: not unknown
    assert await one.calls.at_home(HOST, "juliet", "who") == ["w0"]


async def test_a_call_to_all(pair):
    one, other = pair
    replies = await one.calls.everywhere("who")
    assert [(peer.node, answer[0]) for peer, answer in replies.answers] == [("node0", "w0"), ("node1", "w1")]
    assert replies.failures == []
    gone = Peer("w2", "node2", 3, "1.0", 0.0)
    one.vanished, other.deaf = [gone], True
    replies = await one.calls.everywhere("who", seconds=0.01)
    assert [answer[0] for answer in replies.values()] == ["w0"]
    assert [reason for _, reason in replies.failures] == [
        "The node mongooseim@node1 has not answered within 0.01 s.",
        "Worker 3 of mongooseim@node2 does not answer any more.",
    ]


async def test_nobody_waits_for_a_worker_that_is_gone(pair):
    one, other = pair
    other.deaf = True
    asking = asyncio.create_task(one.calls.at(other.peer, "who", seconds=600))
    await asyncio.sleep(0)
    one.calls.worker_gone("w1")
    with pytest.raises(NoAnswer, match="has ended"):
        await asking


@pytest.mark.parametrize("error", [AccountMissing("romeo"), AuthUnavailable("away"), StorageUnavailable("away")])
async def test_exceptions_of_accounts_and_storage_arrive_as_they_were_raised(pair, error):
    one, other = pair

    async def fail() -> None:
        raise error

    other.calls.offer("fail", fail)
    with pytest.raises(type(error), match=str(error)):
        await one.calls.at(other.peer, "fail")


async def test_other_failures_are_sentences(pair, caplog):
    one, other = pair

    async def refuse() -> None:
        raise CallFailed("Not today.")

    async def fail() -> None:
        raise RuntimeError("a secret")

    other.calls.offer("refuse", refuse)
    other.calls.offer("fail", fail)
    with pytest.raises(CallFailed, match="Not today"):
        await one.calls.at(other.peer, "refuse")
    with pytest.raises(CallFailed, match="the log of that worker says why"):
        await one.calls.at(other.peer, "fail")
    assert "call_failed" in caplog.text
    with pytest.raises(CallFailed, match="older release"):
        await one.calls.at(other.peer, "juggle")


async def test_large_answers_come_in_parts(pair, monkeypatch):
    one, other = pair
    monkeypatch.setattr(calls, "PART", 1000)

    async def much() -> bytes:
        return b"x" * 10_000

    other.calls.offer("much", much)
    assert await one.calls.at(other.peer, "much") == b"x" * 10_000
    assert one.frames.count(ANSWER) == 11


async def test_sizes_have_bounds(pair, monkeypatch):
    one, other = pair
    with pytest.raises(CallFailed, match="bytes for it at most"):
        await one.calls.at(other.peer, "who", b"x" * calls.MAX_ARGUMENTS)
    monkeypatch.setattr(calls, "MAX_ANSWER", 100)
    with pytest.raises(CallFailed, match="more than 100 bytes"):
        await one.calls.at(other.peer, "who", b"x" * 100)


async def test_a_worker_does_so_much_for_others_at_once(pair, monkeypatch):
    one, other = pair
    monkeypatch.setattr(calls, "MAX_RUNNING", 1)
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    other.calls.offer("wait", wait)
    first = asyncio.create_task(one.calls.at(other.peer, "wait"))
    await asyncio.sleep(0)
    with pytest.raises(CallFailed, match="too much to do"):
        await one.calls.at(other.peer, "wait")
    gate.set()
    await first
    assert await one.calls.at(other.peer, "who") == ("w1",)


async def test_answers_that_nobody_waits_for_are_dropped(pair):
    one, _ = pair
    one.calls.frame("w1", ANSWER, (99, True, b"\xc0"))
    one.calls.homeless(("w0", 99, "who", b""), certain=True)

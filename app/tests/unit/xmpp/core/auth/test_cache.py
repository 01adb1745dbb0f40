from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.common.clock import ManualClock
from monktalk.xmpp.core.auth.cache import ANSWERS_PER_ACCOUNT, MISSING, AnswerCache, CacheClosed


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return AnswerCache(clock, 30.0, capacity=10)


class Source:
    """A fetch whose answers the test decides, one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def __call__(self):
        self.calls += 1
        self.asked.set()
        answer = self.answers.pop(0)
        await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_answers_are_remembered_for_their_life(cache, clock):
    source = Source(True, False, True)
    assert await cache.ask(b"alice", b"exists", source) is True
    assert await cache.ask(b"alice", b"exists", source) is True
    clock.advance(29.9)
    assert cache.peek(b"alice", b"exists") is True
    clock.advance(0.1)
    assert cache.peek(b"alice", b"exists") is MISSING
    assert await cache.ask(b"alice", b"exists", source) is False
    assert await cache.ask(b"alice", b"exists", source) is False, "negative answers too"
    assert source.calls == 2
    assert (cache.hits.value, cache.misses.value) == (2, 2)


async def test_none_is_an_answer(cache):
    source = Source(None)
    assert await cache.ask(b"nobody", b"keys", source) is None
    assert await cache.ask(b"nobody", b"keys", source) is None
    assert cache.peek(b"nobody", b"keys") is None


async def test_no_life_means_no_memory(clock):
    cache = AnswerCache(clock, 0)
    source = Source(True, True)
    await cache.ask(b"alice", b"exists", source)
    await cache.ask(b"alice", b"exists", source)
    assert source.calls == 2
    assert len(cache) == 0


@pytest.mark.parametrize("asker", ["", "192.0.2.1"])
async def test_questions_at_the_same_time_share_one_fetch(cache, asker):
    source = Source(True)
    source.gate.clear()
    waiting = [asyncio.create_task(cache.ask(b"alice", b"exists", source, asker=asker)) for _ in range(50)]
    other = Source(False)
    assert await cache.ask(b"bob", b"exists", other) is False
    await source.asked.wait()
    source.gate.set()
    assert await asyncio.gather(*waiting) == [True] * 50
    assert source.calls == 1


async def test_askers_that_may_be_told_something_else_have_a_fetch_each(cache):
    refused, answered = Source(PermissionError("not you")), Source(True)
    for source in (refused, answered):
        source.gate.clear()
    stranger = asyncio.create_task(cache.ask(b"alice", b"keys", refused, asker="192.0.2.1"))
    owner = asyncio.create_task(cache.ask(b"alice", b"keys", answered, asker="192.0.2.2"))
    await refused.asked.wait()
    await answered.asked.wait()
    for source in (refused, answered):
        source.gate.set()
    assert await owner is True
    with pytest.raises(PermissionError):
        await stranger
    assert await cache.ask(b"alice", b"keys", refused, asker="192.0.2.1") is True, "what is known is known"


async def test_an_error_reaches_all_who_wait_and_is_not_remembered(cache):
    source = Source(OSError("down"), True)
    source.gate.clear()
    waiting = [asyncio.create_task(cache.ask(b"alice", b"exists", source)) for _ in range(3)]
    await source.asked.wait()
    source.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(result) for result in results] == ["down"] * 3
    assert await cache.ask(b"alice", b"exists", source) is True


async def test_one_caller_going_away_does_not_disturb_the_others(cache):
    source = Source(True)
    source.gate.clear()
    first, second = (asyncio.create_task(cache.ask(b"alice", b"exists", source)) for _ in range(2))
    await source.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert await second is True


async def test_an_error_that_nobody_waits_for_is_not_reported(cache):
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    source = Source(OSError("down"))
    source.gate.clear()
    only = asyncio.create_task(cache.ask(b"alice", b"exists", source))
    await source.asked.wait()
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    (flight,) = (task for task in asyncio.all_tasks() if task is not asyncio.current_task())
    source.gate.set()
    await asyncio.wait([flight])
    del flight
    gc.collect()
    assert reports == []


async def test_what_was_asked_before_a_drop_is_not_remembered_after_it(cache):
    before = Source("old password")
    before.gate.clear()
    waiting = asyncio.create_task(cache.ask(b"alice", b"keys", before))
    await before.asked.wait()
    cache.drop(b"alice")
    after = Source("new password")
    assert await cache.ask(b"alice", b"keys", after) == "new password"
    before.gate.set()
    assert await waiting == "old password"
    assert cache.peek(b"alice", b"keys") == "new password"


async def test_a_drop_forgets_all_answers_of_one_account(cache):
    for question in (b"exists", b"keys"):
        await cache.ask(b"alice", question, Source(True))
        await cache.ask(b"bob", question, Source(True))
    cache.drop(b"alice")
    assert cache.peek(b"alice", b"exists") is cache.peek(b"alice", b"keys") is MISSING
    assert cache.peek(b"bob", b"exists") is True


async def test_renewal_ends_what_is_older_and_shortens_what_is_younger(cache, clock):
    cache.put(b"alice", b"old", True, positive=True)
    clock.advance(1)
    cache.put(b"alice", b"young", True, positive=True)
    clock.advance(1.5)
    assert cache.renew(b"alice", 2.0) == {b"old"}
    assert cache.peek(b"alice", b"old") is MISSING
    assert cache.peek(b"alice", b"young") is True
    clock.advance(0.5)
    assert cache.peek(b"alice", b"young") is MISSING
    assert cache.renew(b"nobody", 2.0) == set()


async def test_strangers_do_not_push_accounts_out(cache):
    cache.put(b"alice", b"exists", True, positive=True)
    for number in range(1_000):
        cache.put(b"stranger%d" % number, b"exists", False, positive=False)
    assert cache.peek(b"alice", b"exists") is True
    assert len(cache) == 11


async def test_the_account_that_has_rested_longest_goes_first(cache):
    for number in range(10):
        cache.put(b"user%d" % number, b"exists", True, positive=True)
    assert cache.peek(b"user0", b"exists") is True
    cache.put(b"user10", b"exists", True, positive=True)
    assert cache.peek(b"user0", b"exists") is True
    assert cache.peek(b"user1", b"exists") is MISSING


async def test_wrong_passwords_make_way_before_right_ones(cache):
    cache.put(b"alice", b"right", True, positive=True)
    for number in range(100):
        cache.put(b"alice", b"wrong%d" % number, False, positive=False)
    assert cache.peek(b"alice", b"right") is True
    assert cache.peek(b"alice", b"wrong99") is False
    assert cache.peek(b"alice", b"wrong0") is MISSING
    assert len(cache._known[b"alice"]) == ANSWERS_PER_ACCOUNT


async def test_a_name_becomes_an_account_with_its_first_positive_answer(cache):
    cache.put(b"alice", b"exists", False, positive=False)
    cache.put(b"alice", b"exists", True, positive=True)
    for number in range(20):
        cache.put(b"stranger%d" % number, b"exists", False, positive=False)
    assert cache.peek(b"alice", b"exists") is True


async def test_closing_ends_what_is_under_way(cache):
    source = Source(True)
    source.gate.clear()
    waiting = asyncio.create_task(cache.ask(b"alice", b"exists", source))
    await source.asked.wait()
    await cache.close()
    with pytest.raises(CacheClosed):
        await waiting
    assert len(cache) == 0


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_digests_tell_all_values_apart(one, other):
    cache = AnswerCache(ManualClock(), 30.0)
    assert (cache.digest(*one) == cache.digest(*other)) == (one == other)


def test_digests_tell_nothing_without_the_key():
    one, other = AnswerCache(ManualClock(), 30.0), AnswerCache(ManualClock(), 30.0)
    assert one.digest("alice", "secret") != other.digest("alice", "secret")

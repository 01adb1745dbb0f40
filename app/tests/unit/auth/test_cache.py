from __future__ import annotations

from monktalk.auth.cache import DigestCache
from monktalk.common.clock import ManualClock


def test_what_was_put_is_found_until_its_time_is_over():
    clock = ManualClock()
    cache: DigestCache[str] = DigestCache(10, 60, clock)
    key = cache.key("alice", "secret")
    assert cache.get(key) is None
    cache.put(key, "value")
    clock.advance(59)
    assert cache.get(key) == "value"
    clock.advance(1)
    assert cache.get(key) is None
    assert len(cache) == 0


def test_keys_are_told_apart_by_every_value_and_by_the_process():
    cache: DigestCache[str] = DigestCache(10, 60, ManualClock())
    assert cache.key("ab", "c") != cache.key("a", "bc")
    assert cache.key("a") != cache.key("a", "")
    assert cache.key("a") == cache.key("a")
    assert cache.key("a") != DigestCache[str](10, 60, ManualClock()).key("a")


def test_what_was_not_asked_for_longest_makes_room():
    cache: DigestCache[int] = DigestCache(2, 60, ManualClock())
    first, second, third = (cache.key(name) for name in ("1", "2", "3"))
    cache.put(first, 1)
    cache.put(second, 2)
    assert cache.get(first) == 1
    cache.put(third, 3)
    assert (cache.get(first), cache.get(second), cache.get(third)) == (1, None, 3)


def test_a_cache_without_room_remembers_nothing():
    cache: DigestCache[int] = DigestCache(0, 60, ManualClock())
    cache.put(cache.key("1"), 1)
    assert cache.get(cache.key("1")) is None

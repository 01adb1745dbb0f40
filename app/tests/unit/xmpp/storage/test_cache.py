from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.storage.cache import ReadCache
from monktalk.xmpp.storage.interfaces import UNKNOWN


class Database:
    """Reads that end when the test says so."""

    def __init__(self) -> None:
        self.reads: list[asyncio.Future[str | None]] = []

    def start(self) -> asyncio.Future[str | None]:
        self.reads.append(asyncio.get_running_loop().create_future())
        return self.reads[-1]


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def cache() -> ReadCache[str, str]:
    return ReadCache(3, 100, len)


async def fill(cache: ReadCache[str, str], **values: str | None) -> None:
    for key, value in values.items():
        cache.written(key, cache.begin_write(key), value)


async def reading(cache: ReadCache[str, str], key: str, database: Database) -> asyncio.Task[str | None]:
    """A get that has got as far as the database."""
    task = asyncio.ensure_future(cache.get(key, database.start))
    await asyncio.sleep(0)
    return task


async def test_a_value_is_read_once(cache: ReadCache[str, str], database: Database) -> None:
    gets = [await reading(cache, "k", database) for _ in range(5)]
    assert len(database.reads) == 1
    assert cache.peek("k") is UNKNOWN
    database.reads[0].set_result("value")
    assert await asyncio.gather(*gets) == ["value"] * 5
    assert cache.peek("k") == "value"
    assert await cache.get("k", database.start) == "value"
    assert len(database.reads) == 1


async def test_absence_is_cached(cache: ReadCache[str, str], database: Database) -> None:
    get = await reading(cache, "k", database)
    database.reads[0].set_result(None)
    assert await get is None
    assert cache.peek("k") is None
    assert await cache.get("k", database.start) is None
    assert len(database.reads) == 1


async def test_a_failed_read_is_not_cached(cache: ReadCache[str, str], database: Database) -> None:
    gets = [await reading(cache, "k", database) for _ in range(2)]
    database.reads[0].set_exception(LookupError("away"))
    for get in gets:
        with pytest.raises(LookupError):
            await get
    assert cache.peek("k") is UNKNOWN
    again = await reading(cache, "k", database)
    database.reads[1].set_result("value")
    assert await again == "value"


async def test_giving_up_does_not_end_the_read_of_others(cache: ReadCache[str, str], database: Database) -> None:
    first = await reading(cache, "k", database)
    second = await reading(cache, "k", database)
    first.cancel()
    await asyncio.sleep(0)
    database.reads[0].set_result("value")
    assert await second == "value"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_read_that_everybody_gave_up_still_fills_the_cache(
    cache: ReadCache[str, str], database: Database
) -> None:
    get = await reading(cache, "k", database)
    get.cancel()
    with pytest.raises(asyncio.CancelledError):
        await get
    database.reads[0].set_result("value")
    await asyncio.sleep(0)
    assert cache.peek("k") == "value"


async def test_a_read_that_was_invalidated_under_way_is_not_cached(
    cache: ReadCache[str, str], database: Database
) -> None:
    early = await reading(cache, "k", database)
    cache.invalidate("k")
    late = await reading(cache, "k", database)
    assert len(database.reads) == 2  # who asks after the news must not get what was read before
    database.reads[1].set_result("new")
    assert await late == "new"
    database.reads[0].set_result("old")
    assert await early == "old"
    assert cache.peek("k") == "new"


async def test_a_stale_read_that_ends_first_does_not_hide_the_fresh_one(
    cache: ReadCache[str, str], database: Database
) -> None:
    early = await reading(cache, "k", database)
    cache.invalidate("k")
    late = await reading(cache, "k", database)
    database.reads[0].set_result("old")
    assert await early == "old"
    assert cache.peek("k") is UNKNOWN
    third = await reading(cache, "k", database)
    assert len(database.reads) == 2
    database.reads[1].set_result("new")
    assert [await late, await third] == ["new", "new"]


async def test_a_read_that_was_overtaken_by_a_write_is_not_cached(
    cache: ReadCache[str, str], database: Database
) -> None:
    get = await reading(cache, "k", database)
    cache.written("k", cache.begin_write("k"), "new")
    database.reads[0].set_result("old")
    assert await get == "old"
    assert cache.peek("k") == "new"


async def test_a_write_that_was_invalidated_under_way_is_not_cached(cache: ReadCache[str, str]) -> None:
    """Another process may have written after this one; the news came before this one's answer."""
    activity = cache.begin_write("k")
    cache.invalidate("k")
    cache.written("k", activity, "mine")
    assert cache.peek("k") is UNKNOWN
    cache.written("k", cache.begin_write("k"), "later")
    assert cache.peek("k") == "later"


async def test_a_write_that_failed_leaves_nothing_behind(cache: ReadCache[str, str]) -> None:
    await fill(cache, k="old")
    cache.not_written("k", cache.begin_write("k"))
    assert cache.peek("k") is UNKNOWN


async def test_while_a_write_is_under_way_the_old_value_is_known(cache: ReadCache[str, str]) -> None:
    await fill(cache, k="old")
    activity = cache.begin_write("k")
    assert cache.peek("k") == "old"
    cache.written("k", activity, None)
    assert cache.peek("k") is None


async def test_the_least_recently_used_value_goes_first(cache: ReadCache[str, str]) -> None:
    await fill(cache, a="1", b="2", c="3")
    assert cache.peek("a") == "1"
    await fill(cache, d="4")
    assert [cache.peek(key) for key in "abcd"] == ["1", UNKNOWN, "3", "4"]


async def test_absent_keys_are_bounded_and_push_out_no_values(cache: ReadCache[str, str]) -> None:
    await fill(cache, a="1", b="2", c="3")
    for number in range(100):
        await fill(cache, **{f"absent{number}": None})
    assert [cache.peek(key) for key in "abc"] == ["1", "2", "3"]
    assert len(cache) == 6
    assert cache.peek("absent99") is None
    assert cache.peek("absent1") is UNKNOWN


async def test_the_weight_is_bounded(cache: ReadCache[str, str]) -> None:
    await fill(cache, a="x" * 60, b="x" * 60)
    assert cache.peek("a") is UNKNOWN
    assert cache.peek("b") == "x" * 60
    await fill(cache, c="x" * 101)
    assert cache.peek("c") is UNKNOWN
    assert len(cache) == 0
    await fill(cache, d="x" * 60, e="x" * 40)
    assert len(cache) == 2
    await fill(cache, d="x" * 61)
    assert cache.peek("e") is UNKNOWN


async def test_weights_are_given_back(cache: ReadCache[str, str]) -> None:
    for _ in range(10):
        await fill(cache, a="x" * 50, b="x" * 50)
        cache.invalidate("a")
        cache.clear()
    await fill(cache, a="x" * 50, b="x" * 50)
    assert len(cache) == 2


async def test_clearing_concerns_what_is_under_way(cache: ReadCache[str, str], database: Database) -> None:
    await fill(cache, a="1", absent=None)
    get = await reading(cache, "k", database)
    activity = cache.begin_write("w")
    cache.clear()
    database.reads[0].set_result("old")
    await get
    cache.written("w", activity, "old")
    assert [cache.peek(key) for key in ("a", "absent", "k", "w")] == [UNKNOWN] * 4
    assert len(cache) == 0


async def test_some_keys_can_be_invalidated(cache: ReadCache[str, str]) -> None:
    await fill(cache, a1="1", a2=None, b1="3")
    cache.invalidate_where(lambda key: key.startswith("a"))
    assert [cache.peek(key) for key in ("a1", "a2", "b1")] == [UNKNOWN, UNKNOWN, "3"]


async def test_without_trust_every_get_reads(cache: ReadCache[str, str], database: Database) -> None:
    await fill(cache, k="old", absent=None)
    cache.trust(False)
    assert cache.peek("k") is UNKNOWN
    assert cache.peek("absent") is UNKNOWN
    gets = [await reading(cache, "k", database) for _ in range(2)]
    for place, read in enumerate(database.reads):
        read.set_result(str(place))
    # The second one may be newer than the first, so they share nothing.
    assert await asyncio.gather(*gets) == ["0", "1"]
    await fill(cache, k="written")
    assert cache.peek("k") is UNKNOWN
    assert len(cache) == 0


async def test_trust_begins_with_nothing(cache: ReadCache[str, str], database: Database) -> None:
    cache.trust(False)
    before = await reading(cache, "k", database)
    writing = cache.begin_write("w")
    cache.trust(True)
    cache.written("w", writing, "w")
    shared = [await reading(cache, "k", database) for _ in range(2)]
    assert len(database.reads) == 2
    database.reads[0].set_result("old")
    database.reads[1].set_result("new")
    assert [await before, *(await asyncio.gather(*shared))] == ["old", "new", "new"]
    assert cache.peek("k") == "new"
    assert cache.peek("w") is UNKNOWN


async def test_a_caller_without_trust_that_gives_up_does_not_harm_its_read(
    cache: ReadCache[str, str], database: Database
) -> None:
    cache.trust(False)
    get = await reading(cache, "k", database)
    get.cancel()
    await asyncio.gather(get, return_exceptions=True)
    assert not database.reads[0].cancelled()
    database.reads[0].set_result("value")

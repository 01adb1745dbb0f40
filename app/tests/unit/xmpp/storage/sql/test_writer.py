"""How writes are grouped, answered and refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, text

from monktalk.db.engine import create_engine
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from monktalk.xmpp.storage.sql.link import Busy, Health, Link, Uncertain, Unreachable
from monktalk.xmpp.storage.sql.writer import MAX_GROUP, Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Recorder:
    """An applier that inserts numbers, notes its calls, and can be held up."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.settled: list[bool] = []
        self.go = threading.Event()
        self.go.set()

    def begin(self) -> None:
        pass

    def apply(self, connection: Connection, requests: Sequence[Any]) -> list[Any]:
        assert self.go.wait(10)
        self.groups.append(list(requests))
        for request in requests:
            if request == "bad":
                raise LookupError(request)
            connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": request})
        return [f"done {request}" for request in requests]

    def settle(self, *, committed: bool) -> None:
        self.settled.append(committed)

    def alone(self, request: object) -> bool:
        return False

    def repeat(self, request: Any) -> bool:
        return str(request).startswith("safe")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def writer(tmp_path: Path, recorder: Recorder) -> AsyncIterator[Writer]:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    health = Health()
    link = Link(engine, health, 10.0, writes=True)
    link.run(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER PRIMARY KEY)")))
    # The connection belongs to the thread of the writer from now on.
    link.close()
    writer = Writer(link, health, [recorder], limit=1000, limit_bytes=5000, gather=0.001)
    yield writer
    recorder.go.set()
    assert await writer.close(10)
    engine.dispose()


async def test_what_gathers_during_a_commit_is_the_next_group(writer: Writer, recorder: Recorder) -> None:
    recorder.go.clear()
    first = writer.submit(recorder, 0)
    rest = [writer.submit(recorder, number) for number in range(1, 600)]
    recorder.go.set()
    assert await first == "done 0"
    assert await asyncio.gather(*rest) == [f"done {number}" for number in range(1, 600)]
    assert [number for group in recorder.groups for number in group] == list(range(600))
    assert max(map(len, recorder.groups)) == MAX_GROUP
    assert len(recorder.groups) <= 4


async def test_a_bad_write_fails_alone(writer: Writer, recorder: Recorder) -> None:
    recorder.go.clear()
    writes = [writer.submit(recorder, request) for request in (1, "bad", 2, 2, 3)]
    recorder.go.set()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(results[1], LookupError)
    # The same number twice: the second one violates the primary key.
    assert isinstance(results[3], StorageUnavailable)
    assert [results[place] for place in (0, 2, 4)] == ["done 1", "done 2", "done 3"]
    assert recorder.settled[-1] is True
    assert False in recorder.settled


async def test_the_number_of_waiting_writes_is_bounded(writer: Writer, recorder: Recorder) -> None:
    recorder.go.clear()
    writes = [writer.submit(recorder, number) for number in range(1001)]
    assert [write.done() for write in writes] == [False] * 1000 + [True]
    recorder.go.set()
    with pytest.raises(StorageUnavailable, match="too many writes"):
        await writes[-1]
    await asyncio.gather(*writes[:-1])
    assert writer.queued == 0


async def test_the_size_of_waiting_writes_is_bounded(writer: Writer, recorder: Recorder) -> None:
    recorder.go.clear()
    writes = [writer.submit(recorder, number, 2000) for number in range(3)]
    with pytest.raises(StorageUnavailable, match="too many writes"):
        await writes[2]
    recorder.go.set()
    await asyncio.gather(*writes[:2])
    assert await writer.submit(recorder, 9, 5000) == "done 9"


async def test_a_write_that_was_given_up_is_carried_out(writer: Writer, recorder: Recorder) -> None:
    recorder.go.clear()
    one, two = writer.submit(recorder, 1), writer.submit(recorder, 2)
    one.cancel()
    recorder.go.set()
    assert await two == "done 2"
    assert recorder.groups == [[1, 2]]
    assert writer.queued == 0


async def test_closing_writes_what_is_queued(writer: Writer, recorder: Recorder) -> None:
    recorder.go.clear()
    writes = [writer.submit(recorder, number) for number in range(300)]
    closing = asyncio.ensure_future(writer.close(10))
    await asyncio.sleep(0)
    with pytest.raises(StorageUnavailable, match="closed"):
        await writer.submit(recorder, 1000)
    recorder.go.set()
    assert await closing is True
    assert all(write.result().startswith("done") for write in writes)


async def test_closing_is_bounded(writer: Writer, recorder: Recorder) -> None:
    recorder.go.clear()
    writing = writer.submit(recorder, 1)
    assert await writer.close(0.05) is False
    recorder.go.set()
    assert await writing == "done 1"


class BreakingLink(Link):
    """A connection that breaks once it has committed, with the errors that a test gives it."""

    def __init__(self, *errors: StorageUnavailable) -> None:
        self.errors = list(errors)

    def run(self, work: Callable[[Any], Any]) -> Any:
        outcome = work(None)
        if self.errors:
            raise self.errors.pop(0)
        return outcome

    def close(self) -> None:
        pass


class Plain(Recorder):
    """Touches no database."""

    def apply(self, connection: Connection, requests: Sequence[Any]) -> list[Any]:
        self.groups.append(list(requests))
        return [f"done {request}" for request in requests]


async def results_with(patience: float, *errors: StorageUnavailable) -> tuple[list[Any], list[list[Any]]]:
    """What becomes of two writes, the second of which is safe to be repeated, and the groups that were tried."""
    plain = Plain()
    writer = Writer(BreakingLink(*errors), Health(), [plain], limit=9, limit_bytes=9, gather=0.05, patience=patience)
    writes = [writer.submit(plain, request) for request in ("once", "safe")]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert writer.queued == 0
    assert await writer.close(10)
    return results, plain.groups


@pytest.mark.parametrize("kind", [Unreachable, Busy])
async def test_what_certainly_has_not_happened_is_tried_again(kind: type[StorageUnavailable]) -> None:
    results, groups = await results_with(30.0, kind(""), kind(""))
    assert results == ["done once", "done safe"]
    assert groups == [["once", "safe"]] * 3


async def test_what_may_have_happened_is_tried_again_where_that_does_no_harm() -> None:
    results, groups = await results_with(30.0, Uncertain("perhaps"), Unreachable(""))
    assert [type(results[0]), str(results[0]), results[1]] == [StorageUnavailable, "perhaps", "done safe"]
    assert groups == [["once", "safe"], ["safe"], ["safe"]]


@pytest.mark.parametrize("error", [Unreachable("no"), Busy("no"), Uncertain("no"), StorageUnavailable("no")])
async def test_without_patience_nothing_is_tried_again(error: StorageUnavailable) -> None:
    results, groups = await results_with(0.0, error)
    assert [type(result) for result in results] == [StorageUnavailable] * 2
    assert groups == [["once", "safe"]]


async def test_what_the_database_refuses_is_not_tried_again() -> None:
    results, groups = await results_with(30.0, StorageUnavailable("no such table"))
    assert [str(result) for result in results] == ["no such table"] * 2
    assert len(groups) == 1

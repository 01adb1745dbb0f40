"""Sessions that are written down, and adopted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from monktalk.xmpp.storage.interfaces import Adopted, SessionMessage
from tests.integration.storage.sessions import HOST, contents, delivered, opened

if TYPE_CHECKING:
    from monktalk.common.clock import ManualClock
    from monktalk.xmpp.storage.interfaces import Storage


async def test_an_adopted_session_is_what_it_was(storage: Storage, clock: ManualClock) -> None:
    state = bytes(range(256))
    session = await storage.sessions.open("tok", HOST, "böb", "☃ 'phone'", "worker-1", False, state)
    clock.advance(5)
    assert await storage.sessions.handled(session, 12) is True
    assert await storage.sessions.acknowledged(session, 3) is True
    written = clock.now()
    for out_seq in (2, 3, 4, 7):
        await storage.offline.deliver(HOST, "böb", b"m%d" % out_seq, float(out_seq), [(session, out_seq)], "a", out_seq)
    clock.advance(5)
    (adopted,) = await storage.sessions.adopt(HOST, "böb", "worker-2")
    assert adopted == Adopted(
        id=adopted.id,
        token="tok",
        host=HOST,
        user="böb",
        resource="☃ 'phone'",
        handled=12,
        acknowledged=3,
        resumable=False,
        state=state,
        stamp=written,
        messages=[SessionMessage(4, 4.0, b"m4"), SessionMessage(7, 7.0, b"m7")],
    )
    assert adopted.id != session


async def test_the_former_owner_cannot_write_any_more(storage: Storage) -> None:
    session = await opened(storage)
    (adopted,) = await storage.sessions.adopt(HOST, "bob", "worker-2")
    for id_, live in ((session, False), (adopted.id, True)):
        assert await storage.sessions.update(id_, b"") is live
        assert await storage.sessions.handled(id_, 1) is live
        assert await storage.sessions.acknowledged(id_, 1) is live
        assert await storage.offline.renumber(id_, 1) is live
        assert await storage.offline.reassign(HOST, "bob", id_, []) is live
        assert (await storage.offline.assign(HOST, "bob", [1], id_, 1) is not None) is live
        assert await storage.sessions.close(id_) is live


async def test_counters_only_grow(storage: Storage) -> None:
    session = await opened(storage)
    calls = [storage.sessions.handled(session, count) for count in (3, 9, 5)]
    calls += [storage.sessions.acknowledged(session, count) for count in (2, 1)]
    assert await asyncio.gather(*calls) == [True] * 5
    await storage.sessions.handled(session, 4)
    (adopted,) = await storage.sessions.adopt(HOST, "bob", "worker-2")
    assert (adopted.handled, adopted.acknowledged) == (9, 2)


async def test_the_last_state_counts(storage: Storage) -> None:
    session = await opened(storage)
    await asyncio.gather(
        storage.sessions.update(session, b"1", resumable=False),
        storage.sessions.handled(session, 1),
        storage.sessions.update(session, b"2"),
    )
    (adopted,) = await storage.sessions.adopt(HOST, "bob", "worker-2")
    assert (adopted.state, adopted.resumable, adopted.handled) == (b"2", False, 1)


async def test_changes_of_many_sessions_at_once(storage: Storage) -> None:
    sessions = [await opened(storage, f"t{number}") for number in range(20)]
    calls = [storage.sessions.handled(session, place) for place, session in enumerate(sessions)]
    calls.append(storage.sessions.handled(999_999, 1))
    assert await asyncio.gather(*calls) == [True] * 20 + [False]
    adopted = await storage.sessions.adopt(HOST, "bob", "worker-2")
    assert {session.token: session.handled for session in adopted} == {f"t{number}": number for number in range(20)}


async def test_a_closed_session_is_gone(storage: Storage) -> None:
    session = await opened(storage)
    changed, closed, again = await asyncio.gather(
        storage.sessions.update(session, b""), storage.sessions.close(session), storage.sessions.close(session)
    )
    assert (changed, closed, again) == (True, True, False)
    assert await storage.sessions.adopt(HOST, "bob", "worker-2") == []
    assert await storage.sessions.owners() == {}


async def test_a_token_names_one_session(storage: Storage) -> None:
    session = await opened(storage)
    # The answer to the first call was lost, and it is repeated.
    assert await opened(storage) == session
    with pytest.raises(ValueError, match="another owner"):
        await opened(storage, owner="worker-2")
    assert await storage.sessions.owners() == {"worker-1": 1}


async def test_owners_are_counted(storage: Storage) -> None:
    assert await storage.sessions.owners() == {}
    for number, owner in enumerate(("worker-1", "worker-2", "worker-1")):
        await opened(storage, f"t{number}", owner=owner)
    assert await storage.sessions.owners() == {"worker-1": 2, "worker-2": 1}


async def test_only_sessions_of_others_and_of_this_user_are_adopted(storage: Storage) -> None:
    await opened(storage, "mine", owner="worker-2")
    await opened(storage, "other's")
    await opened(storage, "carol's", user="carol")
    await storage.sessions.open("elsewhere", "example.net", "bob", "phone", "worker-1", True, b"")
    adopted = await storage.sessions.adopt(HOST, "bob", "worker-2")
    assert [session.token for session in adopted] == ["other's"]
    assert await storage.sessions.owners() == {"worker-1": 2, "worker-2": 2}
    assert await storage.sessions.adopt(HOST, "bob", "worker-2") == []


async def test_a_session_is_adopted_again_and_again(storage: Storage) -> None:
    session = await opened(storage)
    await delivered(storage, "hello", (session, 1), number=1)
    ids = {session}
    for number in range(2, 6):
        (adopted,) = await storage.sessions.adopt(HOST, "bob", f"worker-{number}")
        assert contents(adopted) == [(1, "hello")]
        ids.add(adopted.id)
    assert len(ids) == 5
    await storage.sessions.close(adopted.id)
    assert await opened(storage) not in ids


async def test_the_sessions_of_a_dead_owner_are_adopted_in_portions(storage: Storage) -> None:
    for number in range(5):
        await opened(storage, f"t{number}", user=f"user{number}", owner="dead")
    await opened(storage, "live", owner="worker-1")
    portions = []
    while adopted := await storage.sessions.adopt_from("dead", "worker-2", 2):
        portions.append([session.token for session in adopted])
    assert [len(portion) for portion in portions] == [2, 2, 1]
    assert sorted(token for portion in portions for token in portion) == [f"t{number}" for number in range(5)]
    assert await storage.sessions.owners() == {"worker-1": 1, "worker-2": 5}


async def test_names_that_cannot_be_stored_are_refused(storage: Storage) -> None:
    for names in (("\0", HOST, "bob", "r", "o"), ("t", HOST, "\0", "r", "o"), ("t", HOST, "bob", "\0", "o")):
        with pytest.raises(ValueError, match="NUL"):
            await storage.sessions.open(*names, True, b"")
    with pytest.raises(ValueError, match="NUL"):
        await storage.sessions.adopt(HOST, "\0", "o")
    with pytest.raises(ValueError, match="NUL"):
        await storage.sessions.adopt_from("\0", "o", 1)

"""Messages that are given to sessions: stored before they are sent, known when they are repeated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from monktalk.xmpp.storage.interfaces import Delivered
from tests.integration.storage.sessions import HOST, delivered, left, opened, waiting

if TYPE_CHECKING:
    from monktalk.common.clock import ManualClock
    from monktalk.xmpp.storage.interfaces import Storage

GONE = 999_999


async def append(storage: Storage, body: str, number: int | None = None, limit: int = 100) -> bool:
    origin = "alice's" if number is not None else None
    return await storage.offline.append(HOST, "bob", body.encode(), 1.0, None, limit, origin, number)


async def test_a_message_for_a_session_does_not_wait_in_the_mailbox(storage: Storage) -> None:
    session = await opened(storage)
    assert await delivered(storage, "hello", (session, 7), number=1) is Delivered.STORED
    assert await waiting(storage) == []
    assert await storage.offline.count(HOST, "bob") == 0
    assert await storage.offline.remove(HOST, "bob", 1_000_000) == 0
    assert await storage.offline.delete_older(HOST, 2.0) == 0
    assert await left(storage) == {"token": [(7, "hello")]}


async def test_a_message_for_several_sessions(storage: Storage) -> None:
    phone, laptop = await opened(storage, "phone"), await opened(storage, "laptop")
    assert await delivered(storage, "hello", (phone, 3), (laptop, 9), number=1) is Delivered.STORED
    assert await left(storage) == {"phone": [(3, "hello")], "laptop": [(9, "hello")]}


async def test_any_bytes_and_any_text(storage: Storage) -> None:
    session = await opened(storage)
    stanza, origin = bytes(range(256)), "\\ \" ' {} , NULL é ☃ %s"
    result = await storage.offline.deliver(HOST, 'b"o\\b', stanza, 1.25, [(session, 1)], origin, 2**40, 77.5)
    assert result is Delivered.STORED
    assert await storage.offline.append(HOST, 'b"o\\b', stanza, 1.25, None, 9, origin, 2**40) is True
    (adopted,) = await storage.sessions.adopt(HOST, "bob", "next")
    assert [(message.stamp, message.stanza) for message in adopted.messages] == [(1.25, stanza)]
    assert await storage.offline.append(HOST, 'b"o\\b', stanza, 1.25, None, 9, origin, 5) is True
    (message,) = await storage.offline.load(HOST, 'b"o\\b', 10)
    assert message.stanza == stanza


async def test_a_repeated_message_is_a_duplicate(storage: Storage) -> None:
    session = await opened(storage)
    await delivered(storage, "hello", (session, 1), number=5)
    assert await delivered(storage, "hello", (session, 2), number=5) is Delivered.DUPLICATE
    assert await delivered(storage, "hello", (session, 2), number=5, origin="carol's") is Delivered.STORED
    assert await delivered(storage, "other", (session, 3), number=6) is Delivered.STORED
    assert await left(storage) == {"token": [(1, "hello"), (2, "hello"), (3, "other")]}


async def test_a_repeated_message_is_known_by_everybody(storage: Storage) -> None:
    """Whoever was to have it first: the mailbox, a session, another session."""
    one, two = await opened(storage, "one"), await opened(storage, "two")
    assert await append(storage, "stored", number=1) is True
    assert await delivered(storage, "stored", (one, 1), number=1) is Delivered.DUPLICATE
    await delivered(storage, "given", (one, 1), number=2)
    assert await append(storage, "given", number=2) is True
    assert await delivered(storage, "given", (two, 1), number=2) is Delivered.DUPLICATE
    assert await waiting(storage) == ["stored"]
    assert await left(storage) == {"one": [(1, "given")], "two": []}


async def test_a_duplicate_for_more_sessions_than_before_is_given_to_none(storage: Storage) -> None:
    one, two, three = [await opened(storage, token) for token in ("one", "two", "three")]
    await append(storage, "1", number=1)
    await delivered(storage, "2", (one, 1), number=2)
    assert await delivered(storage, "1", (one, 2), (two, 1), (three, 1), number=1) is Delivered.DUPLICATE
    assert await delivered(storage, "2", (two, 1), (one, 2), (three, 1), number=2) is Delivered.DUPLICATE
    assert await left(storage) == {"one": [(1, "2")], "two": [], "three": []}


async def test_a_repeated_attempt_of_the_same_delivery_is_no_duplicate(storage: Storage) -> None:
    """The numbers of a stream are given out once: the same ones come from an attempt whose commit was interrupted."""
    one, two = await opened(storage, "one"), await opened(storage, "two")
    for _ in range(2):
        assert await delivered(storage, "hello", (one, 1), (two, 4), number=1) is Delivered.STORED
    assert await left(storage) == {"one": [(1, "hello")], "two": [(4, "hello")]}


async def test_a_message_twice_at_the_same_moment(storage: Storage) -> None:
    one, two = await opened(storage, "one"), await opened(storage, "two")
    results = await asyncio.gather(
        delivered(storage, "a", (one, 1), number=1),
        delivered(storage, "a", (one, 2), (two, 1), number=1),
        append(storage, "a", number=1),
        append(storage, "b", number=2),
        append(storage, "b", number=2),
        delivered(storage, "b", (two, 1), number=2),
        append(storage, "c"),
        append(storage, "c"),
    )
    stored, duplicate = Delivered.STORED, Delivered.DUPLICATE
    assert list(results) == [stored, duplicate, True, True, True, duplicate, True, True]
    assert await waiting(storage) == ["b", "c", "c"]
    assert await left(storage) == {"one": [(1, "a")], "two": []}


async def test_a_session_that_is_not_there_any_more_gets_nothing_and_nor_do_the_others(storage: Storage) -> None:
    session = await opened(storage)
    assert await delivered(storage, "hello", (session, 1), (GONE, 1), number=1) is Delivered.SUPERSEDED
    assert await delivered(storage, "hello", (session, 1), number=1) is Delivered.STORED
    await storage.sessions.close(session)
    assert await delivered(storage, "more", (session, 2), number=2) is Delivered.SUPERSEDED
    assert await append(storage, "more", number=2) is True
    assert await waiting(storage) == ["more"]


async def test_a_bad_one_does_not_harm_the_others_of_its_group(storage: Storage) -> None:
    session = await opened(storage)
    results = await asyncio.gather(
        delivered(storage, "1", (session, 1), number=1),
        delivered(storage, "2", (GONE, 1), number=2),
        delivered(storage, "3", (session, 2), number=3),
        append(storage, "2", number=2),
        append(storage, "none", limit=0),
    )
    assert list(results) == [Delivered.STORED, Delivered.SUPERSEDED, Delivered.STORED, True, False]
    assert await waiting(storage) == ["2"]
    assert await left(storage) == {"token": [(1, "1"), (2, "3")]}


async def test_a_message_needs_a_session(storage: Storage) -> None:
    with pytest.raises(ValueError, match="one session at least"):
        await storage.offline.deliver(HOST, "bob", b"", 1.0, [], "alice's", 1)
    with pytest.raises(ValueError, match="NUL"):
        await storage.offline.deliver(HOST, "bob", b"", 1.0, [(1, 1)], "\0", 1)
    with pytest.raises(ValueError, match="NUL"):
        await storage.offline.append(HOST, "bob", b"", 1.0, None, 1, "\0", 1)


async def test_what_is_known_counts_as_stored_in_a_full_mailbox(storage: Storage) -> None:
    """It may be full because of this very message, if its commit was interrupted."""
    assert await append(storage, "1", number=1, limit=2) is True
    assert await append(storage, "2", number=2, limit=2) is True
    assert await append(storage, "2", number=2, limit=2) is True
    assert await append(storage, "3", number=3, limit=2) is False
    assert await waiting(storage) == ["1", "2"]


async def test_duplicates_take_no_room(storage: Storage, clock: ManualClock) -> None:
    for _ in range(5):
        assert await append(storage, "1", number=1, limit=2) is True
    assert await append(storage, "2", number=2, limit=2) is True
    assert await append(storage, "3", number=3, limit=2) is False


async def test_messages_of_sessions_take_no_room(storage: Storage) -> None:
    session = await opened(storage)
    for number in range(5):
        await delivered(storage, "x", (session, number), number=number)
    assert await append(storage, "1", limit=1) is True
    assert await append(storage, "2", limit=1) is False


async def test_waiting_messages_are_assigned_in_order(storage: Storage) -> None:
    session = await opened(storage)
    for body in "abcd":
        await append(storage, body)
    messages = await storage.offline.load(HOST, "bob", 3)
    ids = [message.id for message in messages]
    assert await storage.offline.assign(HOST, "bob", ids, session, 11) == ids
    assert await waiting(storage) == ["d"]
    # The same call again, because its answer was lost, and the next one.
    assert await storage.offline.assign(HOST, "bob", ids, session, 11) == ids
    assert await storage.offline.assign(HOST, "bob", ids, session, 14) == []
    assert await left(storage) == {"token": [(11, "a"), (12, "b"), (13, "c")]}


async def test_assigned_messages_are_known(storage: Storage) -> None:
    session = await opened(storage)
    await append(storage, "a", number=1)
    (message,) = await storage.offline.load(HOST, "bob", 10)
    await storage.offline.assign(HOST, "bob", [message.id], session, 1)
    assert await append(storage, "a", number=1) is True
    assert await delivered(storage, "a", (session, 2), number=1) is Delivered.DUPLICATE
    assert await waiting(storage) == []


async def test_expired_messages_are_not_assigned(storage: Storage, clock: ManualClock) -> None:
    session = await opened(storage)
    for body, expires in ((b"1", None), (b"2", clock.now() + 5), (b"3", None)):
        await storage.offline.append(HOST, "bob", body, 1.0, expires, 10)
    messages = await storage.offline.load(HOST, "bob", 10)
    clock.advance(10)
    assigned = await storage.offline.assign(HOST, "bob", [each.id for each in messages], session, 1)
    assert assigned == [messages[0].id, messages[2].id]
    assert await left(storage) == {"token": [(1, "1"), (2, "3")]}


async def test_only_ones_own_session_is_assigned_to(storage: Storage) -> None:
    await append(storage, "a")
    assert await storage.offline.assign(HOST, "bob", [1], GONE, 1) is None
    assert await waiting(storage) == ["a"]


async def test_assigning_makes_room(storage: Storage) -> None:
    session = await opened(storage)
    assert [await append(storage, body, limit=2) for body in "abc"] == [True, True, False]
    messages = await storage.offline.load(HOST, "bob", 10)
    await storage.offline.assign(HOST, "bob", [messages[0].id], session, 1)
    assert [await append(storage, body, limit=2) for body in "de"] == [True, False]
    assert await waiting(storage) == ["b", "d"]


async def test_what_a_session_leaves_goes_to_others_or_back(storage: Storage) -> None:
    one, two = await opened(storage, "one"), await opened(storage, "two")
    await append(storage, "waits")
    for number in range(1, 6):
        await delivered(storage, str(number), (one, number), number=number)
    moves = [(4, None, 0), (2, two, 17), (3, None, 0)]
    assert await storage.offline.reassign(HOST, "bob", one, moves) is True
    # The latest of the mailbox, in their order.
    assert await waiting(storage) == ["waits", "3", "4"]
    assert await left(storage) == {"one": [(1, "1"), (5, "5")], "two": [(17, "2")]}


async def test_what_comes_back_is_not_removed_with_what_was_loaded_before(storage: Storage) -> None:
    session = await opened(storage)
    await delivered(storage, "given", (session, 1), number=1)
    await append(storage, "waits")
    (loaded,) = await storage.offline.load(HOST, "bob", 10)
    await storage.offline.reassign(HOST, "bob", session, [(1, None, 0)])
    assert await storage.offline.remove(HOST, "bob", loaded.id) == 1
    assert await waiting(storage) == ["given"]


async def test_what_comes_back_is_known_keeps_its_time_and_expires(storage: Storage, clock: ManualClock) -> None:
    session = await opened(storage)
    await storage.offline.deliver(HOST, "bob", b"x", 5.5, [(session, 1)], "alice's", 1, clock.now() + 10)
    await storage.offline.reassign(HOST, "bob", session, [(1, None, 0)])
    (message,) = await storage.offline.load(HOST, "bob", 10)
    assert (message.stamp, message.stanza) == (5.5, b"x")
    assert await delivered(storage, "x", (session, 2), number=1) is Delivered.DUPLICATE
    clock.advance(10)
    assert await waiting(storage) == []


async def test_a_full_mailbox_takes_back_what_it_had(storage: Storage) -> None:
    session = await opened(storage)
    await delivered(storage, "given", (session, 1), number=1)
    assert await append(storage, "waits", limit=1) is True
    await storage.offline.reassign(HOST, "bob", session, [(1, None, 0)])
    assert await waiting(storage) == ["waits", "given"]
    assert await append(storage, "more", limit=2) is False


async def test_reassigning_to_a_session_that_is_gone_changes_nothing(storage: Storage) -> None:
    one, two = await opened(storage, "one"), await opened(storage, "two")
    for number in (1, 2):
        await delivered(storage, str(number), (one, number), number=number)
    moves = [(1, two, 1), (2, GONE, 1)]
    assert await storage.offline.reassign(HOST, "bob", one, moves, close=True) is False
    assert await storage.offline.reassign(HOST, "bob", GONE, [], close=True) is False
    assert await left(storage) == {"one": [(1, "1"), (2, "2")], "two": []}


async def test_a_session_that_closes_leaves_the_rest_as_delivered(storage: Storage) -> None:
    session = await opened(storage)
    for number in (1, 2):
        await delivered(storage, str(number), (session, number), number=number)
    assert await storage.offline.reassign(HOST, "bob", session, [(2, None, 0)], close=True) is True
    assert await storage.sessions.handled(session, 1) is False
    assert await waiting(storage) == ["2"]
    assert await left(storage) == {}
    other = await opened(storage, "other")
    assert await delivered(storage, "1", (other, 1), number=1) is Delivered.DUPLICATE


async def test_reassigning_and_what_follows_keep_their_order(storage: Storage) -> None:
    one, two = await opened(storage, "one"), await opened(storage, "two")
    await delivered(storage, "1", (one, 1), number=1)

    def deliver(number: int, session: int, out_seq: int) -> asyncio.Future[Delivered]:
        return storage.offline.deliver(HOST, "bob", b"%d" % number, 1.0, [(session, out_seq)], "alice's", number)

    results = await asyncio.gather(
        deliver(2, one, 2),
        storage.offline.reassign(HOST, "bob", one, [(1, two, 1), (2, two, 2)]),
        deliver(3, one, 3),
        deliver(4, two, 3),
        storage.sessions.close(one),
        storage.offline.reassign(HOST, "bob", one, [(3, two, 4)]),
        deliver(5, one, 4),
        storage.sessions.close(one),
    )
    stored, superseded = Delivered.STORED, Delivered.SUPERSEDED
    assert list(results) == [stored, True, stored, stored, True, False, superseded, False]
    # The third was for a session that ended: it counts as delivered.
    assert await left(storage) == {"two": [(1, "1"), (2, "2"), (3, "4")]}


async def test_a_resumed_session_is_numbered_anew(storage: Storage) -> None:
    session = await opened(storage)
    # 2, 4 and 5 were no messages, and died with the process.
    for number in (1, 3, 6, 7):
        await delivered(storage, str(number), (session, number), number=number)
    (adopted,) = await storage.sessions.adopt(HOST, "bob", "next")
    assert await storage.offline.renumber(adopted.id, 3) is True
    assert await storage.offline.renumber(session, 7) is False
    (again,) = await storage.sessions.adopt(HOST, "bob", "third")
    assert again.acknowledged == 3
    assert [(message.out_seq, message.stanza) for message in again.messages] == [(4, b"6"), (5, b"7")]


async def test_deleting_a_user_deletes_everything(storage: Storage) -> None:
    session, other = await opened(storage), await opened(storage, "carol's", user="carol")
    await append(storage, "waits")
    await delivered(storage, "given", (session, 1), number=1)
    await delivered(storage, "carol's", (other, 1), number=2, user="carol")
    assert await storage.offline.delete_user(HOST, "bob") == 1
    assert await waiting(storage) == []
    assert await left(storage) == {"token": []}
    assert await left(storage, "carol") == {"carol's": [(1, "carol's")]}


async def test_what_was_delivered_is_forgotten_after_a_while(storage: Storage) -> None:
    session, ended = await opened(storage, "live"), await opened(storage, "ended")
    deliver = storage.offline.deliver
    for number in range(1, 5):
        await deliver(HOST, "bob", b"old", 10.0, [(session, number)], "alice's", number)
    await deliver(HOST, "bob", b"new", 90.0, [(session, 5)], "alice's", 5)
    await deliver(HOST, "bob", b"old", 10.0, [(ended, 1)], "alice's", 6)
    await storage.offline.append(HOST, "bob", b"old", 10.0, None, 10)
    await storage.sessions.acknowledged(session, 2)
    assert await storage.offline.forget_delivered(50.0) == 2
    await storage.sessions.close(ended)
    assert await storage.offline.forget_delivered(50.0) == 1
    assert await storage.offline.forget_delivered(50.0) == 0
    # What waits, what was not acknowledged, and what is not old enough is still there.
    assert await waiting(storage) == ["old"]
    assert await left(storage) == {
        "live": [(3, "old"), (4, "old"), (5, "new")],
    }


async def test_many_are_forgotten(storage: Storage) -> None:
    session = await opened(storage)
    deliveries = [delivered(storage, "x", (session, number), number=number) for number in range(1, 2101)]
    assert set(await asyncio.gather(*deliveries)) == {Delivered.STORED}
    await storage.sessions.acknowledged(session, 2050)
    assert await storage.offline.forget_delivered(50.0) == 2050
    assert len((await left(storage))["token"]) == 50

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from monktalk.common.clock import ManualClock
    from monktalk.xmpp.storage.interfaces import Storage

HOST = "example.org"


async def fill(storage: Storage, user: str, *bodies: str, limit: int = 100, host: str = HOST) -> list[bool]:
    appends = [storage.offline.append(host, user, body.encode(), 1.0, None, limit) for body in bodies]
    return await asyncio.gather(*appends)


async def bodies(storage: Storage, user: str, limit: int = 100) -> list[str]:
    return [message.stanza.decode() for message in await storage.offline.load(HOST, user, limit)]


async def test_messages_come_back_in_order_and_intact(storage: Storage) -> None:
    stanza = "<message><body>\r\n\t ☃ 😀 ' \" \\ %s :x ?</body></message>".encode()
    first = storage.offline.append(HOST, "bob", stanza, 1_700_000_000.123456, None, 10)
    second = storage.offline.append(HOST, "bob", b"<message/>", 5.0, None, 10)
    assert await first is True
    assert await second is True
    one, two = await storage.offline.load(HOST, "bob", 10)
    assert (one.stanza, one.stamp) == (stanza, 1_700_000_000.123456)
    assert (two.stanza, two.stamp) == (b"<message/>", 5.0)
    assert one.id < two.id


async def test_load_gives_the_oldest(storage: Storage) -> None:
    await fill(storage, "bob", *map(str, range(30)))
    assert await bodies(storage, "bob", 3) == ["0", "1", "2"]
    assert len(await bodies(storage, "bob", 100)) == 30
    assert await storage.offline.count(HOST, "bob") == 30


async def test_mailboxes_are_kept_apart(storage: Storage) -> None:
    await fill(storage, "bob", "b")
    await fill(storage, "bob", "n", host="example.net")
    await fill(storage, "Bob", "B")
    assert await bodies(storage, "bob") == ["b"]
    assert await bodies(storage, "Bob") == ["B"]
    assert await bodies(storage, "carol") == []
    assert await storage.offline.count(HOST, "carol") == 0


async def test_remove_leaves_what_came_later(storage: Storage) -> None:
    await fill(storage, "bob", "1", "2", "3")
    await fill(storage, "carol", "c")
    messages = await storage.offline.load(HOST, "bob", 2)
    await fill(storage, "bob", "4")
    assert await storage.offline.remove(HOST, "bob", messages[-1].id) == 2
    assert await bodies(storage, "bob") == ["3", "4"]
    assert await bodies(storage, "carol") == ["c"]
    assert await storage.offline.remove(HOST, "bob", messages[-1].id) == 0


async def test_ids_are_not_used_again(storage: Storage) -> None:
    await fill(storage, "bob", "old")
    (old,) = await storage.offline.load(HOST, "bob", 10)
    assert await storage.offline.remove(HOST, "bob", old.id) == 1
    await fill(storage, "bob", "new")
    # A second resource that had loaded the old message as well, and is done with it only now.
    assert await storage.offline.remove(HOST, "bob", old.id) == 0
    assert await bodies(storage, "bob") == ["new"]


async def test_a_full_mailbox_refuses(storage: Storage) -> None:
    assert await fill(storage, "bob", "1", "2", "3", limit=2) == [True, True, False]
    assert await fill(storage, "bob", "4", limit=2) == [False]
    assert await fill(storage, "carol", "c", limit=2) == [True]
    assert await bodies(storage, "bob") == ["1", "2"]
    assert await fill(storage, "bob", "none", limit=0) == [False]


async def test_room_is_made_by_removing(storage: Storage) -> None:
    await fill(storage, "bob", "1", "2", limit=2)
    messages = await storage.offline.load(HOST, "bob", 1)
    await storage.offline.remove(HOST, "bob", messages[0].id)
    assert await fill(storage, "bob", "3", "4", limit=2) == [True, False]
    assert await storage.offline.delete_user(HOST, "bob") == 2
    assert await fill(storage, "bob", "5", "6", "7", limit=2) == [True, True, False]
    assert await bodies(storage, "bob") == ["5", "6"]


async def test_each_append_brings_its_own_limit(storage: Storage) -> None:
    assert await fill(storage, "bob", "1", "2", limit=2) == [True, True]
    assert await fill(storage, "bob", "3", limit=3) == [True]
    assert await fill(storage, "bob", "4", limit=2) == [False]


async def test_expired_messages_are_not_delivered(storage: Storage, clock: ManualClock) -> None:
    now = clock.now()
    for body, expires in ((b"short", now + 10), (b"long", now + 100), (b"forever", None)):
        await storage.offline.append(HOST, "bob", body, now, expires, 10)
    assert await bodies(storage, "bob") == ["short", "long", "forever"]
    clock.advance(10)
    assert await bodies(storage, "bob") == ["long", "forever"]
    assert await storage.offline.count(HOST, "bob") == 2


async def test_delete_expired(storage: Storage, clock: ManualClock) -> None:
    now = clock.now()
    await storage.offline.append(HOST, "bob", b"short", now, now + 10, 10)
    await storage.offline.append(HOST, "carol", b"short", now, now + 10, 10)
    await storage.offline.append("example.net", "bob", b"short", now, now + 10, 10)
    await storage.offline.append(HOST, "bob", b"forever", now, None, 10)
    assert await storage.offline.delete_expired(HOST, now + 9) == 0
    assert await storage.offline.delete_expired(HOST, now + 10) == 2
    assert await bodies(storage, "bob") == ["forever"]
    assert await storage.offline.count("example.net", "bob") == 1


async def test_delete_older(storage: Storage, clock: ManualClock) -> None:
    for stamp in (10.0, 20.0, 30.0):
        await storage.offline.append(HOST, "bob", str(stamp).encode(), stamp, None, 10)
    await storage.offline.append("example.net", "bob", b"old", 10.0, None, 10)
    assert await storage.offline.delete_older(HOST, 20.0) == 1
    assert await bodies(storage, "bob") == ["20.0", "30.0"]
    assert await storage.offline.delete_older(HOST, 100.0) == 2
    assert await storage.offline.count("example.net", "bob") == 1


async def test_expired_messages_make_room(storage: Storage, clock: ManualClock) -> None:
    now = clock.now()
    assert await storage.offline.append(HOST, "bob", b"short", now, now + 10, 1) is True
    clock.advance(10)
    assert await storage.offline.delete_expired(HOST, clock.now()) == 1
    assert await storage.offline.append(HOST, "bob", b"new", now, None, 1) is True


async def test_nothing_is_left_to_a_later_account_of_the_same_name(storage: Storage) -> None:
    append = storage.offline.append(HOST, "bob", b"for the old bob", 1.0, None, 10)
    await storage.offline.delete_user(HOST, "bob")
    await append
    assert await bodies(storage, "bob") == []


async def test_a_caller_that_gives_up_does_not_stop_the_others(storage: Storage) -> None:
    first = storage.offline.append(HOST, "bob", b"1", 1.0, None, 10)
    second = storage.offline.append(HOST, "bob", b"2", 1.0, None, 10)
    first.cancel()
    assert await second is True
    assert await bodies(storage, "bob") == ["1", "2"]


async def test_names_that_cannot_be_stored_are_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="NUL"):
        await storage.offline.append(HOST, "b\0b", b"", 1.0, None, 10)
    with pytest.raises(ValueError, match="surrogate"):
        await storage.offline.append("\udc00", "bob", b"", 1.0, None, 10)
    for call in (
        storage.offline.load(HOST, "b\0b", 1),
        storage.offline.count(HOST, "b\0b"),
        storage.offline.remove(HOST, "b\0b", 1),
        storage.offline.delete_user(HOST, "b\0b"),
        storage.offline.delete_expired("\0", 1.0),
        storage.offline.delete_older("\0", 1.0),
    ):
        with pytest.raises(ValueError, match="NUL"):
            await call


async def test_the_bytes_of_a_stanza_may_be_anything(storage: Storage) -> None:
    stanza = bytes(range(256))
    await storage.offline.append(HOST, "bob", stanza, 1.0, None, 10)
    (message,) = await storage.offline.load(HOST, "bob", 10)
    assert message.stanza == stanza

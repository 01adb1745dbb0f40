"""What is special about memory; `integration/storage/` has what all back ends have in common."""

from __future__ import annotations

import pytest

from monktalk.xmpp.storage.interfaces import Storage, StorageUnavailable
from monktalk.xmpp.storage.memory import MemoryStorage


class Bytes:
    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


async def all_fail(storage: Storage) -> None:
    assert not storage.healthy()
    store = storage.keyvalue("t", Bytes(), 10)
    storage.accounts.seen("h", "u", 1.0)
    for call in (
        store.get("h", "o", "k"),
        store.put("h", "o", "k", b"", None),
        storage.offline.count("h", "u"),
        storage.accounts.disabled("h", "u"),
        storage.sessions.owners(),
        storage.sessions.adopt("h", "u", "o"),
    ):
        with pytest.raises(StorageUnavailable):
            await call
    with pytest.raises(StorageUnavailable):
        await storage.offline.append("h", "u", b"", 1.0, None, 10)


async def test_it_has_to_be_started() -> None:
    storage = MemoryStorage()
    await all_fail(storage)
    await storage.start()
    assert storage.healthy()


async def test_closing_finishes_what_was_called() -> None:
    storage = MemoryStorage()
    await storage.start()
    append = storage.offline.append("h", "u", b"", 1.0, None, 10)
    await storage.close()
    assert await append is True
    await all_fail(storage)


async def test_it_can_go_away_and_come_back() -> None:
    storage = MemoryStorage()
    await storage.start()
    await storage.offline.append("h", "u", b"", 1.0, None, 10)
    storage.set_available(False)
    await all_fail(storage)
    storage.set_available(True)
    assert storage.healthy()
    assert await storage.offline.count("h", "u") == 1

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monktalk.xmpp.storage.interfaces import ACCOUNTS_TABLE, Account

if TYPE_CHECKING:
    from monktalk.common.clock import ManualClock
    from monktalk.xmpp.storage.interfaces import Storage

HOST = "example.org"


async def test_an_account_is_remembered_at_its_first_login(storage: Storage) -> None:
    assert await storage.accounts.find(HOST, "alice") is None
    storage.accounts.seen(HOST, "alice", 100.5)
    await storage.accounts.add(HOST, "bob", 100.0)  # waits for what was queued before
    assert await storage.accounts.find(HOST, "alice") == Account("alice", 100.5, 100.5, disabled=False)
    storage.accounts.seen(HOST, "alice", 200.0)
    storage.accounts.seen(HOST, "alice", 150.0)
    await storage.accounts.add(HOST, "bob", 100.0)
    assert await storage.accounts.find(HOST, "alice") == Account("alice", 100.5, 200.0, disabled=False)


async def test_an_account_that_was_made_has_not_logged_in(storage: Storage) -> None:
    await storage.accounts.add(HOST, "alice", 100.0)
    await storage.accounts.add(HOST, "alice", 300.0)
    assert await storage.accounts.find(HOST, "alice") == Account("alice", 100.0, None, disabled=False)
    storage.accounts.seen(HOST, "alice", 200.0)
    await storage.accounts.add(HOST, "alice", 300.0)
    assert await storage.accounts.find(HOST, "alice") == Account("alice", 100.0, 200.0, disabled=False)


async def test_accounts_of_a_host_are_listed_in_order(storage: Storage) -> None:
    for user in ("dave", "Zoe", "alice", "émile", "carol"):
        await storage.accounts.add(HOST, user, 1.0)
    await storage.accounts.add("example.net", "bob", 1.0)

    async def users(*arguments: int) -> list[str]:
        return [account.user for account in await storage.accounts.list(HOST, *arguments)]

    assert await users() == ["Zoe", "alice", "carol", "dave", "émile"]
    assert await users(1, 2) == ["alice", "carol"]
    assert await users(3) == ["dave", "émile"]
    assert await users(5, 10) == []
    assert await users(0, 0) == []
    assert await storage.accounts.count(HOST) == 5
    assert await storage.accounts.count("nowhere.example") == 0


async def test_disabling_and_enabling(storage: Storage, clock: ManualClock) -> None:
    await storage.accounts.add(HOST, "alice", 1.0)
    assert await storage.accounts.disabled(HOST, "alice") is False
    await storage.accounts.set_disabled(HOST, "alice", True, "spam 'n' more")
    assert await storage.accounts.disabled(HOST, "alice") is True
    assert await storage.accounts.disabled(HOST, "bob") is False
    found = await storage.accounts.find(HOST, "alice")
    assert found == Account("alice", 1.0, None, disabled=True, reason="spam 'n' more")
    await storage.accounts.set_disabled(HOST, "alice", False)
    assert await storage.accounts.disabled(HOST, "alice") is False
    assert await storage.accounts.find(HOST, "alice") == Account("alice", 1.0, None, disabled=False)


async def test_an_account_that_was_never_seen_can_be_disabled(storage: Storage, clock: ManualClock) -> None:
    assert await storage.accounts.disabled(HOST, "mallory") is False
    await storage.accounts.set_disabled(HOST, "mallory", True)
    assert await storage.accounts.disabled(HOST, "mallory") is True
    found = await storage.accounts.find(HOST, "mallory")
    assert found == Account("mallory", clock.now(), None, disabled=True)


async def test_a_login_does_not_enable(storage: Storage) -> None:
    await storage.accounts.set_disabled(HOST, "alice", True)
    storage.accounts.seen(HOST, "alice", 5.0)
    await storage.accounts.add(HOST, "alice", 5.0)
    assert await storage.accounts.disabled(HOST, "alice") is True


async def test_deleting(storage: Storage) -> None:
    await storage.accounts.set_disabled(HOST, "alice", True)
    await storage.accounts.delete(HOST, "alice")
    assert await storage.accounts.find(HOST, "alice") is None
    assert await storage.accounts.disabled(HOST, "alice") is False
    await storage.accounts.delete(HOST, "alice")


async def test_changes_are_announced(storage: Storage) -> None:
    announced: list[tuple[str, str, str, str]] = []
    storage.on_invalidate = lambda *change: announced.append(change)
    storage.accounts.seen(HOST, "alice", 1.0)
    await storage.accounts.set_disabled(HOST, "alice", True)
    await storage.accounts.delete(HOST, "alice")
    assert announced == [(ACCOUNTS_TABLE, HOST, "alice", "")] * 2


async def test_names_that_cannot_be_stored_are_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="NUL"):
        storage.accounts.seen(HOST, "a\0", 1.0)
    with pytest.raises(ValueError, match="NUL"):
        await storage.accounts.set_disabled(HOST, "a", True, "because\0")
    for call in (
        storage.accounts.add(HOST, "\0", 1.0),
        storage.accounts.find(HOST, "\0"),
        storage.accounts.disabled(HOST, "\0"),
        storage.accounts.delete(HOST, "\0"),
    ):
        with pytest.raises(ValueError, match="NUL"):
            await call

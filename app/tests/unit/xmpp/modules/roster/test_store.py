"""Changes of rosters: none is lost, whoever else is writing."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.modules.roster import store as module
from monktalk.xmpp.modules.roster.store import ATTEMPTS, RosterStore
from monktalk.xmpp.modules.roster.value import CODEC, EMPTY, TO, Item, Roster
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.storage.interfaces import StorageUnavailable, Versioned
from monktalk.xmpp.storage.memory import MemoryStorage

HOST = "capulet.example"


@pytest.fixture
async def storage():
    storage = MemoryStorage()
    await storage.start()
    yield storage
    await storage.close()


@pytest.fixture
def store(storage):
    return RosterStore(storage, HOST)


def adding(jid: str):
    return lambda roster: roster.with_item(jid, Item(TO))


class Rival:
    """Another process: it writes whenever somebody is about to, as often as it likes."""

    def __init__(self, storage: MemoryStorage, times: int) -> None:
        self.values = storage.keyvalue(module.TABLE, CODEC, 1)
        self.left = times

    async def strike(self, roster: Roster) -> None:
        self.left -= 1
        await self.values.put(HOST, "romeo", "", roster.with_item(f"rival{self.left}@x.example", Item()), None)


class Contended(RosterStore):
    """A store whose reads are followed by a rival's write."""

    def __init__(self, storage: MemoryStorage, rival: Rival) -> None:
        super().__init__(storage, HOST)
        self.rival = rival

    async def get(self, user):
        found = await super().get(user)
        if self.rival.left:
            await self.rival.strike(found.value)
        return found


async def test_without_a_stored_roster_there_is_an_empty_one(store):
    assert store.peek("romeo") is None, "nobody has looked yet"
    assert await store.get("romeo") == Versioned(EMPTY, 0)
    known = store.peek("romeo")
    assert (known.value, known.version) == (EMPTY, 0)


async def test_a_change_is_stored_and_gets_a_version(storage, store):
    change = await store.change("romeo", adding("juliet@capulet.example"))
    assert change.before == EMPTY
    assert change.after.items == {"juliet@capulet.example": Item(TO)}
    found = await RosterStore(storage, HOST).get("romeo")
    assert (found.value, found.version) == (change.after, change.version)
    assert change.version > 0
    again = await store.change("romeo", adding("nurse@capulet.example"))
    assert again.version > change.version


async def test_hosts_and_users_have_their_own(storage, store):
    await store.change("romeo", adding("juliet@capulet.example"))
    assert (await store.get("juliet")).value == EMPTY
    assert (await RosterStore(storage, "montague.example").get("romeo")).value == EMPTY


async def test_no_change_is_no_write(store):
    first = await store.change("romeo", adding("juliet@capulet.example"))
    second = await store.change("romeo", adding("juliet@capulet.example"))
    assert second.version == first.version
    assert second.before is second.after


async def test_an_edit_that_raises_changes_nothing(store):
    def refuse(roster):
        raise StanzaError("not-allowed")

    with pytest.raises(StanzaError):
        await store.change("romeo", refuse)
    assert (await store.get("romeo")).version == 0
    await store.change("romeo", adding("juliet@capulet.example"))


async def test_changes_at_the_same_time_are_all_kept_in_order(store):
    seen = []

    def edit(number):
        def change(roster):
            seen.append(number)
            return roster.with_item(f"friend{number}@x.example", Item())

        return change

    changes = await asyncio.gather(*(store.change("romeo", edit(number)) for number in range(50)))
    assert seen == list(range(50)), "each edit was made once, in the order of the calls"
    assert len((await store.get("romeo")).value.items) == 50
    assert [len(change.after.items) for change in changes] == list(range(1, 51))
    assert sorted(change.version for change in changes) == [change.version for change in changes]


async def test_users_do_not_wait_for_each_other(storage, store):
    await asyncio.gather(*(store.change(f"user{number}", adding("a@x.example")) for number in range(20)))
    assert not store._turns, "nothing is left of the turns"


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
async def test_another_process_writes_first(storage, times):
    store = Contended(storage, Rival(storage, times))
    change = await store.change("romeo", adding("juliet@capulet.example"))
    assert set(change.after.items) == {"juliet@capulet.example", *(f"rival{n}@x.example" for n in range(times))}
    assert (await store.get("romeo")).value == change.after


async def test_another_process_writes_all_the_time(storage):
    store = Contended(storage, Rival(storage, 10 * ATTEMPTS))
    with pytest.raises(StanzaError) as refused:
        await store.change("romeo", adding("juliet@capulet.example"))
    assert (refused.value.condition, refused.value.kind) == ("resource-constraint", "wait")
    store.rival.left = 0
    assert "juliet@capulet.example" not in (await store.get("romeo")).value.items


async def test_the_storage_is_away(storage, store):
    storage.set_available(False)
    with pytest.raises(StorageUnavailable):
        await store.change("romeo", adding("juliet@capulet.example"))
    storage.set_available(True)
    await store.change("romeo", adding("juliet@capulet.example"))


async def test_delete(storage, store):
    assert await store.delete("romeo") == EMPTY
    before = await store.change("romeo", adding("juliet@capulet.example"))
    assert await store.delete("romeo") == before.after
    assert (await store.get("romeo")).version == 0
    after = await store.change("romeo", adding("juliet@capulet.example"))
    assert after.version > before.version, "a version never comes back"


async def test_delete_while_another_process_writes(storage):
    await RosterStore(storage, HOST).change("romeo", adding("juliet@capulet.example"))
    deleted = await Contended(storage, Rival(storage, 2)).delete("romeo")
    assert len(deleted.items) == 3
    await RosterStore(storage, HOST).change("romeo", adding("juliet@capulet.example"))
    with pytest.raises(StanzaError):
        await Contended(storage, Rival(storage, 10 * ATTEMPTS)).delete("romeo")

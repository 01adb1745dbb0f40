"""The leader of two databases dies, and its synchronous standby takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from monktalk.db import migrate
from monktalk.xmpp.storage.interfaces import Delivered
from monktalk.xmpp.storage.sql.storage import SqlStorage
from tests.integration.storage.sessions import HOST, delivered, left, opened
from tests.integration.storage.waiting import eventually
from tests.postgres import PostgresServer, running_server

pytestmark = pytest.mark.integration

STATE = "SELECT sync_state FROM pg_stat_replication"


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A leader and its synchronous standby."""
    with running_server() as leader:
        standby = PostgresServer(leader=leader)
        try:
            standby.start()
            leader.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            leader.execute("SELECT pg_reload_conf()")
            yield leader, standby
        finally:
            standby.remove()


async def test_what_was_acknowledged_is_on_the_new_leader(pair: tuple[PostgresServer, PostgresServer]) -> None:
    leader, standby = pair
    await eventually(lambda: leader.execute(STATE) == [("sync",)])
    url = leader.create_database()
    migrate.upgrade(url)
    hosts = f"127.0.0.1:{leader.port},127.0.0.1:{standby.port}"
    storage = SqlStorage(leader.url(url.rpartition("/")[2], hosts=hosts), patience=30.0)
    await storage.start()
    try:
        session = await opened(storage)
        stored: list[int] = []
        ended = False

        async def deliver_all_the_time(sender: int) -> None:
            number = 0
            while not ended:
                number += 1
                outcome = await delivered(storage, "x", (session, number), number=number, origin=f"o{sender}")
                assert outcome is Delivered.STORED
                stored.append(number)

        senders = [asyncio.ensure_future(deliver_all_the_time(sender)) for sender in range(20)]
        await eventually(lambda: len(stored) > 200)
        await asyncio.to_thread(leader.kill)
        standby.execute("SELECT pg_promote()")
        before = len(stored)
        await eventually(lambda: len(stored) > before + 200, within=25.0)
        ended = True
        await asyncio.gather(*senders)
        assert len((await left(storage))["token"]) == len(stored)
    finally:
        await storage.close()


@pytest.mark.parametrize("what", ["append", "close"])
async def test_what_is_found_done_is_not_reported_before_it_is_on_the_standby(
    pair: tuple[PostgresServer, PostgresServer], what: str
) -> None:
    """A commit that was cut off while it waited for the standby has taken place, but only here."""
    leader, standby = pair
    await eventually(lambda: leader.execute(STATE) == [("sync",)])
    url = leader.create_database()
    migrate.upgrade(url)
    storage = SqlStorage(url, patience=30.0)
    await storage.start()
    try:
        session = await opened(storage)
        await asyncio.to_thread(standby.stop)
        if what == "append":
            call = storage.offline.append(HOST, "bob", b"x", 1.0, None, 10, "alice's", 1)
        else:
            call = storage.sessions.close(session)
        waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        await eventually(lambda: bool(leader.execute(waits)))
        ((first,),) = leader.execute(waits)
        leader.execute(f"SELECT pg_terminate_backend({first})")
        # The attempt is repeated, and finds nothing to do; the answer waits for the standby all the same.
        await eventually(lambda: leader.execute(waits) not in ([], [(first,)]))
        rows = "SELECT (SELECT count(*) FROM offline_messages), (SELECT count(*) FROM sessions)"
        assert leader.execute(rows, url.rpartition("/")[2]) == [(1, 1) if what == "append" else (0, 0)]
        assert not call.done()
        await asyncio.to_thread(standby.start)
        assert await call is True
    finally:
        await storage.close()

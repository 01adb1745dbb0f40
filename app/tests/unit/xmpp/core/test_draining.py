"""Draining one worker."""

from __future__ import annotations

import asyncio

from monktalk.xmpp.core import draining
from tests.support.inproc import site


async def test_all_sessions_end_with_an_error_that_says_to_come_back():
    async with site({}) as server:
        clients = [server.login(name) for name in ("romeo", "juliet", "nurse")]
        assert await server.server.drain(0) == 3
        for client in clients:
            assert [node.tag.rpartition("}")[2] for node in client.stanzas()[-1]] == ["system-shutdown", "text"]
        assert server.server.bus.peers()[0].draining
        server.server.undrain()
        assert not server.server.bus.peers()[0].draining


async def test_they_end_in_portions_while_the_server_serves_on(monkeypatch):
    monkeypatch.setattr(draining, "PAUSE_SECONDS", 0.001)
    async with site({}) as server:
        for number in range(10):
            server.login(f"user{number}")
        work = asyncio.create_task(server.server.drain(0.005))  # the clock of the test stands still: five portions
        left = []
        while not work.done():
            left.append(server.server.hub.sessions())
            await asyncio.sleep(0)
        assert await work == 10
        assert [count for count in dict.fromkeys(left) if count] == [10, 8, 6, 4, 3, 2, 1]
        assert server.server.hub.sessions() == 0


async def test_it_can_be_called_off(monkeypatch):
    monkeypatch.setattr(draining, "PAUSE_SECONDS", 0.001)
    async with site({}) as server:
        for number in range(10):
            server.login(f"user{number}")
        work = asyncio.create_task(server.server.drain(0.005))
        while server.server.hub.sessions() == 10:
            await asyncio.sleep(0)
        server.server.undrain()
        assert await work == 2
        assert server.server.hub.sessions() == 8

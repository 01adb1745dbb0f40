"""Presence that waits for its turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.modules.presence import inbox
from monktalk.xmpp.modules.presence.inbox import Inboxes
from monktalk.xmpp.modules.presence.stanzas import make
from monktalk.xmpp.protocol.errors import StanzaError

ROMEO = JID.parse("romeo@montague.example")


class Spawner:
    """The part of a server that inboxes need."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work):
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]


class Desk:
    """Handles stanzas when it is told to."""

    def __init__(self):
        self.spawner = Spawner()
        server: Any = self.spawner
        self.inboxes = Inboxes(server, self.handle)
        self.handled = []
        self.open = asyncio.Event()

    async def handle(self, stanza):
        await self.open.wait()
        if stanza.type == "error":
            raise RuntimeError("a handler that fails")
        self.handled.append(stanza.sender.resource)

    def put(self, user, *names, kind=None):
        for name in names:
            self.inboxes.put(user, make(ROMEO.with_resource(name), ROMEO, kind))

    async def finish(self):
        self.open.set()
        await asyncio.gather(*self.spawner.tasks)


async def test_order_and_one_task():
    desk = Desk()
    desk.put("juliet", "1", "2", "3")
    assert desk.inboxes.busy("juliet")
    assert not desk.inboxes.busy("nurse")
    await desk.finish()
    assert desk.handled == ["1", "2", "3"]
    assert not desk.inboxes.busy("juliet")
    assert len(desk.spawner.tasks) == 1


async def test_users_do_not_wait_for_each_other():
    desk = Desk()
    desk.put("juliet", "1")
    desk.put("nurse", "2")
    assert len(desk.spawner.tasks) == 2
    await desk.finish()


async def test_settled():
    desk = Desk()
    await desk.inboxes.settled("juliet")
    desk.put("juliet", "1")
    waiting = asyncio.create_task(desk.inboxes.settled("juliet"))
    await asyncio.sleep(0)
    desk.put("juliet", "2")
    assert not waiting.done()
    desk.open.set()
    await waiting
    assert desk.handled[:1] == ["1"]
    await desk.finish()
    assert desk.handled == ["1", "2"]


async def test_one_who_gave_up_waiting_holds_up_nobody():
    desk = Desk()
    desk.put("juliet", "1")
    waiting = asyncio.create_task(desk.inboxes.settled("juliet"))
    await asyncio.sleep(0)
    waiting.cancel()
    desk.put("juliet", "2")
    await desk.finish()
    assert desk.handled == ["1", "2"]


async def test_a_failure_does_not_stop_the_rest(caplog):
    desk = Desk()
    desk.put("juliet", "1", kind="error")
    desk.put("juliet", "2")
    await desk.finish()
    assert desk.handled == ["2"]
    assert "presence_failed" in caplog.text


async def test_the_queue_is_bounded(monkeypatch):
    monkeypatch.setattr(inbox, "LONGEST", 3)
    desk = Desk()
    desk.put("juliet", "1", "2", "3")
    with pytest.raises(StanzaError) as refused:
        desk.put("juliet", "4")
    assert refused.value.condition == "resource-constraint"
    desk.put("nurse", "5")
    await desk.finish()
    assert sorted(desk.handled) == ["1", "2", "3", "5"]


async def test_cancelled_work_frees_those_who_wait():
    desk = Desk()
    desk.put("juliet", "1")
    waiting = asyncio.create_task(desk.inboxes.settled("juliet"))
    await asyncio.sleep(0)
    desk.spawner.tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not desk.inboxes.busy("juliet")

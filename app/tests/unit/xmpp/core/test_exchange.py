"""Stanzas and notes between workers."""

from __future__ import annotations

from typing import Any

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.core import exchange as exchange_module
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.receipt import Receipt
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from tests.support.gate import NOW, Gate
from tests.support.inproc import HOST, condition
from tests.support.inproc_cluster import cluster


class Notes(Gate):
    """The module of the tests, which notes what it is told as well."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.told: list[tuple[str, str, tuple[Any, ...]]] = []

    @HostHooks.note.handler()
    def note(self, user: str, topic: str, arguments: tuple[Any, ...]) -> bool:
        """Note it."""
        self.told.append((user, topic, arguments))
        return True


@pytest.fixture
async def workers():
    async with cluster({"gate": Notes}, '[messages]\nguarantee = "memory"\n') as running:
        yield running


@pytest.fixture
async def romeo(workers):
    return await workers.login(0, "romeo")


def gate(workers, number) -> Notes:
    return workers.sites[number].host.modules["gate"]


async def test_stanzas_go_to_the_recipient_s_worker_as_they_are(workers, romeo):
    juliet = await workers.online(1, "juliet")
    romeo.send(f"<message to='juliet@{HOST}' type='chat' id='m'><body>a &amp; b</body><x xmlns='urn:x'/></message>")
    (message,) = await workers.arrived(juliet)
    assert (message.get("from"), message.get("id"), message[0].text) == (f"romeo@{HOST}/desk", "m", "a & b")
    assert message[1].tag == "{urn:x}x"


async def test_requests_to_an_account_are_answered_by_its_home(workers, romeo):
    await workers.login(1, "juliet")
    romeo.send(f"<iq type='get' id='q' to='juliet@{HOST}'>{NOW}</iq>")
    (answer,) = await workers.arrived(romeo)
    assert (answer.get("type"), answer.get("from")) == ("result", f"juliet@{HOST}")
    assert gate(workers, 1).seen == ["now:q"]
    assert gate(workers, 0).seen == []


async def test_what_can_not_be_delivered_there_is_refused(workers, romeo):
    await workers.login(1, "juliet")
    romeo.send(f"<iq type='get' id='q' to='juliet@{HOST}/nowhere'>{NOW}</iq>")
    (answer,) = await workers.arrived(romeo)
    assert condition(answer) == "service-unavailable/cancel"


async def test_what_is_for_users_who_are_away_is_done_by_the_sender_s_worker(workers, romeo):
    romeo.send(f"<message to='keeper@{HOST}' id='1'/><message to='nurse@{HOST}' id='2'/>")
    (refused,) = await workers.arrived(romeo)
    assert refused.get("id") == "2"
    assert [event for event in gate(workers, 0).seen if event.startswith("undelivered")] == [
        "undelivered:keeper:1",
        "undelivered:nurse:2",
    ]
    assert gate(workers, 1).seen == []


async def test_a_storage_that_is_away_there_is_told(workers, romeo):
    await workers.login(1, "keeper")
    module = gate(workers, 1)

    def fail(stanza, user):
        raise StorageUnavailable("switched off")

    workers.sites[1].host.hooks.undelivered_message.remove(module.undelivered)
    workers.sites[1].host.hooks.undelivered_message.add(fail, 0)
    romeo.send(f"<message to='keeper@{HOST}' id='1'/>")
    (refused,) = await workers.arrived(romeo)
    assert condition(refused) == "resource-constraint/wait"


async def test_what_the_server_has_made_passes_no_module(workers, romeo):
    juliet = await workers.login(1, "juliet")
    server = workers.sites[0].server
    assert server.send_to(JID.parse(f"juliet@{HOST}/desk"), b"<presence type='unsubscribed' id='p'/>")
    assert [node.get("id") for node in await workers.arrived(juliet)] == ["p"]
    assert server.send_to(JID.parse(f"juliet@{HOST}/gone"), b"<presence id='p'/>"), "as far as is known here"
    assert server.send_to(JID.parse(f"nobody@{HOST}/gone"), b"<presence id='p'/>")
    assert await workers.arrived(juliet) == []
    assert gate(workers, 1).seen == []


async def test_presence_for_users_who_are_away_is_dropped(workers, romeo):
    host = workers.sites[0].host
    for kind in (None, "unavailable"):
        stanza = Stanza.from_bytes(f"<presence type='{kind}'/>".encode() if kind else b"<presence/>")
        stanza.sender, stanza.recipient = JID.parse(f"romeo@{HOST}/desk"), JID.parse(f"juliet@{HOST}")
        assert host.carried(stanza)
    assert await workers.arrived(romeo) == []
    assert gate(workers, 0).seen == []


async def test_notes_go_to_the_home_and_nowhere_else(workers, romeo):
    await workers.login(1, "juliet")
    hub, host = workers.sites[0].server.hub, workers.sites[0].host
    hub.tell(host, "juliet", "topic", 1, b"two")
    hub.tell(host, "nobody", "topic")
    hub.tell(host, "romeo", "topic")
    await workers.settled()
    assert gate(workers, 1).told == [("juliet", "topic", (1, b"two"))]
    assert gate(workers, 0).told == []


@pytest.mark.parametrize("back", [[0, 1], [1, 0]], ids=["the sender first", "the home first"])
async def test_notes_are_told_when_the_bus_is_back(workers, romeo, back, monkeypatch):
    monkeypatch.setattr(exchange_module, "AGAIN_SECONDS", 0.0)
    await workers.login(1, "juliet")
    workers.down(0)
    workers.down(1)
    hub, host = workers.sites[0].server.hub, workers.sites[0].host
    hub.tell(host, "juliet", "topic")
    await workers.settled()
    for number in back:
        workers.up(number)
    await workers.settled()
    assert set(gate(workers, 1).told) == {("juliet", "topic", ())}
    assert not hub._untold


async def test_the_effect_of_a_message_elsewhere_is_waited_for(workers, romeo):
    juliet = await workers.online(1, "juliet")
    settled = []
    receipt = Receipt("token", 1, lambda: settled.append(True))
    stanza = Stanza.from_bytes(f"<message to='juliet@{HOST}' id='m'/>".encode())
    stanza.sender, stanza.recipient, stanza.receipt = (
        JID.parse(f"romeo@{HOST}/desk"),
        JID.parse(f"juliet@{HOST}"),
        receipt,
    )
    workers.sites[0].host.deliver(stanza)
    receipt.release()
    assert settled == []
    assert [node.get("id") for node in await workers.arrived(juliet)] == ["m"]
    assert settled == [True]


async def test_a_message_that_is_not_settled_in_time_goes_to_the_mailbox(workers, romeo, monkeypatch):
    monkeypatch.setattr(exchange_module, "SETTLE_SECONDS", 0.0)
    await workers.online(1, "keeper")
    settled = []
    receipt = Receipt("token", 1, lambda: settled.append(True))
    stanza = Stanza.from_bytes(f"<message to='keeper@{HOST}' id='m'/>".encode())
    stanza.sender, stanza.recipient, stanza.receipt = (
        JID.parse(f"romeo@{HOST}/desk"),
        JID.parse(f"keeper@{HOST}"),
        receipt,
    )
    workers.broker.lose = lambda subject: b".worker." in subject
    workers.sites[0].host.deliver(stanza)
    receipt.release()
    await workers.settled()
    assert settled == [True]
    assert "undelivered:keeper:m" in gate(workers, 0).seen


async def test_the_cache_is_trusted_while_the_bus_works(workers, monkeypatch):
    trusted, emptied = [], []
    storage = workers.sites[0].server.storage
    monkeypatch.setattr(storage, "trust_cache", trusted.append)
    monkeypatch.setattr(storage, "invalidate_all", lambda: emptied.append(True))
    workers.down(0)
    workers.up(0)
    workers.sites[0].server.hub.news_lost()
    assert trusted == [False, True]
    assert emptied == [True, True]


async def test_of_two_homes_one_gives_its_sessions_up(workers, romeo):
    other = workers.sites[1].server.bus.worker
    hub = workers.sites[0].server.hub
    assert hub.sessions() == 1
    hub.conflict(HOST, "romeo", other, older=False)
    await workers.settled()
    assert b"system-shutdown" in b"".join(romeo.raw())
    assert (hub.sessions(), workers.sites[0].server.bus.is_home(HOST, "romeo")) == (0, False)
    await workers.login(1, "romeo")
    assert workers.sites[1].server.hub.sessions() == 1


async def test_unknown_frames_are_left_aside(workers, romeo):
    hub = workers.sites[0].server.hub
    hub.worker_frame("another release", 999, (1, 2))
    hub.user_frame("another release", HOST, "romeo", 999, (1, 2))
    hub.user_frame("another release", "unknown.example", "romeo", 1, ())
    hub.homeless("unknown.example", "romeo", 1, (), certain=True)
    assert await workers.arrived(romeo) == []

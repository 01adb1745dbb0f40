"""Clients whose connection ends at one worker and whose session is at another."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core import relay
from tests.support.gate import Gate
from tests.support.inproc import HOST
from tests.support.inproc_cluster import cluster

SM = "urn:xmpp:sm:3"


@pytest.fixture
async def workers():
    """The first worker is the home of ``juliet``, who has a session there."""
    async with cluster({"gate": Gate}, '[messages]\nguarantee = "memory"\n') as running:
        await running.login(0, "juliet", "home")
        yield running


def sessions(workers, number, user="juliet"):
    return sorted(session.jid.resource for session in workers.sites[number].host.user_sessions(user))


def error(client) -> str | None:
    """The condition of the stream error that the client was sent."""
    for node in client.stanzas():
        if node.tag.endswith("}error") and "streams" in node.tag:
            return node[0].tag.rpartition("}")[2]
    return None


async def test_the_session_is_at_the_home(workers):
    client = await workers.login(1, "juliet", "phone")
    assert sessions(workers, 0) == ["home", "phone"]
    assert sessions(workers, 1) == []
    romeo = await workers.login(1, "romeo")
    client.send(f"<message to='romeo@{HOST}/desk' id='1'/>")
    assert [node.get("id") for node in await workers.arrived(romeo)] == ["1"]
    romeo.send(f"<message to='juliet@{HOST}/phone' id='2'/>")
    assert [node.get("id") for node in await workers.arrived(client)] == ["2"]


async def test_the_session_knows_the_client_s_connection(workers):
    await workers.login(1, "juliet", "phone")
    session = workers.sites[0].host.sessions["juliet"]["phone"]
    assert (session.peer, session.secure) == ("192.0.2.1", True)


async def test_much_data_goes_in_pieces(workers, monkeypatch):
    monkeypatch.setattr(relay, "PIECE", 100)
    client = await workers.login(1, "juliet", "phone")
    body = "x" * 1050
    client.send(f"<message to='juliet@{HOST}/phone'><body>{body}</body></message>")
    (message,) = await workers.arrived(client)
    assert message.findtext("{jabber:client}body") == body
    assert len(client.link.written) > 10


async def test_the_end_of_the_stream_ends_the_session_and_the_connection(workers):
    client = await workers.login(1, "juliet", "phone")
    client.send("</stream:stream>")
    await workers.settled()
    assert client.link.closed
    assert sessions(workers, 0) == ["home"]


async def test_the_end_of_the_connection_ends_the_session(workers):
    client = await workers.login(1, "juliet", "phone")
    client.drop()
    await workers.settled()
    assert sessions(workers, 0) == ["home"]


async def test_a_session_that_may_be_resumed_waits(workers):
    client = await workers.login(1, "juliet", "phone")
    client.send(f"<enable xmlns='{SM}' resume='true'/>")
    (enabled,) = await workers.arrived(client)
    client.drop()
    await workers.settled()
    assert sessions(workers, 0) == ["home", "phone"]
    again = await workers.authenticated(1, "juliet")
    again.open()
    again.send(f"<resume xmlns='{SM}' previd='{enabled.get('id')}' h='0'/>")
    assert any(node.tag == f"{{{SM}}}resumed" for node in await workers.arrived(again))


async def test_the_home_keeps_a_client_from_sending(workers):
    client = await workers.login(1, "juliet", "phone")
    session = workers.sites[0].host.sessions["juliet"]["phone"]
    session.link.pause()
    await workers.settled()
    assert client.link.paused
    session.link.resume()
    await workers.settled()
    assert not client.link.paused


async def test_the_home_waits_for_a_client_that_does_not_read(workers):
    client = await workers.login(1, "juliet", "phone")
    session = workers.sites[0].host.sessions["juliet"]["phone"]
    client.link.xml.stalled(True)
    await workers.settled()
    waiting = workers.sites[0].server.spawn(session.link.drained())
    await workers.broker.settled()
    assert not waiting.done()
    client.link.xml.stalled(False)
    await workers.settled()
    assert waiting.done()


@pytest.mark.parametrize("to", ["home", "edge"])
async def test_a_frame_that_is_lost_ends_the_connection_and_the_client_comes_anew(workers, to):
    client = await workers.login(1, "juliet", "phone")
    home, edge = (running.server.bus.worker for running in workers.sites)
    lost = home if to == "home" else edge
    workers.broker.lose = lambda subject: subject.endswith(f".worker.{lost}".encode())
    client.send(f"<message to='juliet@{HOST}/phone' id='lost'/>")
    await workers.settled()
    workers.broker.lose = lambda _subject: False
    client.send(f"<message to='juliet@{HOST}/phone' id='next'/>")
    await workers.settled()
    assert client.link.closed
    assert sessions(workers, 0) == ["home"]
    again = await workers.login(1, "juliet", "phone")
    assert not again.link.closed


async def test_without_a_bus_a_client_that_sends_comes_anew_and_the_home_hears_of_it_later(workers):
    client = await workers.login(1, "juliet", "phone")
    workers.down(1)
    client.send(f"<message to='juliet@{HOST}/phone'/>")
    await workers.settled()
    assert error(client) == "system-shutdown"
    assert client.link.closed
    workers.up(1)
    await workers.settled()
    assert sessions(workers, 0) == ["home"]


async def test_without_a_bus_a_client_that_is_sent_something_comes_anew_and_hears_of_it_later(workers):
    client = await workers.login(1, "juliet", "phone")
    workers.down(0)
    workers.sites[0].host.sessions["juliet"]["phone"].send(b"<message/>")
    await workers.settled()
    assert sessions(workers, 0) == ["home"]
    workers.up(0)
    await workers.settled()
    assert client.link.closed


async def test_when_the_home_is_gone_the_client_is_told(workers):
    client = await workers.login(1, "juliet", "phone")
    workers.sites[1].server.hub.worker_gone(workers.sites[0].server.bus.worker)
    await workers.settled()
    assert error(client) == "system-shutdown"
    assert sessions(workers, 0) == ["home"], "and the home, if it was only out of reach"


async def test_when_the_edge_is_gone_so_are_its_clients(workers):
    client = await workers.login(1, "juliet", "phone")
    workers.sites[0].server.hub.worker_gone(workers.sites[1].server.bus.worker)
    await workers.settled()
    assert sessions(workers, 0) == ["home"]
    assert client.link.closed, "and they are told, if it was only out of reach"


async def test_a_home_that_has_been_left_meanwhile_is_taken_up_again(workers):
    """The last session ends while the next client is on its way."""
    client = await workers.authenticated(1, "juliet")
    for session in workers.sites[0].host.user_sessions("juliet"):
        session.end("test")
    assert not workers.sites[0].server.bus.is_home(HOST, "juliet")
    client.open()
    client.send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    await workers.settled()
    assert len(sessions(workers, 0)) == 1
    assert workers.sites[0].server.bus.is_home(HOST, "juliet")


async def test_a_client_that_comes_too_late_is_sent_to_the_new_home(workers):
    late = await workers.authenticated(1, "juliet")
    for session in workers.sites[0].host.user_sessions("juliet"):
        session.end("test")
    assert await workers.sites[1].server.bus.arrive(HOST, "juliet") is None
    await workers.settled()
    assert error(late) == "system-shutdown"


async def test_a_client_that_goes_at_once_leaves_nothing_behind(workers):
    client = await workers.authenticated(1, "juliet")
    client.drop()
    await workers.settled()
    assert sessions(workers, 0) == ["home"]
    assert workers.sites[0].host.arriving == {}
    assert workers.sites[0].server.hub.relays._links == {}
    assert workers.sites[1].server.hub.relays._uplinks == {}


async def test_a_domain_that_is_not_served_any_more(workers):
    await workers.sites[0].server.remove_host(HOST)
    client = workers.sites[1].connect()
    client.open()
    home = workers.sites[0].server.bus.worker
    workers.sites[1].server.hub.relays.pass_on(client.stream, "nurse", home, b"")
    client.open()
    await workers.settled()
    assert error(client) == "host-gone"


async def test_frames_about_clients_that_nobody_knows_are_answered_with_their_end(workers):
    one, two = (running.server for running in workers.sites)
    seen = []
    one.hub.relays.frame = lambda worker, kind, fields: seen.append((kind, fields))
    two.hub.relays.frame(one.bus.worker, relay.UP, (99, b"<x/>", 1))
    two.hub.relays.frame(one.bus.worker, relay.DOWN, (98, b"<x/>", 1))
    await workers.broker.settled()
    assert seen == [(relay.CLOSE, (99,)), (relay.LOST, (98,))]

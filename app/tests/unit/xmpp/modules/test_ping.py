"""Pings both ways (XEP-0199)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.modules.ping import Ping
from monktalk.xmpp.protocol import namespaces as ns
from tests.support.inproc import HOST, condition, configuration, site

PING = f"<ping xmlns='{ns.PING}'/>"
MODULES = {"ping": Ping}
TIMES = "[modules.ping]\ninterval = '4 s'\ntimeout = '10 s'\n"


@pytest.fixture
async def server():
    async with site(MODULES, TIMES) as running:
        yield running


def pass_time(server, seconds: float) -> None:
    """Let the clocks of connections and server go on; the module looks once a second."""
    module = server.host.modules["ping"]
    for _ in range(int(seconds)):
        server.clock.advance(1)
        for session in server.host.all_sessions():
            if session.link is not None:
                session.link.idle += 1
        module.look()


def pings(client):
    return [node for node in client.stanzas() if node.find(f"{{{ns.PING}}}ping") is not None]


def talk(client) -> None:
    """Something comes from the client."""
    client.link.active += client.link.idle
    client.link.idle = 0


def answer(client, ping) -> None:
    """What a client answers, and what its connection notices."""
    talk(client)
    client.send(f"<iq type='result' id='{ping.get('id')}' to='{HOST}'/>")


@pytest.mark.parametrize("to", [HOST, None, f"romeo@{HOST}"])
async def test_the_server_answers(server, to):
    reply = await server.login("romeo").iq("get", PING, to=to)
    assert (reply.get("type"), len(reply)) == ("result", 0)


async def test_accounts_of_others_do_not_answer(server):
    romeo = server.login("romeo")
    await server.online("juliet")
    for name in ("juliet", "nobody"):
        assert condition(await romeo.iq("get", PING, to=f"{name}@{HOST}")) == "service-unavailable/cancel"


async def test_a_silent_client_is_asked_once(server):
    romeo = server.login("romeo")
    pass_time(server, 3)
    assert not pings(romeo)
    pass_time(server, 6)
    (ping,) = pings(romeo)
    assert (ping.get("type"), ping.get("from"), ping.get("to")) == ("get", HOST, romeo.jid.full)
    assert ping.get("id")


async def test_a_client_that_answers_stays(server):
    romeo = server.login("romeo")
    asked = 0
    for _ in range(40):
        pass_time(server, 1)
        for ping in pings(romeo):
            asked += 1
            answer(romeo, ping)
    assert asked >= 8
    assert not romeo.link.closed


async def test_any_input_counts_as_an_answer(server):
    romeo = server.login("romeo")
    pass_time(server, 5)
    talk(romeo)
    pass_time(server, 13)
    assert not romeo.link.closed


async def test_a_client_that_answers_stays_also_when_it_is_asked_all_the_time():
    async with site(MODULES, "[modules.ping]\ninterval = 1\ntimeout = 1\n") as server:
        romeo = server.login("romeo")
        for _ in range(10):
            pass_time(server, 1)
            (ping,) = pings(romeo)
            answer(romeo, ping)
        assert not romeo.link.closed


async def test_a_client_that_does_not_answer_loses_its_session(server):
    romeo = server.login("romeo")
    pass_time(server, 20)
    assert romeo.link.closed
    error = next(node for node in romeo.stanzas() if node.tag.endswith("}error"))
    assert error[0].tag == f"{{{ns.STREAM_ERRORS}}}connection-timeout"
    assert not server.host.user_sessions("romeo")


async def test_the_idle_time_of_connections_is_kept_to():
    async with site(MODULES, "[modules.ping]\ninterval = 5\ntimeout = 60\n[limits]\nidle_time = 12\n") as server:
        romeo = server.login("romeo")
        pass_time(server, 11)
        assert not romeo.link.closed
        pass_time(server, 3)
        assert romeo.link.closed


async def test_with_stream_management_the_session_can_be_resumed(server):
    romeo = server.login("romeo")
    romeo.send(f"<enable xmlns='{ns.STREAM_MANAGEMENT}' resume='true'/>")
    session = romeo.session
    pass_time(server, 20)
    assert romeo.link.closed
    assert server.host.user_sessions("romeo") == [session]
    assert session.link is None
    pass_time(server, 60)
    session.end("test over")


async def test_a_client_that_talks_is_left_alone(server):
    romeo = server.login("romeo")
    for _ in range(20):
        talk(romeo)
        pass_time(server, 1)
    assert not pings(romeo)


async def test_no_pings_when_switched_off():
    async with site(MODULES, "[modules.ping]\ninterval = 0\n") as server:
        romeo = server.login("romeo")
        pass_time(server, 300)
        assert not pings(romeo)
        assert not romeo.link.closed


async def test_sessions_that_were_there_before_the_module_are_asked_too(server):
    romeo = server.login("romeo")
    server.host.apply(configuration(MODULES, "[modules.ping]\nenabled = false\n"))
    await reload_modules(server.host, MODULES)
    assert condition(await romeo.iq("get", PING, to=HOST)) == "service-unavailable/cancel"
    server.host.apply(configuration(MODULES, TIMES))
    await reload_modules(server.host, MODULES)
    pass_time(server, 6)
    assert len(pings(romeo)) == 1


async def test_another_interval_is_taken_over(server):
    romeo = server.login("romeo")
    server.host.apply(configuration(MODULES, "[modules.ping]\ninterval = '60 s'\n"))
    await reload_modules(server.host, MODULES)
    pass_time(server, 50)
    assert not pings(romeo)
    pass_time(server, 30)
    assert len(pings(romeo)) == 1

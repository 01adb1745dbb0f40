"""The server: hosts come and go, stanzas find their way, everything ends in good order."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.cluster.local import LocalBus
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.core.server import Server
from monktalk.xmpp.net.tls import TlsContexts
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.storage.memory import MemoryStorage
from tests.support.gate import NOW, WAIT, Gate
from tests.support.inproc import HOST, OTHER_HOST, condition, configuration, site

MODULES = {"gate": Gate}
THIRD_HOST = "verona.example"
STREAM_ERROR = "{http://etherx.jabber.org/streams}error"


@pytest.fixture
async def server():
    async with site(MODULES) as running:
        yield running


def chat(to: str, number: str = "1") -> str:
    return f"<message to='{to}' type='chat' id='{number}'><body>hi</body></message>"


def ask(number: str, payload: str) -> str:
    return f"<iq type='get' id='{number}'>{payload}</iq>"


def stream_error(client) -> str:
    [error] = [node for node in client.stanzas() if node.tag == STREAM_ERROR]
    return error[0].tag.rpartition("}")[2]


def gate_of(server, domain: str = HOST) -> Gate:
    module = server.server.hosts[domain].modules["gate"]
    assert isinstance(module, Gate)
    return module


# -- routing -----------------------------------------------------------------------------------------------------------


async def test_stanzas_go_to_other_hosts_of_the_server(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet", host=OTHER_HOST)
    romeo.send(chat(f"juliet@{OTHER_HOST}"))
    assert [node.get("from") for node in juliet.stanzas()] == [romeo.jid.full]


async def test_what_is_for_nobody_here_can_not_be_reached(server):
    romeo = server.login("romeo")
    for stanza in (chat("a@elsewhere.example"), f"<iq type='get' id='1' to='elsewhere.example'>{NOW}</iq>"):
        romeo.send(stanza)
        [answer] = romeo.stanzas()
        assert condition(answer) == "remote-server-not-found/cancel"


@pytest.mark.parametrize("isolated", [HOST, OTHER_HOST])
async def test_isolated_hosts_exchange_nothing_with_others(isolated):
    async with site(MODULES, f"[host.'{isolated}'.sessions]\nisolated = true\n") as server:
        romeo, juliet = server.login("romeo"), await server.online("juliet", host=OTHER_HOST)
        romeo.send(chat(juliet.jid.full))
        juliet.send(chat(romeo.jid.full))
        for client in (romeo, juliet):
            [answer] = client.stanzas()
            assert condition(answer) == "remote-server-not-found/cancel"
        same = await server.online("same")
        romeo.send(chat(same.jid.full))
        assert len(same.stanzas()) == 1


async def test_what_is_for_nobody_in_particular_is_for_the_own_account(server):
    phone, desk = await server.online("romeo", "phone"), server.login("romeo", "desk")
    desk.send("<message type='chat' id='1'><body>note</body></message>")
    assert [node.get("id") for node in phone.stanzas()] == ["1"]


async def test_the_metrics_count_what_is_routed(server):
    romeo, metrics = server.login("romeo"), server.server.metrics
    before = (metrics.messages.value, metrics.iqs.value, metrics.presences.value)
    romeo.send(chat(romeo.jid.full))
    romeo.send(f"<iq type='result' id='1' to='{romeo.jid.full}'/>")
    assert (metrics.messages.value, metrics.iqs.value, metrics.presences.value) == (before[0] + 1, before[1] + 1, 0)


async def test_the_server_reaches_sessions_by_their_full_address(server):
    juliet = server.login("juliet", "balcony")
    assert server.server.send_to(juliet.jid, b"<message id='1'/>") is True
    assert [node.get("id") for node in juliet.stanzas()] == ["1"]
    for nobody in (f"juliet@{HOST}/gone", f"juliet@{HOST}", "a@elsewhere.example/b"):
        assert server.server.send_to(JID.parse(nobody), b"<message/>") is False


async def test_a_sender_hears_that_a_message_could_not_be_delivered_after_all(server):
    romeo = server.login("romeo")
    for raw in (chat("juliet@x", "1"), "<message type='error' to='juliet@x' id='2'/>"):
        stanza = Stanza.from_bytes(raw.encode())
        stanza.attributes["from"] = romeo.jid.full
        stanza.sender = romeo.jid
        server.server.bounce(stanza, StanzaError("resource-constraint"))
    assert [(node.get("id"), condition(node)) for node in romeo.stanzas()] == [("1", "resource-constraint/wait")]


# -- hosts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "found"),
    [
        (HOST, HOST),
        (HOST.upper(), HOST),
        (f"{OTHER_HOST}.", OTHER_HOST),
        ("elsewhere.example", None),
        (f"romeo@{HOST}", None),
        (f"{HOST}/resource", None),
        ("a@b@c", None),
        (None, None),
    ],
)
async def test_streams_are_addressed_to_a_domain(server, to, found):
    host = server.server.host_for(to)
    assert (host.domain if host is not None else None) == found


async def test_a_host_is_added_while_others_run(server):
    romeo = server.login("romeo")
    server.server.config = configuration(MODULES, hosts=(HOST, OTHER_HOST, THIRD_HOST))
    await server.server.add_host(THIRD_HOST)
    mercutio = await server.online("mercutio", host=THIRD_HOST)
    romeo.send(chat(mercutio.jid.full))
    assert len(mercutio.stanzas()) == 1


async def test_a_host_that_is_removed_takes_its_sessions_along(server):
    romeo, juliet = server.login("romeo"), server.login("juliet", host=OTHER_HOST)
    gate = gate_of(server, OTHER_HOST)
    await server.server.remove_host(OTHER_HOST)
    assert stream_error(juliet) == "host-gone"
    assert juliet.link.closed
    assert gate.seen[0].startswith("closed:")
    assert not romeo.link.closed
    romeo.send(chat(f"juliet@{OTHER_HOST}"))
    assert condition(romeo.stanzas()[0]) == "remote-server-not-found/cancel"


async def test_nobody_logs_in_to_a_host_that_was_removed_meanwhile(server):
    waiting = server.connect(OTHER_HOST)
    waiting.open()
    authenticated = server.connect(OTHER_HOST)
    authenticated.open()
    authenticated.stream.authenticated("juliet", b"")
    authenticated.open()
    await server.server.remove_host(OTHER_HOST)
    waiting.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>")
    authenticated.send("<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    assert stream_error(waiting) == stream_error(authenticated) == "host-gone"
    late = server.connect(OTHER_HOST)
    late.open()
    assert stream_error(late) == "host-unknown"


async def test_a_task_of_the_server_may_remove_a_host(server):
    """A reload by signal runs as such a task, and must not wait for its own end."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await server.server.spawn(server.server.remove_host(OTHER_HOST))
    assert loop.time() - began < 2
    assert list(server.server.hosts) == [HOST]


async def test_removing_a_host_cancels_no_work_of_the_others(server, monkeypatch):
    romeo = server.login("romeo")
    romeo.send(ask("1", WAIT))
    settle = server.server._settle
    monkeypatch.setattr(server.server, "_settle", lambda **how: settle(0.01, **how))
    await server.server.remove_host(OTHER_HOST)
    gate_of(server).let_through()
    assert [node.get("id") for node in await romeo.arrived()] == ["1"]


class Broken(Module):
    """Does not start."""

    name = "broken"
    requires = ("gate",)

    async def start(self) -> None:
        """Fail."""
        raise RuntimeError("no coffee")


async def test_a_host_whose_modules_do_not_load_is_not_there(server):
    modules = {"gate": Gate, "broken": Broken}
    server.server.module_types = modules
    server.server.config = configuration(modules, hosts=(HOST, OTHER_HOST, THIRD_HOST))
    with pytest.raises(RuntimeError, match="no coffee"):
        await server.server.add_host(THIRD_HOST)
    assert list(server.server.hosts) == [HOST, OTHER_HOST]


async def test_a_changed_way_of_authentication_is_in_force_after_a_reload(server):
    romeo = server.login("romeo")
    before = server.host.auth
    server.server.config = configuration(MODULES)
    await server.server.reload_host(server.host)
    assert server.host.auth is before
    server.server.config = configuration(MODULES, "[auth]\nurl = 'http://127.0.0.1:1'\n")
    await server.server.reload_host(server.host)
    assert server.host.auth is not before
    assert not romeo.link.closed


async def test_the_default_domain_is_the_first_host(server):
    assert server.server.default_domain == HOST


# -- sessions that are away --------------------------------------------------------------------------------------------


async def away(server) -> None:
    romeo = server.login("romeo")
    romeo.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    romeo.drop()


async def test_a_session_that_is_not_resumed_in_time_ends():
    async with site(MODULES, "[stream_management]\nresume_time = 0.01\n") as server:
        await away(server)
        assert (len(server.host.user_sessions("romeo")), len(server.server.away)) == (1, 1)
        while server.server.away:
            await asyncio.sleep(0.005)
        assert gate_of(server).seen[-1].endswith("not resumed in time")
        assert (server.host.sessions, server.server.resumable) == ({}, {})


async def test_one_timer_asks_all_sessions_for_acknowledgements():
    async with site(MODULES, "[stream_management]\nrequest_delay = 0.1\n") as server:
        clients = [await server.online(user) for user in ("romeo", "juliet")]
        for client in clients:
            client.send("<enable xmlns='urn:xmpp:sm:3'/>")
            client.send(chat(client.jid.bare) + chat(client.jid.bare))
            client.raw()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 5
        while not all(client._read < len(client.link.written) for client in clients):
            assert loop.time() < deadline
            await asyncio.sleep(0.01)
        assert [[node.tag for node in client.stanzas()] for client in clients] == [["{urn:xmpp:sm:3}r"]] * 2


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_stopping_ends_all_sessions_and_finishes_what_is_under_way(server):
    romeo, juliet = server.login("romeo", "orchard"), server.login("juliet", "balcony", host=OTHER_HOST)
    await away(server)
    gate, other = gate_of(server), gate_of(server, OTHER_HOST)
    romeo.send(ask("1", WAIT))
    stopping = asyncio.ensure_future(server.server.stop())
    await asyncio.sleep(0)
    gate.let_through()
    await stopping
    assert stream_error(romeo) == stream_error(juliet) == "system-shutdown"
    assert "wait:1" in gate.seen
    assert "closed:orchard:system-shutdown" in gate.seen
    assert other.seen == ["closed:balcony:stream error: system-shutdown"]
    assert (server.server.away, server.server.resumable, server.server._tasks) == ({}, {}, set())


async def test_work_that_does_not_end_is_cancelled(server):
    romeo = server.login("romeo")
    romeo.send(ask("1", WAIT))
    await asyncio.sleep(0)
    await server.server._settle(0.01)
    assert server.server._tasks == set()


class Farewell(Module):
    """Does something when a session ends, as presence does."""

    name = "farewell"

    @HostHooks.session_closed.handler()
    def closed(self, session, reason) -> None:
        """Work that outlives the session."""
        session.host.server.spawn(self._note(session))

    async def _note(self, session) -> None:
        await asyncio.sleep(0)
        await session.host.server.storage.accounts.add(HOST, f"{session.jid.local}-has-left", 1.0)


async def test_what_modules_do_about_the_end_of_a_session_is_done_before_the_storage_is_closed():
    async with site({"farewell": Farewell}, hosts=(HOST,)) as server:
        server.login("romeo")
        found: list[str] = []
        close = server.storage.close

        async def look_and_close() -> None:
            found.extend(account.user for account in await server.storage.accounts.list(HOST))
            await close()

        server.storage.close = look_and_close
        await server.server.stop()
        assert "romeo-has-left" in found


async def test_a_server_can_be_stopped_that_was_not_started():
    server = Server(configuration({}), {}, MemoryStorage(), LocalBus(), TlsContexts())
    await server.stop()
    assert server.hosts == {}

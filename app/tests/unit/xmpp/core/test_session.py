"""A bound session: what its client may send, what is sent to it, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.core.c2s import ClientStream
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from tests.support.gate import NOW, WAIT, Gate
from tests.support.inproc import HOST, InprocClient, condition, site

MODULES = {"gate": Gate}
SM = "urn:xmpp:sm:3"
KEEPER = f"keeper@{HOST}"
STREAM_ERROR = "{http://etherx.jabber.org/streams}error"


@pytest.fixture
async def server():
    async with site(MODULES, "[limits]\npending_stanzas = 3\n[stream_management]\nqueue = 12\n") as running:
        yield running


@pytest.fixture
def gate(server) -> Gate:
    module = server.host.modules["gate"]
    assert isinstance(module, Gate)
    return module


@pytest.fixture
async def romeo(server) -> InprocClient:
    client: InprocClient = server.login("romeo", "orchard")
    return client


def message(number: str, to: str = KEEPER) -> str:
    return f"<message to='{to}' type='chat' id='{number}'><body>hi</body></message>"


def ask(number: str, payload: str) -> str:
    return f"<iq type='get' id='{number}'>{payload}</iq>"


def ids(client) -> list[str | None]:
    return [node.get("id") for node in client.stanzas()]


def stream_error(client) -> str:
    """The condition of the stream error that the client has just got."""
    [error] = [node for node in client.stanzas() if node.tag == STREAM_ERROR]
    return error[0].tag.rpartition("}")[2]


def acknowledged(client) -> list[str | None]:
    """The counters in the acknowledgements that have just come."""
    return [node.get("h") for node in client.stanzas() if node.tag == f"{{{SM}}}a"]


def manage(client) -> str:
    """Enable stream management; returns the token for resumption."""
    client.send(f"<enable xmlns='{SM}' resume='true'/>")
    [enabled] = client.stanzas()
    return enabled.get("id", "")


def resume(server, token: str, h: int = 0, user: str = "romeo") -> InprocClient:
    client: InprocClient = server.connect()
    client.open()
    client.stream.authenticated(user, b"")
    client.open()
    client.raw()
    client.send(f"<resume xmlns='{SM}' previd='{token}' h='{h}'/>")
    return client


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", ["", " from='romeo@capulet.example/orchard'", " from='Romeo@capulet.example'"])
async def test_the_server_sets_the_sender(server, romeo, claimed):
    juliet = await server.online("juliet")
    romeo.send(f"<message{claimed} to='juliet@{HOST}' type='chat'><body>hi</body></message>")
    [received] = juliet.stanzas()
    assert received.get("from") == romeo.jid.full


@pytest.mark.parametrize("claimed", ["juliet@capulet.example", "romeo@capulet.example/elsewhere", "@@", HOST])
async def test_a_client_that_claims_to_be_somebody_else_is_disconnected(romeo, gate, claimed):
    romeo.send(f"<message from='{claimed}' to='{KEEPER}' id='1'/>")
    assert stream_error(romeo) == "invalid-from"
    assert romeo.link.closed
    assert gate.seen == ["closed:orchard:stream error: invalid-from"]


async def test_a_recipient_that_is_no_address_is_refused(romeo):
    for name in ("message", "presence"):
        romeo.send(f"<{name} to='a@b@c' id='1'/>")
        [answer] = romeo.stanzas()
        assert (condition(answer), answer.get("from")) == ("jid-malformed/modify", "a@b@c")


async def test_the_language_of_the_stream_goes_with_its_stanzas(server):
    juliet = await server.online("juliet")
    client = server.connect()
    client.send(
        f"<stream:stream to='{HOST}' version='1.0' xml:lang='it' xmlns='jabber:client'"
        " xmlns:stream='http://etherx.jabber.org/streams'>"
    )
    client.stream.authenticated("romeo", b"")
    client.send(
        f"<stream:stream to='{HOST}' version='1.0' xml:lang='it' xmlns='jabber:client'"
        " xmlns:stream='http://etherx.jabber.org/streams'>"
    )
    client.send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    client.send(f"<message to='juliet@{HOST}' type='chat' id='1'/>")
    client.send(f"<message to='juliet@{HOST}' type='chat' id='2' xml:lang='fr'/>")
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    assert [node.get(language) for node in juliet.stanzas()] == ["it", "fr"]


async def test_an_iq_needs_an_id(romeo):
    romeo.send(f"<iq type='get'>{NOW}</iq>")
    [answer] = romeo.stanzas()
    assert condition(answer) == "bad-request/modify"


@pytest.mark.parametrize("attributes", ["id='1'", "id='1' type='wrong'", "id='1' type='get'"])
async def test_an_iq_for_somebody_else_has_to_be_well_formed(server, romeo, attributes):
    juliet = server.login("juliet", "balcony")
    romeo.send(f"<iq {attributes} to='{juliet.jid}'/>")
    [answer] = romeo.stanzas()
    assert condition(answer) == "bad-request/modify"
    assert juliet.stanzas() == []


async def test_what_is_no_stanza_ends_the_stream(romeo):
    romeo.send("<conversation xmlns='jabber:client'/>")
    assert stream_error(romeo) == "unsupported-stanza-type"


@pytest.mark.parametrize("element", ["<r xmlns='urn:xmpp:sm:3'/>", "<a xmlns='urn:xmpp:sm:3' h='0'/>"])
async def test_acknowledgements_have_to_be_enabled(romeo, element):
    romeo.send(element)
    assert stream_error(romeo) == "unsupported-stanza-type"


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_module_that_fails_costs_the_stanza_and_not_the_stream(romeo, gate, caplog):
    gate.fault = RuntimeError("a bug")
    romeo.send(message("faulty"))
    [answer] = romeo.stanzas()
    assert (condition(answer), answer.get("id")) == ("internal-server-error/cancel", "faulty")
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["stanza_failed"]
    romeo.send(message("2"))
    assert gate.seen[-1] == "undelivered:keeper:2"
    assert not romeo.link.closed


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [(StorageUnavailable("away"), "resource-constraint/wait"), (StanzaError("forbidden"), "forbidden/auth")],
)
async def test_refusals_of_modules_are_answered(romeo, gate, fault, wanted):
    gate.fault = fault
    romeo.send(message("faulty"))
    [answer] = romeo.stanzas()
    assert condition(answer) == wanted


async def test_a_module_may_end_the_stream(romeo, gate):
    gate.fault = StreamError("policy-violation", "enough")
    romeo.send(message("faulty"))
    assert stream_error(romeo) == "policy-violation"


# -- work that waits ---------------------------------------------------------------------------------------------------


async def test_what_comes_while_work_is_under_way_is_handled_after_it_in_order(server, romeo, gate):
    romeo.send(ask("1", WAIT))
    romeo.send(message("2") + ask("3", NOW))
    romeo.send(message("4"))
    await asyncio.sleep(0)
    assert gate.seen == []
    gate.let_through()
    await server.settled()
    assert [event for event in gate.seen if not event.startswith("undelivered")] == [
        *("wait:1", "message:2", "now:3", "message:4"),
    ]


async def test_a_second_wait_in_the_backlog_holds_up_what_is_behind_it(server, romeo, gate):
    romeo.send(ask("1", WAIT) + ask("2", WAIT) + ask("3", NOW) + ask("4", WAIT) + ask("5", NOW))
    gate.let_through()
    await server.settled()
    assert gate.seen == ["wait:1", "wait:2", "now:3", "wait:4", "now:5"]
    assert ids(romeo) == ["1", "2", "3", "4", "5"]


async def test_a_client_with_too_much_waiting_is_not_read(server, romeo, gate):
    romeo.send(ask("1", WAIT))
    for number in ("2", "3"):
        romeo.send(ask(number, NOW))
    assert not romeo.link.paused
    romeo.send(ask("4", NOW))
    assert romeo.link.paused
    gate.let_through()
    await server.settled()
    assert not romeo.link.paused
    assert ids(romeo) == ["1", "2", "3", "4"]


async def test_a_stanza_may_be_handled_again_after_the_work_that_it_needed(server, romeo, gate):
    romeo.send(message("again") + message("2"))
    assert gate.seen == ["message:again"]
    gate.let_through()
    await server.settled()
    assert gate.seen == [
        *("message:again", "message:again", "undelivered:keeper:again", "message:2", "undelivered:keeper:2"),
    ]


async def test_work_that_fails_for_want_of_the_storage_does_not_stop_the_session(server, romeo, gate):
    romeo.send(message("again") + message("2"))
    gate.fault = StorageUnavailable("away")
    gate.let_through()
    await server.settled()
    assert gate.seen[-1] == "undelivered:keeper:2"
    assert not romeo.link.closed


async def test_work_with_a_bug_does_not_stop_the_session(server, romeo, gate, caplog):
    async def broken() -> None:
        raise RuntimeError("a bug")

    romeo.session.run(broken())
    romeo.send(message("2"))
    await server.settled()
    assert gate.seen == ["message:2", "undelivered:keeper:2"]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["session_work_failed"]


async def test_a_fault_in_the_backlog_ends_the_stream_and_drops_what_is_behind_it(server, romeo, gate):
    romeo.send(ask("1", WAIT) + message("2"))
    romeo.send(f"<message from='juliet@{HOST}' to='{KEEPER}' id='3'/>" + message("4"))
    gate.let_through()
    await server.settled()
    assert stream_error(romeo) == "invalid-from"
    assert gate.seen == [
        *("wait:1", "message:2", "undelivered:keeper:2", "closed:orchard:stream error: invalid-from"),
    ]


async def test_a_bug_met_in_the_backlog_ends_the_stream_and_not_less(server, romeo, monkeypatch, caplog):
    gate = server.host.modules["gate"]
    romeo.send(ask("1", WAIT) + f"<enable xmlns='{SM}'/>" + message("2"))

    def broken(_stream: ClientStream, _element: Stanza) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ClientStream, "session_element", broken)
    gate.let_through()
    await server.settled()
    assert stream_error(romeo) == "internal-server-error"
    assert gate.seen == ["wait:1", "closed:orchard:stream error: internal-server-error"]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["stream_failed"]


# -- the end while work is under way -----------------------------------------------------------------------------------


async def test_what_a_client_sent_before_it_left_is_handled(server, romeo, gate):
    romeo.send(ask("1", WAIT) + message("2") + "</stream:stream>")
    assert romeo.link.closed
    assert gate.seen == []
    gate.let_through()
    await server.settled()
    assert gate.seen == ["wait:1", "message:2", "undelivered:keeper:2", "closed:orchard:closed by the client"]
    assert server.host.sessions == {}


async def test_nothing_is_delivered_to_a_session_that_is_about_to_end(server, gate):
    keeper, romeo = await server.online("keeper", "desk"), server.login("romeo")
    keeper.send(ask("1", WAIT))
    keeper.drop()
    romeo.send(message("lost?"))
    assert gate.seen[-1] == "undelivered:keeper:lost?"
    gate.let_through()
    await server.settled()
    assert gate.seen[-1] == "closed:desk:connection lost"


async def test_its_resource_is_free_at_once(server, romeo, gate):
    romeo.send(ask("1", WAIT))
    romeo.drop()
    again = server.login("romeo", "orchard")
    gate.let_through()
    await server.settled()
    assert server.host.user_sessions("romeo") == [again.session]
    assert gate.seen == ["wait:1", "closed:orchard:connection lost"]


async def test_it_can_not_be_resumed(server, romeo, gate):
    token = manage(romeo)
    romeo.send(ask("1", WAIT) + "</stream:stream>")
    late = resume(server, token)
    [answer] = late.stanzas()
    assert (answer.tag, answer[0].tag) == (f"{{{SM}}}failed", "{urn:ietf:params:xml:ns:xmpp-stanzas}item-not-found")
    gate.let_through()
    await server.settled()
    assert gate.seen[-1] == "closed:orchard:closed by the client"
    assert server.server.resumable == {}


async def test_a_session_that_was_ended_handles_nothing_more(server, romeo, gate):
    romeo.send(ask("1", WAIT) + message("2") + "<presence/>")
    romeo.session.end("kicked")
    gate.let_through()
    await server.settled()
    assert gate.seen == ["closed:orchard:kicked", "wait:1"]


async def test_a_replaced_session_does_not_become_available_later(server, romeo, gate):
    romeo.send(ask("1", WAIT) + "<presence/>")
    new = server.login("romeo", "orchard")
    assert stream_error(romeo) == "conflict"
    gate.let_through()
    await server.settled()
    assert [event for event in gate.seen if event.startswith("presence")] == []
    assert server.host.user_sessions("romeo") == [new.session]


async def test_work_goes_on_while_the_client_is_away_and_its_answer_waits(server, romeo, gate):
    token = manage(romeo)
    romeo.send(ask("1", WAIT) + ask("2", NOW))
    romeo.drop()
    gate.let_through()
    await server.settled()
    assert gate.seen == ["wait:1", "now:2"]
    back = resume(server, token)
    assert ids(back)[1:3] == ["1", "2"]


async def test_a_client_may_come_back_while_its_work_is_under_way(server, romeo, gate):
    token = manage(romeo)
    romeo.send(ask("1", WAIT))
    romeo.drop()
    back = resume(server, token)
    back.send(ask("2", NOW))
    back.raw()
    gate.let_through()
    await server.settled()
    assert ids(back)[:2] == ["1", "2"]
    assert back.session is server.host.user_sessions("romeo")[0]


async def test_a_module_that_fails_at_the_end_of_a_session_leaves_no_traces(server, romeo, gate, caplog):
    def broken(session, reason) -> None:
        raise RuntimeError("a bug")

    manage(romeo)
    juliet = server.login("juliet")
    juliet.send(message("1", romeo.jid.full))
    server.host.hooks.session_closed.add(broken, -1)
    romeo.session.end("test")
    assert (server.host.user_sessions("romeo"), server.server.resumable) == ([], {})
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["hook_failed"]
    [bounced] = juliet.stanzas()
    assert condition(bounced) == "service-unavailable/cancel"


async def test_a_session_ends_once(romeo, gate):
    session = romeo.session
    session.end("first")
    session.end("second")
    assert gate.seen == ["closed:orchard:first"]


# -- stanzas put in the client's mouth ---------------------------------------------------------------------------------


def injected(raw: str) -> Stanza:
    return Stanza.from_bytes(raw.encode())


async def test_an_injected_stanza_is_handled_and_not_counted(romeo, gate):
    manage(romeo)
    romeo.send(message("1"))
    romeo.session.inject(injected(message("2")))
    assert gate.seen[::2] == ["message:1", "message:2"]
    romeo.send(f"<r xmlns='{SM}'/>")
    assert acknowledged(romeo) == ["1"]


async def test_nothing_is_injected_into_a_busy_session(romeo, gate):
    romeo.send(ask("1", WAIT))
    with pytest.raises(StanzaError, match="busy"):
        romeo.session.inject(injected(message("2")))
    gate.let_through()


async def test_only_stanzas_are_injected(romeo):
    with pytest.raises(StreamError, match="unsupported-stanza-type"):
        romeo.session.inject(Stanza("urn:xmpp:sm:3}r", {}, b"<r xmlns='urn:xmpp:sm:3'/>", []))


# -- stream management -------------------------------------------------------------------------------------------------


async def test_acknowledgements_are_taken_while_work_is_under_way(server, romeo, gate):
    manage(romeo)
    juliet = server.login("juliet")
    juliet.send(message("1", romeo.jid.full))
    romeo.send(ask("2", WAIT) + f"<a xmlns='{SM}' h='1'/>")
    assert romeo.session.sm is not None
    assert len(romeo.session.sm.queue) == 0
    gate.let_through()


async def test_the_server_asks_for_an_acknowledgement_after_some_stanzas(server, romeo):
    manage(romeo)
    juliet = server.login("juliet")
    for number in range(4):
        juliet.send(message(str(number), romeo.jid.full))
    assert [node.tag for node in romeo.stanzas()] == ["{jabber:client}message"] * 4
    juliet.send(message("5", romeo.jid.full) + message("6", romeo.jid.full))
    assert [node.tag.rpartition("}")[2] for node in romeo.stanzas()] == ["message", "r", "message"]


async def test_or_after_some_time(server, romeo):
    manage(romeo)
    server.login("juliet").send(message("1", romeo.jid.full))
    romeo.raw()
    romeo.session.request_acknowledgement()
    romeo.session.request_acknowledgement()
    assert [node.tag for node in romeo.stanzas()] == [f"{{{SM}}}r"]
    romeo.send(f"<a xmlns='{SM}' h='1'/>")
    romeo.session.request_acknowledgement()
    assert romeo.stanzas() == []


async def test_a_client_that_never_acknowledges_is_disconnected_and_its_messages_are_kept(server, gate):
    keeper = await server.online("keeper", "desk")
    manage(keeper)
    romeo = server.login("romeo")
    for number in range(13):
        romeo.send(message(str(number)))
    await server.settled()
    assert stream_error(keeper) == "policy-violation"
    assert [event for event in gate.seen if event.startswith("undelivered")] == [
        f"undelivered:keeper:{number}" for number in range(13)
    ]
    assert gate.seen.count("closed:desk:stream error: policy-violation") == 1


async def test_a_client_that_is_away_for_too_many_stanzas_loses_its_session(server, gate):
    keeper = await server.online("keeper", "desk")
    manage(keeper)
    keeper.drop()
    romeo = server.login("romeo")
    for number in range(13):
        romeo.send(message(str(number)))
    await server.settled()
    assert "closed:desk:queue full" in gate.seen
    assert server.host.user_sessions("keeper") == []
    assert server.server.away == {}


async def test_a_stanza_is_acknowledged_when_its_effect_is_durable(romeo):
    manage(romeo)
    session = romeo.session
    romeo.send(message("1"))
    number = session.settle_later()
    romeo.send(message("2") + f"<r xmlns='{SM}'/>")
    assert acknowledged(romeo) == ["0"]
    session.settled(number)
    assert acknowledged(romeo) == ["2"]


async def test_without_stream_management_there_is_nothing_to_settle(romeo):
    number = romeo.session.settle_later()
    assert number is None
    romeo.session.settled(number)
    assert romeo.stanzas() == []


# -- clients that do not keep up ---------------------------------------------------------------------------------------


async def test_whoever_has_much_to_send_waits_for_the_client(server, romeo):
    romeo.link.reading.clear()
    waiting = asyncio.ensure_future(romeo.session.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    romeo.link.reading.set()
    assert await waiting is True


async def test_and_for_its_acknowledgements(server, romeo):
    manage(romeo)
    juliet = server.login("juliet")
    for number in range(6):
        juliet.send(message(str(number), romeo.jid.full))
    assert romeo.session.has_room() is False
    waiting = [asyncio.ensure_future(romeo.session.drained()) for _ in range(2)]
    await asyncio.sleep(0)
    romeo.send(f"<a xmlns='{SM}' h='1'/>")
    assert await asyncio.gather(*waiting) == [True, True]


@pytest.mark.parametrize("end", [InprocClient.drop, lambda client: client.session.end("test")])
async def test_nobody_waits_for_a_client_that_has_gone(server, romeo, end):
    manage(romeo)
    for number in range(6):
        romeo.session.send(message(str(number)).encode())
    waiting = asyncio.ensure_future(romeo.session.drained())
    await asyncio.sleep(0)
    end(romeo)
    assert await waiting is False


async def test_nobody_waits_for_ever():
    async with site(MODULES, "[limits]\nwrite_time = '1 s'\n") as server:
        romeo = server.login("romeo")
        romeo.link.reading.clear()
        assert await romeo.session.drained() is False

"""Requests that the server answers itself."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from tests.support.gate import NOW, NS, WAIT, Gate
from tests.support.inproc import HOST, OTHER_HOST, condition, site

MODULES = {"gate": Gate}
FAIL = f"<fail xmlns='{NS}'/>"
DONE = f"{{{NS}}}done"


@pytest.fixture
async def server():
    async with site(MODULES) as running:
        yield running


@pytest.fixture
def gate(server) -> Gate:
    module = server.host.modules["gate"]
    assert isinstance(module, Gate)
    return module


def request(number: str, payload: str, to: str = "", kind: str = "get") -> str:
    addressed = f" to='{to}'" if to else ""
    return f"<iq type='{kind}' id='{number}'{addressed}>{payload}</iq>"


async def ids(client) -> list[str | None]:
    return [node.get("id") for node in await client.arrived()]


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [None, HOST, f"romeo@{HOST}"])
async def test_a_handler_returns_the_payload_as_a_tree_or_as_bytes_or_nothing(server, gate, to):
    romeo = server.login("romeo")
    gate.let_through()
    tree, raw = await romeo.iq("get", WAIT, to=to), await romeo.iq("get", NOW, to=to)
    empty = await romeo.iq("set", f"<nothing xmlns='{NS}'/>", to=to)
    assert [node.tag for answer in (tree, raw) for node in answer] == [DONE, DONE]
    assert (empty.get("type"), len(empty)) == ("result", 0)
    assert {answer.get("from") for answer in (tree, raw, empty)} == {to}


async def test_the_request_for_a_session_of_old_clients_is_a_formality(server):
    romeo = server.login("romeo")
    answer = await romeo.iq("set", f"<session xmlns='{ns.SESSION}'/>")
    assert (answer.get("type"), len(answer)) == ("result", 0)
    assert condition(await romeo.iq("get", f"<session xmlns='{ns.SESSION}'/>")) == "service-unavailable/cancel"


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        ("", "bad-request/modify"),
        (NOW + NOW, "bad-request/modify"),
        ("<unknown xmlns='urn:example:nobody'/>", "service-unavailable/cancel"),
    ],
)
async def test_what_no_handler_takes_is_refused(server, payload, wanted):
    assert condition(await server.login("romeo").iq("get", payload)) == wanted


@pytest.mark.parametrize("kind", ["result", "error"])
async def test_answers_are_never_answered(server, kind):
    romeo = server.login("romeo")
    romeo.send(f"<iq type='{kind}' id='1' to='{HOST}'/>")
    assert await romeo.arrived() == []


@pytest.mark.parametrize("attributes", ["id='1'", "id='1' type='subscribe'"])
async def test_an_iq_of_no_known_type_is_refused(server, attributes):
    romeo = server.login("romeo")
    romeo.send(f"<iq {attributes}>{NOW}</iq>")
    [answer] = await romeo.arrived()
    assert condition(answer) == "bad-request/modify"


# -- failures ----------------------------------------------------------------------------------------------------------


FAULTS = [
    (StanzaError("forbidden"), "forbidden/auth"),
    (StorageUnavailable("away"), "resource-constraint/wait"),
    (RuntimeError("a bug"), "internal-server-error/cancel"),
]


@pytest.mark.parametrize(("fault", "wanted"), FAULTS)
@pytest.mark.parametrize("payload", [FAIL, WAIT], ids=["at once", "later"])
async def test_a_handler_that_fails_is_answered_for(server, gate, caplog, fault, wanted, payload):
    romeo = server.login("romeo")
    gate.fault = fault
    gate.let_through()
    assert condition(await romeo.iq("get", payload)) == wanted
    assert any(record.exc_info for record in caplog.records) is isinstance(fault, RuntimeError)
    gate.fault = None
    assert (await romeo.iq("get", NOW)).get("type") == "result"


async def test_a_stanza_error_may_carry_a_condition_of_the_application(server, gate):
    gate.fault = StanzaError("not-acceptable", "no", application=b"<why xmlns='urn:example:why'/>", kind="wait")
    answer = await server.login("romeo").iq("get", FAIL)
    assert condition(answer) == "not-acceptable/wait"
    assert answer.find("{jabber:client}error/{urn:example:why}why") is not None


# -- order -------------------------------------------------------------------------------------------------------------


async def test_answers_come_in_the_order_of_the_requests(server, gate):
    romeo = server.login("romeo")
    for number, payload in (("1", WAIT), ("2", NOW), ("3", WAIT), ("4", NOW)):
        romeo.send(request(number, payload))
    await asyncio.sleep(0)
    assert romeo.stanzas() == []
    gate.let_through()
    assert await ids(romeo) == ["1", "2", "3", "4"]
    assert gate.seen == ["wait:1", "now:2", "wait:3", "now:4"]


async def test_a_request_that_waits_keeps_nobody_else_waiting(server, gate):
    romeo, juliet = server.login("romeo"), server.login("juliet")
    romeo.send(request("1", WAIT))
    assert (await answer_of(juliet, NOW)).get("type") == "result"
    gate.let_through()
    assert await ids(romeo) == ["1"]


async def answer_of(client, payload: str):
    """The answer to a request that needs no waiting."""
    client.send(request("now", payload))
    [answer] = client.stanzas()
    return answer


async def test_a_request_to_another_host_of_the_server_is_answered_from_there(server):
    romeo = server.login("romeo")
    other = server.server.hosts[OTHER_HOST].modules["gate"]
    assert isinstance(other, Gate)
    romeo.send(request("1", WAIT, OTHER_HOST))
    romeo.send(request("2", NOW, OTHER_HOST))
    assert [node.get("id") for node in romeo.stanzas()] == ["2"]
    other.let_through()
    [answer] = await romeo.arrived()
    assert (answer.get("id"), answer.get("from"), answer[0].tag) == ("1", OTHER_HOST, DONE)


async def test_the_answer_for_a_session_that_has_ended_is_dropped(server, gate):
    romeo = server.login("romeo", "orchard")
    romeo.send(request("1", WAIT))
    romeo.drop()
    gate.let_through()
    await server.settled()
    assert gate.seen == ["wait:1", "closed:orchard:connection lost"]
    assert server.host.sessions == {}


async def test_a_sender_who_is_known_by_his_address_only_is_answered_over_the_router(server):
    juliet = server.login("juliet", "balcony")
    stanza = Stanza.from_bytes(request("1", NOW, HOST).encode())
    stanza.sender, stanza.recipient = juliet.jid, JID.parse(HOST)
    stanza.attributes["from"] = juliet.jid.full
    server.server.iq.handle(server.host, stanza, None)
    [answer] = juliet.stanzas()
    assert (answer.get("id"), answer.get("to")) == ("1", juliet.jid.full)

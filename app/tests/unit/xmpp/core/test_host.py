"""The session table of a host, and what it delivers to whom."""

from __future__ import annotations

import pytest

from monktalk.common.config import Schema, parse
from monktalk.common.jid import JID
from monktalk.xmpp.core.module import Target
from monktalk.xmpp.core.settings import CORE_SECTIONS
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import Stanza
from tests.support.gate import NOW, NS, Gate
from tests.support.inproc import HOST, OTHER_HOST, condition, site

MODULES = {"gate": Gate}
JULIET = f"juliet@{HOST}"
MESSAGE_TYPES = ("normal", "chat", "headline", "groupchat", "error")


@pytest.fixture
async def server():
    async with site(MODULES) as running:
        yield running


def stanza(raw: str, sender: str = f"romeo@{HOST}/orchard") -> Stanza:
    """A stanza as the router hands it on."""
    found = Stanza.from_bytes(raw.encode())
    found.sender = JID.parse(sender)
    to = found.attributes.get("to")
    found.recipient = JID.parse(to) if to else None
    return found


def message(kind: str, to: str, number: str = "1") -> str:
    return f"<message to='{to}' type='{kind}' id='{number}'><body>hi</body></message>"


async def ids(client) -> list[str | None]:
    return [node.get("id") for node in await client.arrived()]


async def refusal_of(server, raw: str) -> str | None:
    """The condition with which the host refuses a stanza, None when it does not."""
    try:
        server.host.deliver(stanza(raw))
    except StanzaError as error:
        return error.condition
    return None


# -- session table -----------------------------------------------------------------------------------------------------


async def test_sessions_are_found_by_user_and_resource(server):
    desk, phone = server.login("romeo", "desk"), server.login("romeo", "phone")
    server.login("juliet", "balcony")
    assert server.host.user_sessions("romeo") == [desk.session, phone.session]
    assert server.host.user_sessions("nobody") == []
    assert {session.jid.resource for session in server.host.all_sessions()} == {"desk", "phone", "balcony"}
    phone.send("<presence/>")
    assert server.host.available_sessions("romeo") == [phone.session]
    phone.send("</stream:stream>")
    assert server.host.user_sessions("romeo") == [desk.session]


async def test_a_session_whose_place_another_one_has_is_not_removed(server):
    old = server.login("romeo", "desk").session
    new = server.login("romeo", "desk").session
    assert server.host.remove_session(old) is False
    assert server.host.user_sessions("romeo") == [new]
    assert server.host.remove_session(new) is True
    assert server.host.remove_session(new) is False
    assert server.host.sessions == {}


async def test_the_bus_hears_when_the_last_session_of_a_user_has_ended(server, monkeypatch):
    left: list[tuple[str, str]] = []
    bus = server.server.bus
    monkeypatch.setattr(bus, "alone", False, raising=False)
    monkeypatch.setattr(bus, "leave", lambda host, user: left.append((host, user)))
    clients = [server.login("romeo", "desk"), server.login("romeo", "phone")]
    clients[0].send("</stream:stream>")
    assert left == []
    clients[1].send("</stream:stream>")
    assert left == [(HOST, "romeo")]


async def test_sessions_can_end_while_somebody_goes_through_all_of_them(server):
    for resource in ("a", "b", "c"):
        server.login("romeo", resource)
    server.login("juliet")
    for session in server.host.all_sessions():
        session.end("test")
    assert server.host.sessions == {}


# -- messages (RFC 6121, sections 8.5.1 to 8.5.4) ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGE_TYPES)
async def test_a_message_to_a_resource_that_is_there_is_delivered(server, kind):
    juliet = server.login("juliet", "balcony")
    server.host.deliver(stanza(message(kind, f"{JULIET}/balcony")))
    assert await ids(juliet) == ["1"]


@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        ("normal", "service-unavailable"),
        ("chat", "to the others"),
        ("headline", "dropped"),
        ("groupchat", "service-unavailable"),
        ("error", "dropped"),
    ],
)
async def test_a_message_to_a_resource_that_is_gone(server, kind, fate):
    juliet = await server.online("juliet", "chamber")
    refused = await refusal_of(server, message(kind, f"{JULIET}/balcony"))
    arrived = await ids(juliet)
    assert (refused or ("to the others" if arrived else "dropped")) == fate
    assert arrived == (["1"] if fate == "to the others" else [])


@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        ("normal", "delivered"),
        ("chat", "delivered"),
        ("headline", "delivered"),
        ("groupchat", "service-unavailable"),
        ("error", "dropped"),
    ],
)
async def test_a_message_to_an_account_goes_to_every_session_that_takes_messages(server, kind, fate):
    available = [await server.online("juliet", name) for name in ("balcony", "chamber")]
    hidden, negative = server.login("juliet", "hidden"), await server.online("juliet", "negative")
    negative.session.priority = -1
    refused = await refusal_of(server, message(kind, JULIET))
    arrived = [await ids(client) for client in available]
    assert arrived == ([["1"], ["1"]] if fate == "delivered" else [[], []])
    assert refused == ("service-unavailable" if fate == "service-unavailable" else None)
    assert await ids(hidden) == await ids(negative) == []


@pytest.mark.parametrize(("kind", "kept"), [("normal", True), ("chat", True), ("headline", False), ("error", False)])
async def test_a_message_to_an_account_that_is_offline_is_left_to_the_modules(server, kind, kept):
    assert await refusal_of(server, message(kind, f"keeper@{HOST}")) is None
    assert server.host.modules["gate"].seen == (["undelivered:keeper:1"] if kept else [])


async def test_a_message_that_nobody_takes_is_refused(server):
    assert await refusal_of(server, message("chat", JULIET)) == "service-unavailable"
    assert await refusal_of(server, message("chat", f"{JULIET}/gone")) == "service-unavailable"


async def test_a_message_to_the_host_is_for_the_modules(server):
    assert await refusal_of(server, message("chat", HOST)) == "service-unavailable"
    server.host.hooks.host_message.add(lambda given: given.id == "1")
    assert await refusal_of(server, message("chat", HOST)) is None
    assert await refusal_of(server, message("chat", HOST, "2")) == "service-unavailable"


async def test_modules_may_change_or_swallow_messages_before_they_are_delivered(server):
    juliet = await server.online("juliet", "balcony")

    def transform(given, user):
        assert user == "juliet"
        return None if given.id == "swallowed" else given.with_attributes(id=f"{given.id}-changed")

    server.host.hooks.incoming_message.add(transform)
    server.host.deliver(stanza(message("chat", JULIET)))
    server.host.deliver(stanza(message("chat", f"{JULIET}/balcony", "swallowed")))
    assert await ids(juliet) == ["1-changed"]


async def test_a_recipient_who_does_not_acknowledge_is_no_problem_of_the_sender():
    """The queue of a session overflows while a message is delivered to all sessions of the account."""
    text = "[stream_management]\nqueue = 10\n"
    async with site(MODULES, text, hosts=(HOST,)) as server:
        romeo = server.login("romeo")
        lazy, busy = await server.online("keeper", "lazy"), await server.online("keeper", "busy")
        lazy.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        for number in range(12):
            romeo.send(message("chat", f"keeper@{HOST}", str(number)))
            await server.settled()
        assert await ids(romeo) == []
        assert romeo.link.closed is False
        assert await ids(busy) == [str(number) for number in range(12)]
        assert lazy.link.closed is True
        assert server.host.user_sessions("keeper") == [busy.session]


# -- presence ----------------------------------------------------------------------------------------------------------


async def test_presence_goes_to_the_resource_or_to_all_that_are_available(server):
    balcony, chamber = await server.online("juliet", "balcony"), await server.online("juliet", "chamber")
    hidden = server.login("juliet", "hidden")
    server.host.deliver(stanza(f"<presence to='{JULIET}/hidden' id='1'/>"))
    server.host.deliver(stanza(f"<presence to='{JULIET}' id='2' type='unavailable'/>"))
    server.host.deliver(stanza(f"<presence to='{JULIET}/gone' id='3'/>"))
    server.host.deliver(stanza(f"<presence to='nobody@{HOST}' id='4'/>"))
    assert (await ids(hidden), await ids(balcony), await ids(chamber)) == (["1"], ["2"], ["2"])


async def test_presence_that_a_module_deals_with_is_not_delivered(server):
    juliet = await server.online("juliet")
    server.host.hooks.incoming_presence.add(lambda given: given.type == "subscribe")
    server.host.deliver(stanza(f"<presence to='{JULIET}' type='subscribe'/>"))
    assert await juliet.arrived() == []


# -- requests ----------------------------------------------------------------------------------------------------------


async def test_a_request_to_a_resource_is_delivered_or_refused(server):
    juliet = server.login("juliet", "balcony")
    request = f"<iq type='get' id='1' to='{JULIET}/{{}}'>{NOW}</iq>"
    server.host.deliver(stanza(request.format("balcony")))
    assert await ids(juliet) == ["1"]
    assert await refusal_of(server, request.format("gone")) == "service-unavailable"


async def test_a_module_may_deal_with_a_request_for_a_session_or_refuse_it(server):
    juliet = server.login("juliet", "balcony")

    def look(given, session):
        assert session is juliet.session
        if given.id == "refused":
            raise StanzaError("forbidden")
        return given.id == "dealt with"

    server.host.hooks.incoming_iq.add(look)
    for number in ("1", "dealt with", "refused"):
        request = f"<iq type='get' id='{number}' to='{JULIET}/balcony'>{NOW}</iq>"
        assert await refusal_of(server, request) == ("forbidden" if number == "refused" else None)
    assert await ids(juliet) == ["1"]


@pytest.mark.parametrize(
    ("to", "target"),
    [
        (None, Target.SELF),
        (f"romeo@{HOST}", Target.SELF),
        (JULIET, Target.USER),
        (HOST, Target.HOST),
        (f"{HOST}/resource", Target.HOST),
    ],
)
async def test_the_address_tells_whom_a_request_is_for(server, to, target):
    addressed = f" to='{to}'" if to else ""
    assert server.host.target_of(stanza(f"<iq type='get' id='1'{addressed}>{NOW}</iq>")) is target


async def test_a_request_to_an_account_is_answered_on_its_behalf(server):
    romeo = server.login("romeo")
    answer = await romeo.iq("get", NOW, to=JULIET)
    assert (answer.get("type"), answer[0].tag) == ("result", f"{{{NS}}}done")
    assert condition(await romeo.iq("get", f"<other xmlns='{NS}'/>", to=JULIET)) == "service-unavailable/cancel"


# -- configuration -----------------------------------------------------------------------------------------------------


async def test_administrators_are_those_of_the_host_itself(server):
    general = f"[general]\nhosts = ['{HOST}', '{OTHER_HOST}']\n"
    text = f"{general}administrators = ['Admin@{HOST}', 'boss@{OTHER_HOST}']\n"
    config = parse(text, "test", Schema([*CORE_SECTIONS, Gate.section()]))
    host, other = server.host, server.server.hosts[OTHER_HOST]
    for each in (host, other):
        each.apply(config)
    assert host.is_administrator(JID.parse(f"admin@{HOST}/desk"))
    assert not host.is_administrator(JID.parse(f"boss@{OTHER_HOST}"))
    assert not host.is_administrator(JID.parse(f"romeo@{HOST}"))
    assert other.is_administrator(JID.parse(f"boss@{OTHER_HOST}"))


async def test_options_can_differ_between_hosts():
    text = f"[host.'{OTHER_HOST}'.sessions]\nisolated = true\nresource_conflict = 'refuse_new'\n"
    async with site({}, text) as server:
        host, other = server.host, server.server.hosts[OTHER_HOST]
        assert (host.isolated, host.resource_conflict) == (False, "close_old")
        assert (other.isolated, other.resource_conflict) == (True, "refuse_new")
        assert other.settings("sessions").isolated is True

"""Resource binding, and enabling and resuming stream management."""

from __future__ import annotations

import pytest

from tests.support.inproc import HOST, OTHER_HOST, InprocClient, condition, site

SM = "urn:xmpp:sm:3"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
STREAM_ERROR = "{http://etherx.jabber.org/streams}error"


@pytest.fixture
async def server():
    async with site({}) as running:
        yield running


def authenticated(server, user: str = "romeo", host: str = HOST) -> InprocClient:
    client: InprocClient = server.connect(host)
    client.open()
    client.stream.authenticated(user, b"")
    client.open()
    client.raw()
    return client


def bind(client, resource: str | None = None):
    """Ask for a resource; the answer."""
    wanted = "" if resource is None else f"<resource>{resource}</resource>"
    client.send(f"<iq type='set' id='b'><bind xmlns='{BIND}'>{wanted}</bind></iq>")
    [answer] = client.stanzas()
    return answer


def bound(answer) -> str:
    assert answer.get("type") == "result"
    return answer.findtext(f"{{{BIND}}}bind/{{{BIND}}}jid") or ""


def stream_error(client) -> str:
    [error] = [node for node in client.stanzas() if node.tag == STREAM_ERROR]
    return error[0].tag.rpartition("}")[2]


def manage(client, attributes: str = "resume='true'"):
    """Enable stream management; the answer."""
    client.send(f"<enable xmlns='{SM}' {attributes}/>")
    [answer] = client.stanzas()
    return answer


def resume(server, token: str, h: str = "0", user: str = "romeo", host: str = HOST):
    """A new connection that resumes; with what came for it."""
    client = authenticated(server, user, host)
    client.send(f"<resume xmlns='{SM}' previd='{token}' h='{h}'/>")
    return client, client.stanzas()


def refusal(answer) -> str:
    """The condition in ``<failed/>``."""
    assert answer.tag == f"{{{SM}}}failed"
    name: str = answer[0].tag.rpartition("}")[2]
    return name


# -- binding -----------------------------------------------------------------------------------------------------------


async def test_a_client_gets_the_resource_that_it_asks_for(server):
    client = authenticated(server)
    assert bound(bind(client, "orchard")) == f"romeo@{HOST}/orchard"
    assert server.host.user_sessions("romeo") == [client.session]


@pytest.mark.parametrize("wanted", [None, ""])
async def test_a_client_that_asks_for_none_gets_one_that_nobody_guesses(server, wanted):
    given = {bound(bind(authenticated(server), wanted)).partition("/")[2] for _ in range(3)}
    assert len(given) == 3
    assert all(len(resource) >= 12 for resource in given)


async def test_a_resource_is_prepared(server):
    assert bound(bind(authenticated(server), "a\u00a0b")) == f"romeo@{HOST}/a b"


@pytest.mark.parametrize("wanted", ["a\u0009b", "x" * 1024])
async def test_what_can_be_no_resource_is_refused(server, wanted):
    client = authenticated(server)
    assert condition(bind(client, wanted)) == "bad-request/modify"
    assert bound(bind(client, "orchard"))


@pytest.mark.parametrize(
    "request_",
    [
        f"<iq type='get' id='1'><bind xmlns='{BIND}'/></iq>",
        "<iq type='set' id='1'><query xmlns='jabber:iq:roster'/></iq>",
        f"<iq type='set' id='1'><bind xmlns='{BIND}'/><bind xmlns='{BIND}'/></iq>",
        "<presence/>",
    ],
)
async def test_nothing_else_is_handled_before(server, request_):
    client = authenticated(server)
    client.send(request_)
    assert stream_error(client) == "not-authorized"


async def test_a_stream_has_one_resource(server):
    client = authenticated(server)
    bind(client, "orchard")
    client.send(f"<iq type='set' id='b'><bind xmlns='{BIND}'/></iq>")
    [answer] = client.stanzas()
    assert condition(answer) == "service-unavailable/cancel"
    assert len(server.host.user_sessions("romeo")) == 1


# -- conflicts (RFC 6120, 7.7.2.2) -------------------------------------------------------------------------------------


async def test_a_new_session_replaces_the_old_one_that_has_its_resource(server):
    old, new = server.login("romeo", "orchard"), authenticated(server)
    assert bound(bind(new, "orchard")) == f"romeo@{HOST}/orchard"
    assert stream_error(old) == "conflict"
    assert server.host.user_sessions("romeo") == [new.session]


async def test_and_one_that_only_waits_to_be_resumed(server):
    old = server.login("romeo", "orchard")
    token = manage(old).get("id")
    old.drop()
    new = server.login("romeo", "orchard")
    assert server.host.user_sessions("romeo") == [new.session]
    assert server.server.away == {}
    assert refusal(resume(server, token)[1][0]) == "item-not-found"


async def test_a_host_may_refuse_the_new_one():
    async with site({}, "[sessions]\nresource_conflict = 'refuse_new'\n") as server:
        old, new = server.login("romeo", "orchard"), authenticated(server)
        assert condition(bind(new, "orchard")) == "conflict/modify"
        assert server.host.user_sessions("romeo") == [old.session]
        assert bound(bind(new, "garden"))


async def test_or_give_it_another_resource():
    async with site({}, "[sessions]\nresource_conflict = 'rename_new'\n") as server:
        server.login("romeo", "orchard")
        given = bound(bind(authenticated(server), "orchard"))
        assert given.startswith(f"romeo@{HOST}/orchard.")
        long = "x" * 1023
        assert bound(bind(authenticated(server), long)) == f"romeo@{HOST}/{long}"
        assert bound(bind(authenticated(server), long)).startswith(f"romeo@{HOST}/xxx")


async def test_an_account_has_so_many_sessions_and_no_more():
    async with site({}, "[limits]\nsessions_per_account = 2\n") as server:
        first = server.login("romeo", "one")
        server.login("romeo", "two")
        late = authenticated(server)
        assert condition(bind(late, "three")) == "resource-constraint/wait"
        assert bound(bind(authenticated(server, "juliet")))
        first.send("</stream:stream>")
        assert bound(bind(late, "three"))


async def test_a_session_whose_client_is_away_makes_room():
    async with site({}, "[limits]\nsessions_per_account = 2\n") as server:
        away, there = server.login("romeo", "away"), server.login("romeo", "there")
        manage(away)
        away.drop()
        new = server.login("romeo", "new")
        assert server.host.user_sessions("romeo") == [there.session, new.session]


# -- enabling stream management ----------------------------------------------------------------------------------------


async def test_a_client_enables_resumption(server):
    answer = manage(server.login("romeo"))
    assert (answer.tag, answer.get("resume"), answer.get("max")) == (f"{{{SM}}}enabled", "true", "600")
    assert len(answer.get("id", "")) >= 20


@pytest.mark.parametrize("attributes", ["", "resume='false'"])
async def test_or_acknowledgements_alone(server, attributes):
    romeo = server.login("romeo")
    assert manage(romeo, attributes).attrib == {}
    romeo.drop()
    assert server.host.sessions == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[stream_management]\nresume_time = 0\n", "enabled"),
        ("[stream_management]\nenabled = false\n", "feature-not-implemented"),
    ],
)
async def test_the_configuration_may_take_it_away(text, wanted):
    async with site({}, text) as server:
        answer = manage(server.login("romeo"))
        assert answer.attrib == {}
        assert (refusal(answer) if len(answer) else answer.tag.rpartition("}")[2]) == wanted


async def test_it_is_enabled_once_and_behind_binding(server):
    early = authenticated(server)
    assert refusal(manage(early)) == "unexpected-request"
    bind(early)
    manage(early)
    assert refusal(manage(early)) == "unexpected-request"
    assert not early.link.closed


# -- resuming ----------------------------------------------------------------------------------------------------------


async def test_a_lost_session_is_resumed_with_what_it_missed(server):
    romeo, juliet = server.login("romeo", "orchard"), server.login("juliet")
    token = manage(romeo).get("id")
    for number in ("1", "2"):
        juliet.send(f"<message to='romeo@{HOST}/orchard' type='chat' id='{number}'/>")
    session = romeo.session
    romeo.drop()
    juliet.send(f"<message to='romeo@{HOST}/orchard' type='chat' id='3'/>")
    back, answers = resume(server, token, "1")
    assert back.session is session
    assert (answers[0].tag, answers[0].get("previd"), answers[0].get("h")) == (f"{{{SM}}}resumed", token, "0")
    assert [node.get("id") for node in answers[1:]] == ["2", "3", None]
    assert answers[-1].tag == f"{{{SM}}}r"
    assert (server.server.away, session.peer) == ({}, back.link.peer)


async def test_the_server_tells_how_much_it_has_handled(server):
    romeo = server.login("romeo")
    token = manage(romeo).get("id")
    romeo.send("<message to='juliet@elsewhere.example'/><message to='juliet@elsewhere.example'/>")
    romeo.drop()
    _, answers = resume(server, token)
    assert answers[0].get("h") == "2"


async def test_a_session_may_be_taken_over_from_a_connection_that_seems_to_live(server):
    romeo = server.login("romeo", "orchard")
    token = manage(romeo).get("id")
    session = romeo.session
    back, answers = resume(server, token)
    assert answers[0].tag == f"{{{SM}}}resumed"
    assert stream_error(romeo) == "conflict"
    assert romeo.link.closed
    assert server.host.user_sessions("romeo") == [session]
    back.send(f"<message to='{session.jid}' type='chat' id='1'/>")
    assert [node.get("id") for node in back.stanzas()][-1] == "1"
    romeo.drop()
    assert server.host.user_sessions("romeo") == [session]


async def test_what_follows_goes_over_the_new_connection(server):
    romeo = server.login("romeo", "orchard")
    token = manage(romeo).get("id")
    romeo.drop()
    back, _ = resume(server, token)
    back.send(f"<message to='romeo@{HOST}/orchard' type='chat' id='1'/><r xmlns='{SM}'/>")
    answers = back.stanzas()
    assert [node.get("id") for node in answers if node.tag == "{jabber:client}message"] == ["1"]
    assert [node.get("h") for node in answers if node.tag == f"{{{SM}}}a"] == ["1"]


@pytest.mark.parametrize(("user", "host"), [("juliet", HOST), ("romeo", OTHER_HOST)])
async def test_nobody_resumes_the_session_of_somebody_else(server, user, host):
    romeo = server.login("romeo")
    token = manage(romeo).get("id")
    thief, [answer] = resume(server, token, user=user, host=host)
    assert refusal(answer) == "item-not-found"
    assert not romeo.link.closed
    assert bound(bind(thief))


async def test_what_can_not_be_resumed_may_be_bound_anew(server):
    romeo, [answer] = resume(server, "no such token")
    assert refusal(answer) == "item-not-found"
    assert bound(bind(romeo))


@pytest.mark.parametrize("h", ["1", "x", "-1"])
async def test_a_counter_that_can_not_be_ends_the_new_stream_and_not_the_session(server, h):
    romeo = server.login("romeo")
    token = manage(romeo).get("id")
    romeo.drop()
    _, answers = resume(server, token, h)
    assert answers[0].tag == STREAM_ERROR
    assert len(server.host.user_sessions("romeo")) == 1
    assert resume(server, token)[1][0].tag == f"{{{SM}}}resumed"


async def test_resuming_is_for_streams_that_are_not_bound(server):
    romeo = server.login("romeo", "orchard")
    token = manage(romeo).get("id")
    other = server.login("romeo", "garden")
    other.send(f"<resume xmlns='{SM}' previd='{token}' h='0'/>")
    [answer] = other.stanzas()
    assert refusal(answer) == "unexpected-request"
    assert not romeo.link.closed


async def test_modules_hear_of_a_resumed_session(server):
    heard: list[object] = []
    server.host.hooks.session_resumed.add(heard.append)
    romeo = server.login("romeo")
    session, token = romeo.session, manage(romeo).get("id")
    romeo.drop()
    resume(server, token)
    assert heard == [session]


async def test_a_module_that_fails_when_a_session_is_bound_leaves_no_session(server):
    def broken(_session) -> None:
        raise RuntimeError("a bug")

    server.host.hooks.session_bound.add(broken)
    client = authenticated(server)
    client.send(f"<iq type='set' id='b'><bind xmlns='{BIND}'/></iq>")
    assert stream_error(client) == "internal-server-error"
    assert server.host.sessions == {}

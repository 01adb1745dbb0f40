"""Resource binding (RFC 6120 section 7), conflicts, and the legacy session request."""

from __future__ import annotations

import pytest

from tests.support.client import BIND
from tests.support.stanzas import condition_of

SESSION = "urn:ietf:params:xml:ns:xmpp-session"


async def test_the_server_makes_a_resource(server, account):
    romeo = account("romeo")
    first, second = await server.login(romeo), await server.login(romeo)
    assert first.bare == romeo.jid
    assert first.resource != second.resource
    assert len(first.resource) >= 8, "hard to guess, RFC 6120, 7.6"


async def test_empty_resource_is_made_by_the_server(server, account):
    client = await server.login(account("romeo"), "")
    assert client.resource


async def test_the_client_chooses(server, account):
    client = await server.login(account("romeo"), "orchard")
    assert client.resource == "orchard"


@pytest.mark.parametrize("resource", ["Café del Mar", "a/b@c", "🎭", "balcony &amp; garden"])
async def test_resources_may_be_almost_anything(server, account, resource):
    client = await server.login(account("romeo"), resource)
    assert client.resource == resource.replace("&amp;", "&")
    await client.send(f"<message to='{client.bare}/{resource}'><body>x</body></message>")
    assert (await client.next()).get("from") == client.full


async def test_resources_are_case_sensitive(server, account):
    romeo = account("romeo")
    upper, lower = await server.login(romeo, "Home"), await server.login(romeo, "home")
    await upper.settled()
    await lower.settled()
    assert upper.full != lower.full


@pytest.mark.parametrize("resource", ["x" * 1024, "tab\there", "next\u0085line"])
async def test_resources_that_are_not_allowed(server, account, resource):
    client = await server.authenticated(account("romeo"))
    answer = await client.set(f"<bind xmlns='{BIND}'><resource>{resource}</resource></bind>")
    assert condition_of(answer) in ("bad-request", "jid-malformed")
    await client.bind("good")


async def test_conflict_closes_the_old_session(server, account):
    romeo = account("romeo")
    old = await server.online(romeo, "home")
    new = await server.login(romeo, "home")
    await old.stream_error("conflict")
    assert new.resource == "home"
    await new.settled()


async def test_conflict_keeps_the_old_session(server_with, account):
    server = server_with({"sessions": {"resource_conflict": "refuse_new"}})
    romeo = account("romeo")
    old = await server.online(romeo, "home")
    new = await server.authenticated(romeo)
    answer = await new.set(f"<bind xmlns='{BIND}'><resource>home</resource></bind>")
    assert condition_of(answer) == "conflict"
    await new.bind("work")
    await old.settled()


async def test_conflict_renames_the_new_session(server_with, account):
    server = server_with({"sessions": {"resource_conflict": "rename_new"}})
    romeo = account("romeo")
    old, new = await server.online(romeo, "home"), await server.login(romeo, "home")
    assert new.full != old.full
    assert new.bare == old.bare
    await old.settled()
    await new.settled()


async def test_contacts_hear_of_the_replaced_session_and_of_the_new_one(server, account):
    romeo, juliet = account("romeo"), await server.online(account("juliet"))
    old = await server.online(romeo, "home")
    await old.send(f"<presence to='{juliet.bare}'/>")
    await juliet.receives(f"<presence from='{old.full}' to='{juliet.bare}'/>")
    await server.login(romeo, "home")
    await juliet.receives(f"<presence type='unavailable' from='{old.full}' to='{juliet.bare}'>{{more}}</presence>")


async def test_one_resource_in_two_hosts(server, auth, account):
    here = account("romeo")
    there = type(here)(here.user, "other.example", "sesame")
    auth.insert(there)
    one, other = await server.login(here, "home"), await server.login(there, "home")
    await one.settled()
    await other.settled()


async def test_the_legacy_session_request(server, account):
    """RFC 3921, 3: old clients ask for a session after binding; it does nothing."""
    client = await server.authenticated(account("romeo"))
    session = client.feature(SESSION, "session")
    assert session is not None
    assert session.find(f"{{{SESSION}}}optional") is not None
    await client.bind()
    answer = await client.set(f"<session xmlns='{SESSION}'/>")
    assert answer.get("type") == "result"
    answer = await client.set(f"<session xmlns='{SESSION}'/>", to="localhost")
    assert answer.get("type") == "result"


async def test_as_many_sessions_as_allowed(server_with, account):
    server = server_with({"limits": {"sessions_per_account": 2}})
    romeo = account("romeo")
    first = await server.login(romeo)
    await server.login(romeo)
    third = await server.authenticated(romeo)
    answer = await third.set(f"<bind xmlns='{BIND}'/>")
    assert condition_of(answer) == "resource-constraint"
    await first.end()
    await third.bind()


@pytest.mark.parametrize(
    "request_xml",
    [
        f"<iq type='get' id='1'><bind xmlns='{BIND}'/></iq>",
        "<iq type='set' id='1'><query xmlns='jabber:iq:roster'/></iq>",
        "<presence/>",
    ],
)
async def test_something_else_instead_of_bind(server, account, request_xml):
    client = await server.authenticated(account("romeo"))
    await client.send(request_xml)
    await client.stream_error("not-authorized")

"""Resumption of streams (XEP-0198), and what becomes of stanzas that nobody has acknowledged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.accounts import Account
from tests.support.client import Client, befriend
from tests.support.matching import SM, STREAM, matches, show
from tests.support.server import Server
from tests.support.sm import SHORT, bodies, cannot_resume, enable, managed, message, resume
from tests.support.stanzas import condition_of

# ------------------------------------------------------------------------------------------------- resumption


async def test_ids_are_long_and_differ(server, account):
    tokens = {(await managed(server, account))[1] for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) >= 22 for token in tokens), "128 bits"


@pytest.mark.parametrize("how", ["dropped", "still open"])
async def test_resume_on_a_new_connection(server, account, how):
    romeo = await server.login(account("romeo"))
    juliet, token = await managed(server, account)
    if how == "dropped":
        juliet.drop()
    again = await resume(server, juliet, token, 1)
    if how == "still open":
        await juliet.stream_error("conflict")
    await romeo.send(message("welcome back", juliet.bare) + message("indeed", juliet.full))
    await again.receives(message("welcome back", juliet.bare, romeo.full))
    await again.receives(message("indeed", juliet.full, romeo.full))
    await again.send(message("thanks", romeo.full))
    await romeo.receives(message("thanks", romeo.full, juliet.full))


async def test_contacts_do_not_notice(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    token = await enable(juliet)
    await juliet.available()
    await romeo.available()
    await romeo.drained()
    juliet.drop()
    again = await resume(server, juliet, token, 0)
    await again.settled()
    await romeo.receives_nothing()
    await again.send("<presence><show>away</show></presence>")
    await romeo.receives(f"<presence from='{juliet.full}' to='{romeo.bare}'><show>away</show></presence>")


async def test_what_was_lost_comes_again_exactly_once(server, account):
    romeo = await server.login(account("romeo"))
    juliet, token = await managed(server, account)
    for number in range(5):
        await romeo.send(message(str(number), juliet.full))
    for number in range(3):
        await juliet.receives(message(str(number), juliet.full, romeo.full))
    juliet.drop()  # 3 and 4 are on the wire or in a buffer; the client never saw them
    again = await resume(server, juliet, token, 1 + 3)
    await romeo.send(message("5", juliet.full))
    for number in range(3, 6):
        await again.receives(message(str(number), juliet.full, romeo.full))
    await again.receives_nothing(after=[romeo])


async def test_what_comes_while_the_client_is_away_waits(server, account):
    romeo = await server.login(account("romeo"))
    juliet, token = await managed(server, account)
    juliet.drop()
    texts = [str(number) for number in range(10)]
    for text in texts:
        await romeo.send(message(text, juliet.bare))
    await romeo.settled()
    again = await resume(server, juliet, token, 1)
    assert bodies(await again.drained()) == texts


async def test_twice_in_a_row(server, account):
    romeo = await server.login(account("romeo"))
    juliet, token = await managed(server, account)
    await romeo.send(message("1", juliet.full) + message("2", juliet.full))
    await romeo.settled()
    client, handled = juliet, 1
    for _ in range(3):
        client.drop()
        client = await resume(server, juliet, token, handled)
        assert bodies(await client.drained()) == ["1", "2"], "not acknowledged yet"
    client.drop()
    client = await resume(server, juliet, token, handled + 2)
    assert bodies(await client.drained()) == []


async def test_the_client_learns_what_the_server_has_handled(server, account):
    """So that the client sends again what was lost on the way to the server, and nothing twice."""
    romeo = await server.online(account("romeo"))
    juliet, token = await managed(server, account)
    await juliet.send(message("1", romeo.full) + message("2", romeo.full))
    await romeo.receives(message("1", romeo.full, juliet.full))
    await romeo.receives(message("2", romeo.full, juliet.full))
    juliet.drop()
    again = await resume(server, juliet, token, 1)
    assert again.handled == 3, "presence and two messages"
    await again.send(message("3", romeo.full))
    await romeo.receives(message("3", romeo.full, juliet.full))


async def test_requests_and_presence_are_redelivered_too(server, account):
    romeo = await server.login(account("romeo"))
    juliet, token = await managed(server, account)
    juliet.drop()
    await romeo.send(f"<iq type='get' id='q' to='{juliet.full}'><ping xmlns='urn:xmpp:ping'/></iq>")
    await romeo.send(f"<presence to='{juliet.full}'/>")
    await romeo.settled()
    again = await resume(server, juliet, token, 1)
    await again.receives(
        f"<iq type='get' id='q' from='{romeo.full}' to='{juliet.full}'><ping xmlns='urn:xmpp:ping'/></iq>"
    )
    await again.receives(f"<presence from='{romeo.full}' to='{juliet.full}'/>")


async def test_resume_over_tls_what_began_in_clear(server, account):
    juliet, token = await managed(server, account)
    juliet.drop()
    client = await server.authenticated(juliet.account, "direct")
    await client.send(f"<resume xmlns='{SM}' previd='{token}' h='1'/>")
    await client.receives(f"<resumed xmlns='{SM}' previd='{token}' h='{{any}}'/>")


async def test_resume_by_somebody_else(server, account):
    juliet, token = await managed(server, account)
    juliet.drop()
    thief = await cannot_resume(server, account("tybalt"), token)
    await thief.bind()
    await resume(server, juliet, token, 1)


async def test_resume_by_the_same_name_in_another_host(server, auth, account):
    juliet, token = await managed(server, account)
    juliet.drop()
    namesake = Account(juliet.user, "other.example", "sesame")
    auth.insert(namesake)
    await cannot_resume(server, namesake, token)
    await resume(server, juliet, token, 1)


async def test_resume_without_authentication(server, account):
    juliet, token = await managed(server, account)
    juliet.drop()
    client = await server.stream()
    await client.send(f"<resume xmlns='{SM}' previd='{token}' h='1'/>")
    await client.stream_error()


@pytest.mark.parametrize("token", ["", "unknown", "x" * 2000])
async def test_unknown_id(server, account, token):
    client = await cannot_resume(server, account("romeo"), token)
    await client.bind()


async def test_resume_without_an_id(server, account):
    client = await server.authenticated(account("romeo"))
    await client.send(f"<resume xmlns='{SM}'/>")
    answer = await client.next()
    assert matches(answer, f"<failed xmlns='{SM}'>{{more}}</failed>") or answer.tag == f"{{{STREAM}}}error"


async def test_a_session_that_was_closed_in_good_order_is_gone(server, account):
    juliet, token = await managed(server, account)
    await juliet.end()
    await cannot_resume(server, juliet.account, token)


async def test_a_session_that_was_not_resumable_is_gone(server, account):
    juliet = await server.login(account("juliet"))
    await juliet.send(f"<enable xmlns='{SM}'/>")
    await juliet.receives(f"<enabled xmlns='{SM}'/>")
    await juliet.available()
    romeo = await server.online(account("romeo"))
    await romeo.send(f"<presence to='{juliet.full}'/>")
    await juliet.send(f"<presence to='{romeo.full}'/>")
    await romeo.receives(f"<presence from='{juliet.full}' to='{romeo.full}'/>")
    juliet.drop()
    await romeo.receives(f"<presence type='unavailable' from='{juliet.full}' to='{romeo.full}'>{{more}}</presence>")


# ------------------------------------------------------------------------------------ when nobody comes back


async def test_unavailable_when_the_time_is_over(server_with, account):
    server = server_with(SHORT)
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    token = await enable(juliet)
    await juliet.available()
    await romeo.available()
    await romeo.drained()
    juliet.drop()
    await romeo.receives(f"<presence type='unavailable' from='{juliet.full}' to='{romeo.bare}'>{{more}}</presence>")
    await cannot_resume(server, juliet.account, token)


async def lost(server: Server, account: Callable[..., Account]) -> tuple[Client, Client]:
    """A friend who will hear of the end of the second client's session, and that client."""
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await enable(juliet)
    await juliet.available()
    await romeo.available()
    await romeo.drained()
    return romeo, juliet


async def ended(romeo: Client, juliet: Client) -> None:
    """Wait until the friend hears that the session is over."""
    while (node := await romeo.next()).get("type") != "unavailable":
        assert (node.get("from") or "").startswith(juliet.bare), show(node)
    assert node.get("from") == juliet.full, show(node)


async def test_unacknowledged_messages_are_stored(server_with, account):
    server = server_with(SHORT)
    romeo, juliet = await lost(server, account)
    texts = [str(number) for number in range(5)]
    for text in texts:
        await romeo.send(message(text, juliet.bare))
    await romeo.settled()
    juliet.drop()
    await ended(romeo, juliet)
    online = await server.online(juliet.account)
    received = await online.drained()
    assert bodies(received) == texts
    stored = [node for node in received if node.tag.endswith("}message")]
    assert all(node.find("{urn:xmpp:delay}delay") is not None for node in stored)


async def test_acknowledged_messages_are_not_stored(server_with, account):
    server = server_with(SHORT)
    romeo, juliet = await lost(server, account)
    await romeo.send(message("read", juliet.bare) + message("unread", juliet.bare))
    await romeo.settled()
    received = await juliet.drained()
    read = next(index for index, node in enumerate(received) if bodies([node]) == ["read"])
    handled = 1 + read + 1  # the echo of its presence, what came before the message, and the message
    await juliet.send(f"<a xmlns='{SM}' h='{handled}'/>")
    await juliet.settled()
    juliet.drop()
    await ended(romeo, juliet)
    online = await server.online(juliet.account)
    assert bodies(await online.drained()) == ["unread"]


async def test_unacknowledged_messages_go_to_another_resource(server_with, account):
    server = server_with(SHORT)
    romeo, juliet = await lost(server, account)
    other = await server.login(juliet.account, "other")
    await romeo.send(message("hi", juliet.bare))
    await romeo.settled()
    await other.available()
    juliet.drop()
    await ended(romeo, juliet)
    assert bodies(await other.drained()) == ["hi"]


async def test_unanswered_requests_are_answered(server_with, account):
    """RFC 6120, 8.2.3: every request gets an answer, also one that died with the session."""
    server = server_with(SHORT)
    romeo, juliet = await lost(server, account)
    juliet.drop()
    await romeo.send(f"<iq type='get' id='q' to='{juliet.full}'><ping xmlns='urn:xmpp:ping'/></iq>")
    answer = next(node for node in [await romeo.next(), await romeo.next()] if node.tag.endswith("}iq"))
    assert answer.get("id") == "q"
    assert condition_of(answer) in ("service-unavailable", "recipient-unavailable")


async def test_closing_in_good_order_stores_what_was_not_acknowledged(server, account):
    romeo = await server.login(account("romeo"))
    juliet, _ = await managed(server, account)
    await romeo.send(message("hi", juliet.bare))
    await romeo.settled()
    await juliet.end()
    online = await server.online(juliet.account)
    assert bodies(await online.drained()) == ["hi"]


async def test_binding_the_resource_of_a_session_that_waits(server, account):
    """The client lost its state and logs in anew: the messages that waited reach the new session."""
    romeo = await server.login(account("romeo"))
    client = await server.login(account("juliet"), "balcony")
    token = await enable(client)
    await client.available()
    client.drop()
    await romeo.send(message("hi", client.bare))
    await romeo.settled()
    again = await server.login(client.account, "balcony")
    await again.available()
    assert bodies(await again.drained()) == ["hi"]
    await cannot_resume(server, client.account, token)


async def test_sessions_that_wait_do_not_keep_the_user_out(server_with, account):
    """XEP-0198 with a limit of sessions: those that only wait make room for living ones."""
    server = server_with({"limits": {"sessions_per_account": 2}})
    juliet = account("juliet")
    for _ in range(4):
        client = await server.login(juliet)
        await enable(client)
        client.drop()
    assert client.full

"""Acknowledgements of stream management (XEP-0198), and its misuse. Resumption is in test_resumption.py."""

from __future__ import annotations

import pytest

from tests.support.matching import SM, STREAM, show
from tests.support.sm import bodies, cannot_resume, enable, managed, message

# ------------------------------------------------------------------------------------------- acknowledgements


async def test_enable_without_resumption(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<enable xmlns='{SM}'/>")
    await romeo.receives(f"<enabled xmlns='{SM}'/>")


async def counts(client, handled):
    """The server says that it has handled so much: at once, or as soon as the last of it is stored."""
    while (h := int((await client.receives(f"<a xmlns='{SM}' h='{{any}}'/>")).get("h"))) != handled:
        assert h < handled


async def test_the_server_counts_what_it_has_handled(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await enable(romeo)
    romeo.skips_acks = False
    await romeo.send(f"<r xmlns='{SM}'/>")
    await romeo.receives(f"<a xmlns='{SM}' h='0'/>")
    await romeo.send(message("1", juliet.full) + message("2", juliet.bare) + f"<r xmlns='{SM}'/>")
    await counts(romeo, 2)
    await romeo.send(f"<presence to='{juliet.full}'/><iq type='result' id='x'/> <r xmlns='{SM}'/>")
    await counts(romeo, 4)


async def test_what_came_before_enable_does_not_count(server, account):
    romeo = await server.online(account("romeo"))
    await enable(romeo)
    romeo.skips_acks = False
    await romeo.send(f"<r xmlns='{SM}'/>")
    await romeo.receives(f"<a xmlns='{SM}' h='0'/>")


async def test_the_server_asks_for_acknowledgement(server, account):
    romeo = await server.login(account("romeo"))
    juliet, _ = await managed(server, account)
    juliet.skips_acks = False
    await romeo.send(message("hi", juliet.full))
    received = [await juliet.next() for _ in range(2)]
    assert bodies(received) == ["hi"]
    assert received[-1].tag == f"{{{SM}}}r", "asked for within a second or so"


async def test_the_server_asks_sooner_when_there_is_much(server_with, account):
    server = server_with({"stream_management": {"request_after": 3, "request_delay": "1 h"}})
    romeo = await server.login(account("romeo"))
    juliet, _ = await managed(server, account)
    juliet.skips_acks = False
    await romeo.send("".join(message(str(number), juliet.full) for number in range(3)))
    seen = [await juliet.next() for _ in range(4)]
    assert f"{{{SM}}}r" in [node.tag for node in seen]


async def test_what_is_stored_offline_is_acknowledged_when_it_is_durable(server, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await enable(romeo)
    romeo.skips_acks = False
    await romeo.send(message("hi", juliet.jid) + f"<r xmlns='{SM}'/>")
    answers = 0
    while answers < 1:
        answer = await romeo.next()
        assert answer.tag == f"{{{SM}}}a", show(answer)
        answers = int(answer.get("h"))
    online = await server.online(juliet)
    assert bodies(await online.drained()) == ["hi"]


# ---------------------------------------------------------------------------------------------------- misuse


async def test_enable_before_binding(server, account):
    client = await server.authenticated(account("romeo"))
    await client.send(f"<enable xmlns='{SM}' resume='true'/>")
    await client.receives(
        f"<failed xmlns='{SM}'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
    await client.bind()


async def test_enable_twice(server, account):
    romeo, _ = await managed(server, account)
    await romeo.send(f"<enable xmlns='{SM}' resume='true'/>")
    await romeo.receives(
        f"<failed xmlns='{SM}'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
    await romeo.settled()


async def test_resume_after_binding(server, account):
    romeo, token = await managed(server, account)
    await romeo.send(f"<resume xmlns='{SM}' previd='{token}' h='0'/>")
    await romeo.receives(
        f"<failed xmlns='{SM}'>{{more}}<unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )


async def test_acknowledgement_without_stream_management(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<r xmlns='{SM}'/>")
    await romeo.stream_error()


async def test_acknowledging_more_than_was_sent(server, account):
    """XEP-0198, 4: a counter that is too high ends the stream."""
    juliet, _ = await managed(server, account)
    await juliet.send(f"<a xmlns='{SM}' h='10'/>")
    error = await juliet.stream_error("undefined-condition")
    details = error.find(f"{{{SM}}}handled-count-too-high")
    assert details is not None
    assert (details.get("h"), details.get("send-count")) == ("10", "1")


@pytest.mark.parametrize("h", ["-1", "many", "", "4294967296", "99999999999999999999"])
async def test_acknowledging_nonsense(server, account, h):
    juliet, _ = await managed(server, account)
    await juliet.send(f"<a xmlns='{SM}' h='{h}'/>")
    await juliet.stream_error()


async def test_acknowledging_less_than_before(server, account):
    """The counter wraps at 2**32; going back is more than was sent."""
    romeo = await server.login(account("romeo"))
    juliet, _ = await managed(server, account)
    await romeo.send(message("1", juliet.full) + message("2", juliet.full))
    await romeo.settled()
    await juliet.send(f"<a xmlns='{SM}' h='2'/>")
    await juliet.send(f"<a xmlns='{SM}' h='2'/>")
    await juliet.settled()
    await juliet.send(f"<a xmlns='{SM}' h='1'/>")
    await juliet.stream_error("undefined-condition")


async def test_resuming_with_a_counter_that_is_too_high(server, account):
    juliet, token = await managed(server, account)
    juliet.drop()
    client = await server.authenticated(juliet.account)
    await client.send(f"<resume xmlns='{SM}' previd='{token}' h='1000'/>")
    answer = await client.next()
    assert answer.tag in (f"{{{STREAM}}}error", f"{{{SM}}}failed"), show(answer)


async def test_a_client_that_never_acknowledges(server_with, account):
    """The queue is bounded: the stream of such a client is closed, and others are not held up."""
    server = server_with({"stream_management": {"queue": 20, "request_after": 5}})
    romeo, other = await server.login(account("romeo")), await server.online(account("nurse"))
    juliet, token = await managed(server, account)
    for number in range(40):
        await romeo.send(message(str(number), juliet.full))
    await juliet.stream_error("policy-violation")
    await romeo.send(message("still here", other.full))
    await other.receives(message("still here", other.full, romeo.full))
    await cannot_resume(server, juliet.account, token)


async def test_it_can_be_switched_off(server_with, account):
    server = server_with({"stream_management": {"enabled": False}})
    client = await server.authenticated(account("romeo"))
    assert not client.offers(SM, "sm")
    await client.bind()
    await client.send(f"<enable xmlns='{SM}' resume='true'/>")
    await client.receives(f"<failed xmlns='{SM}'>{{more}}</failed>")

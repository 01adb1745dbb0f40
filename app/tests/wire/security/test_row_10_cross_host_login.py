"""Row 10: changing the host in the middle of a login (CVE-2018-10847), and names that carry a domain of their own."""

from __future__ import annotations

import pytest

from tests.support import sasl
from tests.support.accounts import Account
from tests.support.client import SASL, TLS, client_context, stream_header
from tests.support.server import fresh_address

pytestmark = pytest.mark.one_worker("the worker that has the connection authenticates")


async def test_another_host_after_authentication(server, account):
    client = await server.stream()
    answer = await client.sasl(account("romeo"))
    assert answer.tag == f"{{{SASL}}}success"
    client.wire.restart()
    await client.send(stream_header("other.example"))
    await client.receives_header()
    await client.stream_error("host-unknown")


async def test_another_host_after_starttls(server):
    client = await server.connect()
    await client.open_stream()
    await client.send(f"<starttls xmlns='{TLS}'/>")
    await client.receives(f"<proceed xmlns='{TLS}'/>")
    await client.wire.start_tls(client_context(), "localhost")
    await client.send(stream_header("other.example"))
    await client.receives_header()
    await client.stream_error("host-unknown")


async def test_no_host_after_authentication(server, account):
    client = await server.stream()
    await client.sasl(account("romeo"))
    client.wire.restart()
    await client.send(stream_header(None))
    await client.receives_header()
    await client.stream_error()


async def test_the_header_answers_for_the_host_that_was_authenticated(server, account):
    """Not even the header of the refusal pretends to be the other host's."""
    client = await server.stream()
    await client.sasl(account("romeo"))
    client.wire.restart()
    await client.send(stream_header("other.example"))
    assert (await client.receives_header())["from"] == "localhost"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_user_name_with_the_domain_of_another_host(server, account, mechanism):
    there = account("romeo", host="other.example")
    client = await server.stream(source=fresh_address())
    answer = await client.sasl(Account(there.jid, "localhost", there.password), mechanism)
    assert answer.tag == f"{{{SASL}}}failure"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_user_name_with_a_domain_never_becomes_another_users(server, account, mechanism):
    """``romeo@other.example`` on the stream of localhost must not be read as ``romeo`` of localhost."""
    here = account("romeo")
    client = await server.stream(source=fresh_address())
    answer = await client.sasl(Account(f"{here.user}@other.example", "localhost", here.password), mechanism)
    assert answer.tag == f"{{{SASL}}}failure"


@pytest.mark.parametrize("name", ["{user}\t", " {user}", "{user}/x", "{user}&", "{user}\u200b"])
async def test_names_that_only_look_like_an_account(server, account, name):
    here = account("romeo")
    client = await server.stream(source=fresh_address())
    answer = await client.auth("PLAIN", sasl.plain(name.format(user=here.user), here.password))
    assert answer.tag == f"{{{SASL}}}failure"


async def test_binding_and_sessions_stay_in_the_host(server, auth, account):
    here = account("romeo")
    there = Account(here.user, "other.example", "sesame")
    auth.insert(there)
    one, other = await server.login(here), await server.login(there)
    assert one.bare == f"{here.user}@localhost"
    assert other.bare == f"{here.user}@other.example"
    await one.set("<vCard xmlns='vcard-temp'><FN>here</FN></vCard>")
    card = await other.get("<vCard xmlns='vcard-temp'/>")
    assert card.findtext("{vcard-temp}vCard/{vcard-temp}FN") is None

"""The PROXY protocol: what a load balancer says counts, and nobody else is believed."""

from __future__ import annotations

import pytest

from tests.support.client import client_context
from tests.support.proxy import LOCAL, v1, v2
from tests.support.server import fresh_address
from tests.support.toml import Table

pytestmark = pytest.mark.one_worker("about the listener of one worker")

PROXIES = "127.0.0.0/24"
"""The clients of tests that have a ``source`` come from other loopback addresses."""

ROMEO, MALLORY = "192.0.2.1", "2001:db8::bad"


def behind_proxy(**options: bool) -> Table:
    listener = {"address": "127.0.0.1", "port": 0, "starttls_required": False, "proxy_protocol": [PROXIES], **options}
    return {"listen": {"c2s": [listener]}}


async def test_a_login_through_a_proxy_is_logged_with_the_address_of_the_client(server_with, account):
    server = server_with(behind_proxy())
    romeo = await server.connect()
    await romeo.wire.write(v1(ROMEO, 56324))
    await romeo.open_stream()
    await romeo.authenticate(account("romeo"))
    await romeo.bind()
    assert f"session_opened jid={romeo.full} ip={ROMEO}" in server.log


async def test_direct_tls_comes_after_the_header(server_with, account):
    server = server_with(behind_proxy())
    romeo = await server.connect()
    await romeo.wire.write(v2(ROMEO, 56324))
    await romeo.wire.start_tls(client_context(), server.host)
    await romeo.open_stream()
    await romeo.authenticate(account("romeo"))
    await romeo.bind()
    await romeo.settled()


async def test_who_guesses_passwords_has_to_wait_and_others_behind_the_proxy_have_not(server_with, account):
    server = server_with({**behind_proxy(), "limits": {"auth_failures_per_address": 2}})
    victim = account("romeo")

    async def attempt(address: str, password: str) -> str:
        client = await server.connect()
        await client.wire.write(v1(address, 1000))
        await client.open_stream()
        outcome = await client.sasl(victim, password=password)
        return (outcome.tag if not len(outcome) else outcome[0].tag).rpartition("}")[2]

    assert [await attempt(MALLORY, "guess") for _ in range(2)] == ["not-authorized"] * 2
    assert await attempt(MALLORY, "sesame") != "success"
    assert await attempt(ROMEO, "sesame") == "success"


async def test_a_health_check_is_answered(server_with):
    server = server_with(behind_proxy())
    check = await server.connect()
    await check.wire.write(LOCAL)
    assert await check.open_stream()


@pytest.mark.parametrize("header", [v1(ROMEO, 1), v2(ROMEO, 1)])
async def test_a_stranger_gains_nothing_by_a_header(server_with, header):
    server = server_with(behind_proxy())
    source = fresh_address()
    stranger = await server.connect(source=source)
    await stranger.wire.write(header)
    await stranger.receives_header()
    await stranger.stream_error()
    assert ROMEO not in server.log


async def test_a_stranger_is_served_as_he_comes_unless_only_proxies_are(server_with, account):
    romeo = await server_with(behind_proxy()).authenticated(account("romeo"), source=fresh_address())
    await romeo.bind()
    source = fresh_address()
    strict = server_with(behind_proxy(proxies_only=True))
    stranger = await strict.connect(source=source)
    await stranger.disconnected()
    assert f"connection_refused ip={source}" in strict.log


async def test_a_proxy_without_a_header_is_told_in_the_log(server_with):
    server = server_with(behind_proxy())
    client = await server.connect()
    await client.send("<stream:stream>")
    await client.disconnected()
    assert 'proxy_header_refused ip=127.0.0.1 reason="there is no PROXY header"' in server.log

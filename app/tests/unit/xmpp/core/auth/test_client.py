from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import traceback
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio

from monktalk.common.config import Schema, parse
from monktalk.xmpp.core.auth.client import (
    MAX_ANSWER,
    WAITING_PER_CONNECTION,
    AuthClient,
    AuthClients,
    Endpoint,
)
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.core.settings import AUTH
from tests.unit.xmpp.core.auth.service import captured_log, reply

HOST = "example.org"
PASSWORD = "très sécret & 100%=+/?#"


def endpoint(service, **changes):
    plain = Endpoint(f"{service.url}/authorize/", "xmpp", "hunter2", timeout=2.0, connections=4)
    return dataclasses.replace(plain, **changes)


@pytest_asyncio.fixture
async def client(service):
    client = AuthClient(endpoint(service))
    yield client
    await client.close()


CALLS = {
    "user_exists": lambda client: client.user_exists("alice", HOST),
    "check_password": lambda client: client.check_password("alice", HOST, PASSWORD),
    "get_password": lambda client: client.get_password("alice", HOST),
    "register": lambda client: client.register("alice", HOST, PASSWORD),
    "set_password": lambda client: client.set_password("alice", HOST, PASSWORD),
    "remove_user": lambda client: client.remove_user("alice", HOST),
}


def test_the_endpoint_follows_from_the_settings():
    def of(text):
        return Endpoint.of(parse(f"[auth]\n{text}", "test", Schema([AUTH])).section("auth"))

    assert of("").url == "http://127.0.0.1:3300/authorize/"
    assert of('url = "http://[::1]:3300/base/"\npath_prefix = "auth"').url == "http://[::1]:3300/base/auth/"
    assert of('path_prefix = "/"').url == "http://127.0.0.1:3300/"
    assert of('username = "xmpp"\npassword = "hunter2"') == of('password = "hunter2"\nusername = "xmpp"')
    assert "hunter2" not in repr(of('password = "hunter2"'))


@pytest.mark.parametrize("call", ["user_exists", "check_password", "get_password"])
async def test_reading_calls_send_all_parameters_in_the_query(service, client, call):
    service.answers[call] = reply(200, "true")
    await CALLS[call](client)
    (request,) = service.requests
    assert (request.method, request.path, request.body) == ("GET", f"/authorize/{call}", b"")
    password = PASSWORD if call == "check_password" else ""
    assert request.form == {"user": "alice", "server": HOST, "pass": password}
    assert request.raw_target.isascii()


@pytest.mark.parametrize("call", ["register", "set_password", "remove_user"])
async def test_writing_calls_send_them_in_the_body_without_a_content_type(service, client, call):
    service.answers[call] = reply(201)
    await CALLS[call](client)
    (request,) = service.requests
    assert (request.method, request.raw_target) == ("POST", f"/authorize/{call}")
    password = "" if call == "remove_user" else PASSWORD
    assert request.form == {"user": "alice", "server": HOST, "pass": password}
    assert "content-type" not in request.headers
    assert request.body.isascii()


@pytest.mark.parametrize("user", ["élodie", "a+b", "a=b", "50%", "\U0001f600", "o;x", "д"])
async def test_names_of_any_alphabet_arrive_as_they_are(service, client, user):
    service.answers["user_exists"] = reply(200, user)
    assert await client.user_exists(user, "bücher.example") is True
    assert service.requests[0].form["user"] == user
    assert service.requests[0].form["server"] == "bücher.example"


async def test_basic_authentication_and_the_address_of_the_client(service, client):
    service.answers["check_password"] = reply(200, "true")
    await client.check_password("alice", HOST, PASSWORD, "2001:db8::1")
    await client.check_password("alice", HOST, PASSWORD)
    first, second = service.requests
    assert first.headers["authorization"] == "Basic " + base64.b64encode(b"xmpp:hunter2").decode()
    assert first.headers["x-client-address"] == "2001:db8::1"
    assert "x-client-address" not in second.headers


async def test_without_credentials_there_is_no_authorization(service):
    client = AuthClient(endpoint(service, username="", password=""))
    service.answers["user_exists"] = reply(200, "true")
    await client.user_exists("alice", HOST)
    await client.close()
    assert "authorization" not in service.requests[0].headers


@pytest.mark.parametrize("call", ["user_exists", "check_password"])
@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (reply(200, "true"), True),
        (reply(200, "alice"), True),
        (reply(200, "false"), False),
        (reply(200, ""), False),
        (reply(200, "Alice"), False),
        (reply(200, "alice\n"), False),
        (reply(200, " true"), False),
        (reply(200, "TRUE"), False),
        (reply(200, "alice@example.org"), False),
        (reply(200, "bob"), False),
        (reply(200, "<html>true</html>"), False),
        (reply(201, "true"), False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        *((reply(status, "true"), False) for status in (400, 404, 409)),
    ],
)
async def test_what_a_verdict_is(service, client, call, answer, verdict):
    service.answers[call] = answer
    assert await CALLS[call](client) is verdict


@pytest.mark.parametrize("call", ["user_exists", "check_password", "get_password"])
@pytest.mark.parametrize("status", [401, 403])
async def test_a_question_that_the_service_refuses_is_no_no(service, client, call, status):
    service.answers[call] = reply(status, "true")
    with pytest.raises(NotAllowed):
        await CALLS[call](client)


@pytest.mark.parametrize("name", ["true", "false"])
async def test_an_account_that_is_named_like_a_verdict_is_refused(service, client, name):
    service.answers["check_password"] = service.answers["user_exists"] = reply(200, name)
    assert await client.check_password(name, HOST, PASSWORD) is False
    assert await client.user_exists(name, HOST) is False


async def test_stored_credentials(service, client):
    service.answers["get_password"] = reply(200, "==SCRAM==,a,b,c,4096")
    assert await client.get_password("alice", HOST) == "==SCRAM==,a,b,c,4096"
    service.answers["get_password"] = reply(200, "pässword")
    assert await client.get_password("alice", HOST) == "pässword"
    for refusal in (reply(404), reply(400), reply(200, ""), reply(200, b"\xff\xfe")):
        service.answers["get_password"] = refusal
        assert await client.get_password("alice", HOST) is None


@pytest.mark.parametrize(
    ("call", "status", "error"),
    [
        ("register", 201, None),
        ("register", 409, AccountExists),
        ("register", 403, NotAllowed),
        ("register", 200, NotAllowed),
        ("set_password", 200, None),
        ("set_password", 201, None),
        ("set_password", 204, None),
        ("set_password", 404, AccountMissing),
        ("set_password", 400, NotAllowed),
        ("remove_user", 204, None),
        ("remove_user", 404, AccountMissing),
        ("remove_user", 403, NotAllowed),
        ("remove_user", 400, NotAllowed),
    ],
)
async def test_what_the_answer_to_a_change_is(service, client, call, status, error):
    service.answers[call] = reply(status) if status != 204 else b"HTTP/1.1 204 No Content\r\n\r\n"
    if error is None:
        await CALLS[call](client)
    else:
        with pytest.raises(error):
            await CALLS[call](client)


BAD_ANSWERS = {
    "status 500": reply(500, "true"),
    "status 503": reply(503, "alice"),
    "status 302": reply(302, "true", "Location: http://127.0.0.1:1/"),
    "status 206": reply(206, "true"),
    "status 418": reply(418, "true"),
    "a body without an end": b"HTTP/1.1 200 OK\r\n\r\ntrue",
    "no HTTP": b"true\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 2OO OK\r\nContent-Length: 4\r\n\r\ntrue",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ntrue!",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\ntrue",
    "a huge announced body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000,
    "a huge chunked body": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\nalicexxx\r\n" * 9000,
    "a huge header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\nContent-Length: 4\r\n\r\ntrue",
}


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (call, what)
        for call in CALLS
        for what in BAD_ANSWERS
        # The bodies of answers to changes are of no use.
        if what != "a body without an end" or call in ("user_exists", "check_password", "get_password")
    ],
)
async def test_what_is_no_answer_is_unavailable_and_never_a_yes(service, client, call, what):
    service.answers[call] = BAD_ANSWERS[what]
    with captured_log() as log, pytest.raises(AuthUnavailable) as caught:
        await CALLS[call](client)
    told = log.getvalue() + "".join(traceback.format_exception(caught.value))
    assert "user=alice" not in told, "neither logs nor tracebacks have the query"
    assert quote(PASSWORD, "") not in told


@pytest.mark.parametrize("call", CALLS)
async def test_a_connection_that_ends_before_the_answer_does(service, client, call):
    async def cut(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalic")
        writer.close()

    service.responder = cut
    with pytest.raises(AuthUnavailable):
        await CALLS[call](client)


@pytest.mark.parametrize("call", ["user_exists", "check_password", "get_password"])
async def test_a_body_that_ends_with_the_connection_may_be_cut_off(service, client, call):
    async def close_delimited(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ntrue")
        writer.close()

    service.responder = close_delimited
    with pytest.raises(AuthUnavailable, match="without Content-Length"):
        await CALLS[call](client)


async def test_an_answer_in_single_bytes_is_one_answer(service, client):
    async def drip(_, writer):
        for byte in reply(200, "alice"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    service.responder = drip
    assert await client.check_password("alice", HOST, PASSWORD) is True


async def test_a_chunked_answer_is_an_answer(service, client):
    service.answers["check_password"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nal\r\n3\r\nice\r\n0\r\n\r\n"
    )
    assert await client.check_password("alice", HOST, PASSWORD) is True


async def test_the_longest_answer(service, client):
    service.answers["get_password"] = reply(200, "x" * MAX_ANSWER)
    assert await client.get_password("alice", HOST) == "x" * MAX_ANSWER
    service.answers["get_password"] = reply(200, "x" * (MAX_ANSWER + 1))
    with pytest.raises(AuthUnavailable, match="more than"):
        await client.get_password("alice", HOST)


async def test_a_service_that_hangs_runs_into_the_time_out(service):
    client = AuthClient(endpoint(service, timeout=0.1))
    hanging = asyncio.Event()

    async def hang(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntr")
        await hanging.wait()

    service.responder = hang
    try:
        with pytest.raises(AuthUnavailable, match=r"no answer within 0\.1 s"):
            await client.check_password("alice", HOST, PASSWORD)
    finally:
        hanging.set()
        await client.close()


async def test_a_service_that_drips_for_ever_runs_into_the_time_out(service):
    client = AuthClient(endpoint(service, timeout=0.1))

    async def drip(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    service.responder = drip
    with pytest.raises(AuthUnavailable, match="no answer within"):
        await client.check_password("alice", HOST, PASSWORD)
    await client.close()


async def test_a_redirection_is_not_followed(service, client):
    service.answers["check_password"] = reply(307, "", f"Location: {service.url}/authorize/elsewhere")
    service.answers["elsewhere"] = reply(200, "true")
    with pytest.raises(AuthUnavailable, match="status 307"):
        await client.check_password("alice", HOST, PASSWORD)
    assert service.calls("elsewhere") == [], "the password must not travel on"


async def test_a_refused_socket(service, client):
    await service.stop()
    with pytest.raises(AuthUnavailable, match="cannot be reached"):
        await client.user_exists("alice", HOST)


async def test_reading_calls_share_a_connection_that_is_kept(service, client):
    service.answers["user_exists"] = reply(200, "true")
    service.answers["get_password"] = reply(404, "no such account")
    for _ in range(5):
        await client.user_exists("alice", HOST)
        await client.get_password("alice", HOST)
    assert service.connections == 1


async def test_a_kept_connection_that_the_service_closed_is_replaced(service, client):
    service.answers["user_exists"] = reply(200, "true")
    assert await client.user_exists("alice", HOST)
    for writer in service.writers:
        writer.close()
    assert await client.user_exists("alice", HOST)


async def test_a_change_is_never_sent_twice(service, client):
    async def vanish(_, writer):
        writer.close()

    service.responder = vanish
    with pytest.raises(AuthUnavailable):
        await client.register("alice", HOST, PASSWORD)
    assert len(service.requests) == 1


async def test_the_servers_own_credentials_being_refused_is_logged_once(service, client):
    service.answers["check_password"] = reply(401)
    with captured_log() as log:
        for _ in range(3):
            with pytest.raises(NotAllowed):
                await client.check_password("alice", HOST, PASSWORD)
    assert log.getvalue().count("service_refuses_server") == 1
    assert "hunter2" not in log.getvalue()
    service.answers["check_password"] = reply(200, "false")
    await client.check_password("alice", HOST, PASSWORD)
    service.answers["check_password"] = reply(401)
    with captured_log() as log, pytest.raises(NotAllowed):
        await client.check_password("alice", HOST, PASSWORD)
    assert "service_refuses_server" in log.getvalue()


async def test_calls_at_once_are_limited_and_the_queue_for_them_too(service):
    client = AuthClient(endpoint(service, connections=2))
    held = contextlib.AsyncExitStack()
    for _ in range(2):
        await held.enter_async_context(client.slot())

    async def wait():
        async with client.slot():
            pass

    waiting = [asyncio.create_task(wait()) for _ in range(2 * WAITING_PER_CONNECTION)]
    await asyncio.sleep(0)
    with pytest.raises(AuthUnavailable, match="wait for the authentication service already"):
        await asyncio.wait_for(wait(), 5)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await held.aclose()
    await asyncio.gather(*waiting[1:])
    await wait()


async def test_after_close_there_is_nobody_to_ask(service, client):
    service.answers["user_exists"] = reply(200, "true")
    await client.user_exists("alice", HOST)
    await client.close()
    with pytest.raises(AuthUnavailable):
        await client.user_exists("alice", HOST)
    await client.close()


async def test_hosts_with_the_same_settings_share_a_client(service):
    clients = AuthClients()
    one, two = clients.acquire(endpoint(service)), clients.acquire(endpoint(service))
    other = clients.acquire(endpoint(service, username="other"))
    assert one is two
    assert other is not one
    service.answers["user_exists"] = reply(200, "true")
    await clients.release(one)
    assert await two.user_exists("alice", HOST), "the other host still has it"
    await clients.release(two)
    with pytest.raises(AuthUnavailable):
        await two.user_exists("alice", HOST)
    assert clients.acquire(endpoint(service)) is not one
    await clients.release(other)


async def test_no_session_is_opened_before_the_first_call(service, monkeypatch):
    opened = []
    original = aiohttp.ClientSession.__init__

    def spy(self, *args, **kwargs):
        opened.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", spy)
    client = AuthClient(endpoint(service))
    await client.close()
    assert opened == []

"""The readiness endpoint: what it says, to whom, and how little it takes to be turned away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.common.config import Schema, Settings, parse
from monktalk.xmpp.core.settings import READINESS
from monktalk.xmpp.net import readiness
from monktalk.xmpp.net.readiness import DRAINING, READY, STARTING, STOPPING, ReadinessEndpoint, answer
from tests.support.polling import eventually

LOOPBACK = "127.0.0.1"


def section(text: str) -> Settings:
    return parse(f"[readiness]\n{text}", "test", Schema([READINESS])).section("readiness")


@contextlib.asynccontextmanager
async def endpoint(text: str = "port = 0", state: str = READY) -> AsyncIterator[ReadinessEndpoint]:
    opened = ReadinessEndpoint(lambda: state)
    await opened.change(section(text))
    try:
        yield opened
    finally:
        opened.close()


async def ask(port: int | None, request: bytes = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    """All that comes back; nothing when the connection is closed without a word."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request)
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


def status(response: bytes) -> int:
    return int(response.split()[1])


def body(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("state", "code"), [(READY, 200), (STARTING, 503), (DRAINING, 503), (STOPPING, 503)])
def test_ready_tells_the_state(state, code):
    response = answer(b"GET /ready HTTP/1.1\r\n\r\n", state)
    assert (status(response), body(response)) == (code, f"{state}\n".encode())
    assert b"\r\nContent-Length: %d\r\n" % len(body(response)) in response
    assert b"\r\nConnection: close\r\n" in response


@pytest.mark.parametrize("state", [READY, STARTING, DRAINING, STOPPING])
def test_live_is_whoever_answers(state):
    assert status(answer(b"GET /live HTTP/1.0\r\n\r\n", state)) == 200


@pytest.mark.parametrize(("state", "code"), [(READY, 200), (DRAINING, 503)])
def test_a_head_request_gets_no_body(state, code):
    response = answer(b"HEAD /ready HTTP/1.1\r\n\r\n", state)
    assert (status(response), body(response)) == (code, b"")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /ready?x=1 HTTP/1.1", 404),
        (b"GET /../ready HTTP/1.1", 404),
        (b"POST /ready HTTP/1.1", 405),
        (b"OPTIONS /live HTTP/1.0", 405),
        (b"GET /ready", 400),
        (b"GET /ready HTTP/2", 400),
        (b"get /ready HTTP/1.1", 400),
        (b"GET http://x/ready HTTP/1.1", 400),
        (b"", 400),
    ],
)
def test_everything_else_is_turned_away(line, code):
    assert status(answer(line + b"\r\n\r\n", READY)) == code


@given(st.binary(max_size=200))
def test_no_request_breaks_it(data):
    assert status(answer(data, READY)) in (200, 400, 404, 405)


async def test_it_answers_and_hangs_up():
    async with endpoint() as opened:
        assert body(await ask(opened.port)) == b"ready\n"


async def test_a_request_may_come_in_pieces():
    async with endpoint() as opened:
        reader, writer = await asyncio.open_connection(LOOPBACK, opened.port)
        for piece in (b"GET /re", b"ady HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
            writer.write(piece)
            await asyncio.sleep(0.01)
        assert body(await reader.read()) == b"ready\n"
        writer.close()


async def test_who_is_not_allowed_gets_no_answer():
    async with endpoint("port = 0\nallowed = ['192.0.2.0/24']") as opened:
        assert await ask(opened.port) == b""


async def test_a_long_request_gets_no_answer():
    async with endpoint() as opened:
        assert await ask(opened.port, b"GET /ready HTTP/1.1\r\nX: " + b"x" * readiness.MAX_REQUEST) == b""


async def test_who_asks_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(readiness, "REQUEST_SECONDS", 0.05)
    async with endpoint() as opened:
        assert await ask(opened.port, b"GET /ready") == b""


async def test_only_so_many_may_ask_at_once(monkeypatch):
    monkeypatch.setattr(readiness, "MAX_CALLERS", 1)
    async with endpoint() as opened:
        _, writer = await asyncio.open_connection(LOOPBACK, opened.port)

        async def callers() -> int:
            return len(opened.callers)

        await eventually(callers, lambda count: count == 1, "the first one is there")
        assert await ask(opened.port) == b""
        writer.close()
        await eventually(callers, lambda count: count == 0, "the first one is gone")
        assert body(await ask(opened.port)) == b"ready\n"


async def test_it_is_off_without_a_port():
    async with endpoint("") as opened:
        assert opened.port is None


async def test_a_change_moves_it_and_who_may_ask():
    async with endpoint() as opened:
        old = opened.port
        await opened.change(section("address = '127.0.0.2'\nport = 0\nallowed = ['127.0.0.2']"))
        with pytest.raises(ConnectionRefusedError):
            await ask(old)
        reader, writer = await asyncio.open_connection("127.0.0.2", opened.port, local_addr=("127.0.0.2", 0))
        writer.write(b"GET /live HTTP/1.1\r\n\r\n")
        assert body(await reader.read()) == b"live\n"
        writer.close()
        await opened.change(section(""))
        assert opened.port is None


async def test_a_port_that_can_not_be_had_changes_nothing():
    async with endpoint() as opened:
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match=f"can't listen on {LOOPBACK} port {port}"):
                await opened.change(section(f"port = {port}"))
        assert body(await ask(opened.port)) == b"ready\n"

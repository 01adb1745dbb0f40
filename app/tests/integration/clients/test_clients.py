"""slixmpp, @xmpp/client and go-sendxmpp log in over STARTTLS and direct TLS and chat with each other, unmodified."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.support import chat_programs
from tests.support.chat_programs import ChatProgram

pytestmark = pytest.mark.integration

TRANSPORTS = ["starttls", "direct"]
needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
needs_go_sendxmpp = pytest.mark.skipif(shutil.which("go-sendxmpp") is None, reason="go-sendxmpp is not installed")


@pytest.fixture
def run() -> Iterator[Callable[..., ChatProgram]]:
    """``run(client, server, account, transport)``: a chat program that ends with the test."""
    running: list[ChatProgram] = []

    def start(client: Callable[..., ChatProgram], *arguments: object) -> ChatProgram:
        program = client(*arguments)
        running.append(program)
        return program

    yield start
    for program in running:
        program.close()


@needs_node
@pytest.mark.parametrize("romeos", TRANSPORTS)
@pytest.mark.parametrize("juliets", TRANSPORTS)
def test_slixmpp_and_xmpp_js(server, account, run, romeos, juliets):
    romeo = run(chat_programs.slixmpp, server.program, account("romeo"), romeos)
    juliet = run(chat_programs.xmpp_js, server.program, account("juliet"), juliets)
    romeo.send(juliet.account.jid, "Wilt thou leave me so unsatisfied? — ü 🎭 <&>")
    assert juliet.wait_for("unsatisfied") == f"{romeo.jid}\tWilt thou leave me so unsatisfied? — ü 🎭 <&>"
    juliet.send(romeo.jid, "What satisfaction canst thou have tonight?")
    assert romeo.wait_for("tonight") == f"{juliet.jid}\tWhat satisfaction canst thou have tonight?"


@needs_go_sendxmpp
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_go_sendxmpp_sends(server, account, run, transport):
    juliet = run(chat_programs.slixmpp, server.program, account("juliet"), "starttls")
    romeo = account("romeo")
    chat_programs.go_sendxmpp_send(server.program, romeo, transport, juliet.account.jid, "It is my lady")
    assert juliet.wait_for("lady").startswith(f"{romeo.jid}/")


@needs_go_sendxmpp
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_go_sendxmpp_listens(server, account, run, transport):
    """It does not tell when it is online, so the message is there first: offline delivery works for it, too."""
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    await romeo.send(f"<message to='{juliet.jid}' type='chat'><body>But soft</body></message>")
    await romeo.settled()
    listener = run(chat_programs.go_sendxmpp_listening, server.program, juliet, transport)
    listener.wait_for("But soft")
    await romeo.send(f"<message to='{juliet.jid}' type='chat'><body>what light</body></message>")
    assert romeo.bare in listener.wait_for("what light")


@needs_node
@needs_go_sendxmpp
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_go_sendxmpp_and_xmpp_js(server, account, run, transport):
    juliet = run(chat_programs.xmpp_js, server.program, account("juliet"), transport)
    romeo = account("romeo")
    chat_programs.go_sendxmpp_send(server.program, romeo, transport, juliet.account.jid, "Arise, fair sun")
    assert juliet.wait_for("fair sun").startswith(f"{romeo.jid}/")

"""A real server, relays in front of it, and a crowd of clients that the test drives itself."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from load.accounts import Account
from load.crowd import Crowd, Plan
from load.ledger import Ledger
from load.login import CLEAR, Service
from load.round import Report, Round
from load.tests.relay import Relay
from tests.support import accounts as server_accounts
from tests.support.stack import AuthService, XmppServer

DOMAIN = "localhost"
PATIENCE = 30.0
PLAN = Plan(pairs=3, sleepers=2, rate=20)


@pytest.fixture(scope="session")
def auth(tmp_path_factory) -> Iterator[AuthService]:
    service = AuthService(tmp_path_factory.mktemp("auth"))
    service.start()
    yield service
    service.program.stop()


@pytest.fixture(scope="session")
def server(auth, tmp_path_factory) -> Iterator[XmppServer]:
    program = XmppServer(tmp_path_factory.mktemp("server"), auth, {})
    program.launch()
    yield program
    program.stop()


@pytest.fixture
def victim(auth, tmp_path) -> Iterator[XmppServer]:
    """A server of one's own, which has the same port again when it is started again."""
    program = XmppServer(tmp_path, auth, {})
    program.launch()
    listener = {"address": "127.0.0.1", "port": program.clear_port, "starttls_required": False}
    program.configure({"listen": {"c2s": [listener]}})
    yield program
    program.stop()


@pytest.fixture(autouse=True)
def short_linger(monkeypatch) -> None:
    """What should not come any more comes soon, from a server on the same machine."""
    monkeypatch.setattr("load.round._LINGER", 0.3)


@pytest.fixture
def make_accounts(auth) -> Callable[[int], list[Account]]:
    def make(count: int) -> list[Account]:
        made = [Account(f"load-{secrets.token_hex(4)}", DOMAIN, "sesame") for _ in range(count)]
        for account in made:
            auth.insert(server_accounts.Account(account.user, account.domain, account.password))
        return made

    return make


@pytest.fixture
async def relay(server) -> AsyncIterator[Relay]:
    between = Relay(server.clear_port)
    await between.start()
    yield between
    await between.close()


class Load:
    """A crowd, and the rounds that a test has it go through."""

    def __init__(self, crowd: Crowd, ledger: Ledger) -> None:
        self.crowd = crowd
        self.ledger = ledger
        self.round: Round | None = None

    def client_of(self, index: int):
        return self.crowd.clients[index]

    async def begin(self) -> None:
        """Everybody comes and begins to talk."""
        await self.crowd.come(PATIENCE)
        self.ledger.close_round(set())
        self.again()

    def again(self) -> None:
        """Another round."""
        self.round = Round(self.crowd, self.ledger)

    def sent(self) -> int:
        """How many messages there are in this round."""
        return len(self.ledger._round)

    async def talk(self, messages: int) -> None:
        """Wait until so many more messages are under way."""
        enough = self.sent() + messages
        assert await self.crowd.until(lambda: self.sent() >= enough, PATIENCE), "clients have stopped talking"

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        assert await self.crowd.until(condition, PATIENCE), what

    async def settle(self, patience: float = PATIENCE) -> Report:
        """What became of the messages."""
        assert self.round is not None
        return await self.round.settle(patience)


@pytest.fixture
async def load(make_accounts) -> AsyncIterator[Callable[..., Load]]:
    """Makes a load that connects to these ports of loopback."""
    made: list[Load] = []

    def make(*ports: int, plan: Plan = PLAN, security: str = CLEAR) -> Load:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        service = Service([("127.0.0.1", port) for port in ports], DOMAIN, security, context)
        ledger = Ledger()
        made.append(Load(Crowd(plan, service, make_accounts(plan.accounts), ledger), ledger))
        return made[-1]

    yield make
    for each in made:
        await each.crowd.leave(5)

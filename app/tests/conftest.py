"""Fixtures of the tests at wire level: the programs, started once, and what a test needs of them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import Cluster, ClusterServer
from tests.support.server import HOST, Server
from tests.support.stack import AuthService, XmppServer

if TYPE_CHECKING:
    from tests.support.accounts import Account
    from tests.support.toml import Table

WORKERS = int(os.environ.get("MONKTALK_TEST_WORKERS", "1"))
"""With more than one, the tests at wire level run on a cluster, each client at the next worker."""

_servers = pytest.StashKey[list[Server]]()


class Farm:
    """The servers of a test session, one for each configuration that a test asks for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._programs: dict[str, XmppServer] = {}
        self._clusters: dict[str, Cluster] = {}
        self.auth = AuthService(factory.mktemp("auth"))
        self.auth.start()
        self.auth.add_administrator()

    def program(self, overrides: Table) -> XmppServer:
        """The running server with that configuration; started (again) if it does not run."""
        key = json.dumps(overrides, sort_keys=True)
        program = self._programs.get(key)
        if program is None:
            program = XmppServer(self._factory.mktemp("server"), self.auth, overrides)
        if not program.running:
            program.launch()
        self._programs[key] = program
        return program

    def server(self, overrides: Table, accounts: list[Account]) -> Server:
        """What a test asks for: one server or, where all tests are to run on a cluster, its workers taking turns.

        ``accounts`` is where the test's accounts are entered.
        """
        if WORKERS < 2:
            return Server(self.program(overrides))
        key = json.dumps(overrides, sort_keys=True)
        cluster = self._clusters.get(key)
        if cluster is None:
            cluster = Cluster(self._factory.mktemp("cluster"), self.auth, overrides, workers=WORKERS)
            self._clusters[key] = cluster.start()
        return ClusterServer(cluster, accounts)

    def close(self) -> None:
        """Stop everything. Servers end in good order, and have not logged a password of all those that they saw."""
        statuses = {str(program.config): program.stop() for program in self._programs.values()}
        for number, cluster in enumerate(self._clusters.values()):
            statuses |= {f"cluster {number}": status for status in cluster.stop()}
        self.auth.program.stop()
        wrong = {config: status for config, status in statuses.items() if status != 0}
        assert not wrong, f"servers ended with another status than 0: {wrong}"
        for program in (self.auth.program, *self._programs.values()):
            text = program.log_text()
            assert "sesame" not in text, f"{program.log} has the password of an account"
            assert self.auth.password not in text, f"{program.log} has the password of the auth service"


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    servers = Farm(tmp_path_factory)
    yield servers
    servers.close()


@pytest.fixture
def accounts() -> list[Account]:
    """The accounts that the test has made."""
    return []


@pytest.fixture
async def server_with(
    farm: Farm, accounts: list[Account], request: pytest.FixtureRequest
) -> AsyncIterator[Callable[..., Server]]:
    """``server_with({"limits": {"stanza_size": "12 KiB"}})``: a server with a configuration of its own."""
    opened: list[Server] = request.node.stash.setdefault(_servers, [])

    def start(overrides: Table | None = None) -> Server:
        server = farm.server(overrides or {}, accounts)
        opened.append(server)
        return server

    yield start
    for server in opened:
        await server.close()


@pytest.fixture
async def server(server_with: Callable[..., Server]) -> Server:
    """The server with the usual configuration."""
    return server_with()


@pytest.fixture
def auth(farm: Farm) -> AuthService:
    """The authentication service that all servers of the session share."""
    return farm.auth


@pytest.fixture
def account(farm: Farm, accounts: list[Account]) -> Callable[..., Account]:
    """``account("romeo", host="other.example")``: a new account; all servers of the session know it."""

    def make(name: str = "user", *, host: str = HOST, password: str = "sesame") -> Account:
        made = farm.auth.account(name, host=host, password=password)
        accounts.append(made)
        return made

    return make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a cluster, leave tests out that are about one process, or about what comes before other workers matter."""
    if WORKERS < 2:
        return
    left_out = [item for item in items if item.get_closest_marker("one_worker") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("one_worker") is None]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the conversation and the server's log with a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result, which is not typed here
    if report.failed:
        for server in item.stash.get(_servers, []):
            report.sections.append(("Conversation", server.story()))
            report.sections.append((f"Log of {server.program.config}", server.log[-20_000:]))

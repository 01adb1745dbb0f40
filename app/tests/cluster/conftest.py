"""Fixtures of the tests with several workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import Cluster, ClusterServer
from tests.support.stack import AuthService

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.accounts import Account
    from tests.support.nats import NatsServer
    from tests.support.toml import Table

_clusters = pytest.StashKey[list[ClusterServer]]()


@pytest.fixture(scope="session")
def cluster_auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthService]:
    service = AuthService(tmp_path_factory.mktemp("auth"))
    service.start()
    service.add_administrator()
    yield service
    service.program.stop()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, cluster_auth: AuthService) -> Iterator[Cluster]:
    """Two workers that all tests share."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), cluster_auth).start()
    yield cluster
    assert all(status == 0 for status in cluster.stop()), "a worker did not end in good order"


@pytest.fixture
async def cluster(
    programs: Cluster, accounts: list[Account], request: pytest.FixtureRequest
) -> AsyncIterator[ClusterServer]:
    server = ClusterServer(programs, accounts)
    request.node.stash[_clusters] = [server]
    yield server
    await server.close()


@pytest.fixture
async def cluster_with(
    tmp_path: Path, cluster_auth: AuthService, accounts: list[Account], request: pytest.FixtureRequest
) -> AsyncIterator[Callable[..., ClusterServer]]:
    """``cluster_with(overrides, buses=…)``: two workers of the test's own, which it may break."""
    opened: list[ClusterServer] = request.node.stash.setdefault(_clusters, [])

    def start(overrides: Table | None = None, *, buses: Sequence[NatsServer] = ()) -> ClusterServer:
        directory = tmp_path / f"cluster{len(opened)}"
        directory.mkdir()
        server = ClusterServer(Cluster(directory, cluster_auth, overrides, buses=buses).start(), accounts)
        opened.append(server)
        return server

    yield start
    for server in opened:
        try:
            await server.close()
        finally:
            server.cluster.stop()


@pytest.fixture
def account(cluster_auth: AuthService, accounts: list[Account]) -> Callable[..., Account]:
    """``account("romeo")``: a new account."""

    def make(name: str = "user") -> Account:
        made = cluster_auth.account(name)
        accounts.append(made)
        return made

    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the conversation and the workers' logs with a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result, which is not typed here
    if report.failed:
        for server in item.stash.get(_clusters, []):
            report.sections.append(("Conversation", server.story()))
            report.sections.append(("Logs of the workers", server.log[-20_000:]))

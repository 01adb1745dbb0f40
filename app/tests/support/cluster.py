"""Several workers that serve the same users: real servers on one database and one NATS server."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.support.barrier import Barrier
from tests.support.nats import NatsServer
from tests.support.server import CLEAR, HOST, Server
from tests.support.stack import AuthService, XmppServer
from tests.support.toml import Table, merged

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.accounts import Account
    from tests.support.client import Client


class Cluster:
    """The programs. ``workers`` are servers of their own, each on its own ports.

    With several servers of NATS each worker is a client of the next one.
    """

    def __init__(
        self,
        directory: Path,
        auth: AuthService,
        overrides: Table | None = None,
        *,
        workers: int = 2,
        database_url: str | None = None,
        buses: Sequence[NatsServer] = (),
    ) -> None:
        self.auth = auth
        self._buses = buses or (NatsServer(directory),)
        self.nats = self._buses[0]
        self._sentries: dict[tuple[str, int], Account] = {}
        self.database = directory / "cluster.db"
        url = database_url or f"sqlite:///{self.database}"
        self.workers = [
            XmppServer(directory / f"worker{number}", auth, merged(self._options(number), overrides or {}), url)
            for number in range(workers)
        ]

    def _options(self, number: int) -> Table:
        host, port = self._buses[number % len(self._buses)].address
        return {"cluster": {"bus": "nats", "servers": [f"{host}:{port}"], "node": f"node{number}"}}

    def start(self) -> Cluster:
        """Start everything and wait until it is ready."""
        for bus in self._buses:
            bus.start()
        for worker in self.workers:
            worker.prepare()
            worker.begin()
        for worker in self.workers:
            worker.await_launch()
        return self

    def sentry(self, host: str, number: int) -> Account:
        """The account that watches over the worker of that number (see :mod:`tests.support.barrier`)."""
        if (host, number) not in self._sentries:
            self._sentries[host, number] = self.auth.account("sentry", host=host)
        return self._sentries[host, number]

    def stop(self) -> list[int]:
        """End everything in good order; returns the exit codes of the workers that ran."""
        statuses = [worker.stop() for worker in self.workers if worker.running]
        for bus in self._buses:
            bus.stop()
        return statuses


class _View(Server):
    """One worker as a test sees it. Its clients wait for all workers when they wait for what they have caused."""

    def __init__(self, program: XmppServer) -> None:
        super().__init__(program)
        self.barrier: Barrier | None = None

    async def connect(
        self,
        transport: str = CLEAR,
        *,
        host: str = HOST,
        name: str = "client",
        required: bool = False,
        context: ssl.SSLContext | None = None,
        source: str | None = None,
    ) -> Client:
        """A connection to the worker."""
        client = await super().connect(
            transport, host=host, name=name, required=required, context=context, source=source
        )
        client.barrier = self.barrier
        return client


class ClusterServer(Server):
    """A cluster as one test sees it: every client connects to the worker after the one before it.

    ``accounts`` are those that the test has to do with; others are none of the barrier's business.
    """

    def __init__(self, cluster: Cluster, accounts: Sequence[Account]) -> None:
        super().__init__(cluster.workers[0])
        self.cluster = cluster
        self._views = [_View(worker) for worker in cluster.workers]
        barrier = Barrier(cluster.sentry, self._views, accounts)
        for view in self._views:
            view.barrier = barrier
        self._next = itertools.cycle(self._views)

    def at(self, number: int) -> Server:
        """The worker of that number, for clients that are to connect there."""
        return self._views[number]

    async def connect(
        self,
        transport: str = CLEAR,
        *,
        host: str = HOST,
        name: str = "client",
        required: bool = False,
        context: ssl.SSLContext | None = None,
        source: str | None = None,
    ) -> Client:
        """A connection to the next worker."""
        return await next(self._next).connect(
            transport, host=host, name=name, required=required, context=context, source=source
        )

    @property
    def log(self) -> str:
        """What the workers have logged since the test began."""
        return "".join(view.log for view in self._views)

    def story(self) -> str:
        """The conversations of the test's clients."""
        return "\n\n".join(view.story() for view in self._views)

    async def close(self) -> None:
        """Close all connections; fail when a worker has logged a programming error meanwhile."""
        for view in self._views:
            await view.close()

"""Two servers inside the test process that are workers of one cluster. Each has a storage of its own.

::

    async with cluster(modules) as workers:
        romeo = await workers.login(0, "romeo")
        juliet = await workers.login(1, "juliet")
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING
from unittest import mock

from monktalk.xmpp.cluster import natsbus
from monktalk.xmpp.cluster.natsbus import NatsBus, NatsOptions
from tests.support.fakenats import Broker, fake
from tests.support.inproc import HOST, InprocClient, Site, site

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from monktalk.xmpp.core.module import Module


class Workers:
    """The servers, and what carries their messages."""

    def __init__(self, broker: Broker, sites: list[Site]) -> None:
        self.broker = broker
        self.sites = sites

    def down(self, number: int) -> None:
        """A worker loses its connection to the bus."""
        self.broker.clients[number].down()

    def up(self, number: int) -> None:
        """It has a connection again."""
        self.broker.clients[number].up()

    async def settled(self) -> None:
        """Nobody has anything to do any more."""
        for _ in range(6):
            await self.broker.settled()
            for running in self.sites:
                await running.settled()

    async def authenticated(self, number: int, user: str) -> InprocClient:
        """A client of that worker which has shown who it is, and has not bound a resource."""
        running = self.sites[number]
        running.server.storage.accounts.seen(HOST, user, running.clock.now())
        client = running.connect()
        client.open()
        home = await running.server.bus.arrive(HOST, user)
        if home is None:
            client.stream.authenticated(user, b"")
        else:
            running.server.hub.relays.pass_on(client.stream, user, home, b"")
        return client

    async def login(self, number: int, user: str, resource: str = "desk") -> InprocClient:
        """A bound session of a client of that worker."""
        client = await self.authenticated(number, user)
        client.open()
        client.send(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            f"<resource>{resource}</resource></bind></iq>"
        )
        await self.settled()
        assert f"{user}@{HOST}/{resource}".encode() in b"".join(client.raw()), "bound"
        return client

    async def online(self, number: int, user: str, resource: str = "desk") -> InprocClient:
        """An available session; what it got for that is dropped."""
        client = await self.login(number, user, resource)
        client.send("<presence/>")
        await self.settled()
        client.raw()
        return client

    async def arrived(self, client: InprocClient) -> list[Element]:
        """The stanzas that the client has received since the last look."""
        await self.settled()
        return client.stanzas()


@contextlib.asynccontextmanager
async def cluster(modules: Mapping[str, type[Module]], text: str = "") -> AsyncIterator[Workers]:
    """Two running workers with these modules; ``text`` is TOML for their configuration."""
    broker = Broker()
    with mock.patch.object(natsbus, "Nats", fake(broker)):
        buses = [NatsBus(NatsOptions([]), f"node{number}") for number in range(2)]
    async with site(modules, text, bus=buses[0]) as one, site(modules, text, bus=buses[1]) as two:
        workers = Workers(broker, [one, two])
        await workers.settled()
        yield workers

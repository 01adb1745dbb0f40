"""A server inside the test process: real streams, sessions, modules and storage in memory, but no network.

::

    async with site(modules={"ping": Ping}) as server:
        romeo = server.login("romeo", "orchard")
        assert (await romeo.iq("get", "<ping xmlns='urn:xmpp:ping'/>")).get("type") == "result"

Clients log in without SASL: the stream is told that authentication has succeeded. Everything after that is as on TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from monktalk.common.clock import ManualClock
from monktalk.common.config import Config, Schema, parse
from monktalk.common.jid import JID
from monktalk.xmpp.cluster.local import LocalBus
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.core.c2s import ClientStream
from monktalk.xmpp.core.host import VirtualHost
from monktalk.xmpp.core.server import Server
from monktalk.xmpp.core.session import Session
from monktalk.xmpp.core.settings import CORE_SECTIONS
from monktalk.xmpp.protocol import xmltree
from monktalk.xmpp.protocol.stream import XmlStream
from monktalk.xmpp.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from monktalk.xmpp.cluster.bus import Bus
    from monktalk.xmpp.core.auth.provider import AuthProvider
    from monktalk.xmpp.core.module import Module
    from monktalk.xmpp.core.relay import Uplink

HOST = "capulet.example"
OTHER_HOST = "montague.example"
HEADER = (
    f"<stream:stream to='{HOST}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
)

_serial = itertools.count(1)


class Accounts:
    """Stands in for the authentication service of one host: passwords in a dictionary.

    ``available = False`` makes it fail as the service does while it is away; ``closed = True`` refuses changes.
    """

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.passwords: dict[str, str] = {}
        self.available = True
        self.closed = False
        self.asked = 0
        self._remembered: dict[str, bool] = {}

    async def _answer(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.available:
            raise AuthUnavailable("the service is switched off")

    def known(self, user: str) -> bool | None:
        """Whether there is such an account, as far as that has been asked before."""
        return self._remembered.get(user)

    async def exists(self, user: str) -> bool:
        """Whether there is such an account."""
        await self._answer()
        self._remembered[user] = user in self.passwords
        return self._remembered[user]

    async def check_password(self, user: str, password: str, address: str | None = None) -> bool:
        """Whether that is the account's password."""
        await self._answer()
        return self.passwords.get(user) == password

    async def register(self, user: str, password: str, address: str | None = None) -> None:
        """Make an account."""
        await self._answer()
        if self.closed:
            raise NotAllowed("registration is closed")
        if user in self.passwords:
            raise AccountExists(user)
        self.passwords[user] = password
        self._remembered[user] = True

    async def set_password(self, user: str, password: str, address: str | None = None) -> None:
        """Change a password."""
        await self._answer()
        if self.closed:
            raise NotAllowed("passwords are not changed here")
        if user not in self.passwords:
            raise AccountMissing(user)
        self.passwords[user] = password

    async def remove_user(self, user: str, address: str | None = None) -> None:
        """Delete an account."""
        await self._answer()
        if self.closed:
            raise NotAllowed("accounts are not removed here")
        if self.passwords.pop(user, None) is None:
            raise AccountMissing(user)
        self._remembered[user] = False

    def forget(self, user: str) -> None:
        """Another worker has changed the account."""
        self._remembered.pop(user, None)

    def forget_all(self) -> None:
        """Others' changes may have been missed."""
        self._remembered.clear()

    async def close(self) -> None:
        """Nothing is open."""


class ScriptedLink:
    """A connection whose output is gathered instead of sent. See :class:`monktalk.xmpp.core.link.Link`."""

    kind = "tcp"
    port = 0

    def __init__(self, server: Server, peer: str, *, secure: bool) -> None:
        self.peer = peer
        self.secure = secure
        self.xml: XmlStream | Uplink = XmlStream(server.parsers, 1 << 20)
        self.written: list[bytes] = []
        self.paused = False
        self.closed = False
        self.active = 1
        self.idle = 0
        self.reading = asyncio.Event()
        """Cleared by a test: the client does not read what it is sent."""
        self.reading.set()

    def write(self, data: bytes) -> None:
        """Keep the output."""
        self.written.append(data)

    def start_tls(self) -> None:
        """Pretend that the handshake has succeeded."""
        self.secure = True

    def restart(self) -> None:
        """Expect a new stream header."""
        self.xml.restart()

    def authenticated(self) -> None:
        """No limits change here."""

    def relay(self, uplink: Uplink) -> None:
        """Another worker gets what is sent from now on."""
        self.xml = uplink

    def bindings(self) -> dict[str, bytes]:
        """There is no TLS to bind to."""
        return {}

    def close(self) -> None:
        """The connection is closed."""
        self.closed = True

    def pause(self) -> None:
        """Stop reading."""
        self.paused = True

    def resume(self) -> None:
        """Read again."""
        self.paused = False

    async def drained(self) -> None:
        """Wait until the client reads."""
        await self.reading.wait()


class InprocClient:
    """A client on a stream of its own; ``session`` is None until it is logged in."""

    def __init__(self, site: Site, host: str, peer: str, *, secure: bool, tls_required: bool) -> None:
        self.site = site
        self.host = host
        self.link = ScriptedLink(site.server, peer, secure=secure)
        self.stream = ClientStream(site.server, self.link, tls_required=tls_required)
        self._read = 0

    @property
    def session(self) -> Session:
        """The bound session."""
        assert self.stream.session is not None, "not logged in"
        return self.stream.session

    @property
    def jid(self) -> JID:
        """The full JID."""
        return self.session.jid

    def send(self, xml: str) -> None:
        """Send XML; what needs no waiting is handled when this returns."""
        self.stream.handle(self.link.xml.receive(xml.encode()))

    def open(self) -> None:
        """Open or restart the stream."""
        self.send(HEADER.replace(HOST, self.host))

    def raw(self) -> list[bytes]:
        """What has been written since the last look, as it was written."""
        found, self._read = self.link.written[self._read :], len(self.link.written)
        return found

    def stanzas(self) -> list[Element]:
        """The elements that have been written since the last look; stream headers and ends are left out."""
        return _elements(b"".join(self.raw()))

    def features(self) -> Element:
        """The stream features that have just been written."""
        return next(node for node in self.stanzas() if node.tag.endswith("}features"))

    def login(self, user: str, resource: str | None = None) -> None:
        """Open the stream, be authenticated, bind."""
        self.open()
        self.stream.authenticated(user, b"")
        self.open()
        wanted = f"<resource>{resource}</resource>" if resource else ""
        self.send(f"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{wanted}</bind></iq>")
        assert self.stream.session is not None, self.raw()
        self.raw()

    async def available(self, inner: str = "") -> list[Element]:
        """Send available presence and return what comes of it."""
        self.send(f"<presence>{inner}</presence>")
        return await self.arrived()

    async def arrived(self) -> list[Element]:
        """What has been written since the last look, when the server has nothing more to do."""
        await self.site.settled()
        return self.stanzas()

    async def iq(self, kind: str, payload: str, *, to: str | None = None, lang: str | None = None) -> Element:
        """Send a request and return its answer. Everything else that came is dropped."""
        number = f"q{next(_serial)}"
        addressed = f" to='{to}'" if to else ""
        language = f" xml:lang='{lang}'" if lang else ""
        self.send(f"<iq type='{kind}' id='{number}'{addressed}{language}>{payload}</iq>")
        answers = [node for node in await self.arrived() if node.get("id") == number]
        assert len(answers) == 1, f"{len(answers)} answers to {payload}"
        return answers[0]

    def drop(self) -> None:
        """Lose the connection."""
        self.link.closed = True
        self.stream.lost()


class Site:
    """The server of a test, and the clients that are connected to it."""

    def __init__(self, server: Server, storage: MemoryStorage, clock: ManualClock) -> None:
        self.server = server
        self.storage = storage
        self.clock = clock

    @property
    def host(self) -> VirtualHost:
        """The first host."""
        return self.server.hosts[HOST]

    def accounts(self, domain: str = HOST) -> Accounts:
        """The accounts of a host."""
        accounts: Any = self.server.hosts[domain].auth
        assert isinstance(accounts, Accounts)
        return accounts

    def connect(
        self, host: str = HOST, *, peer: str = "192.0.2.1", secure: bool = True, tls_required: bool = False
    ) -> InprocClient:
        """A connection on which nothing has been sent."""
        return InprocClient(self, host, peer, secure=secure, tls_required=tls_required)

    def login(
        self, user: str, resource: str | None = None, *, host: str = HOST, peer: str = "192.0.2.1"
    ) -> InprocClient:
        """A bound session that has not sent presence. The account is made when there is none."""
        self.accounts(host).passwords.setdefault(user, "secret")
        self.server.storage.accounts.seen(host, user, self.clock.now())
        client = self.connect(host, peer=peer)
        client.login(user, resource)
        return client

    async def online(
        self, user: str, resource: str | None = None, inner: str = "", *, host: str = HOST
    ) -> InprocClient:
        """A session that is available; what it got for that is dropped."""
        client = self.login(user, resource, host=host)
        await client.available(inner)
        return client

    async def settled(self) -> None:
        """Wait until the server has nothing to do: no task is under way, and no result of the storage is due."""
        quiet = 0
        while quiet < 20:
            tasks = list(self.server._tasks)
            if tasks:
                await asyncio.wait(tasks)
                quiet = 0
            await asyncio.sleep(0)
            quiet += 1


class _Server(Server):
    def _auth(self, domain: str) -> AuthProvider:
        stand_in: Any = Accounts(domain)
        provider: AuthProvider = stand_in
        return provider


class _Tls:
    available = True


def configuration(
    modules: Mapping[str, type[Module]], text: str = "", hosts: tuple[str, ...] = (HOST, OTHER_HOST)
) -> Config:
    """The configuration of a test: ``text`` is TOML beside the hosts; ``[general]`` may not be in it."""
    sections = [*CORE_SECTIONS, *(module.section() for module in modules.values())]
    names = ", ".join(f'"{host}"' for host in hosts)
    general = f"[general]\nhosts = [{names}]\n"
    return parse(general + text, "test.toml", Schema(sections))


@contextlib.asynccontextmanager
async def site(
    modules: Mapping[str, type[Module]],
    text: str = "",
    *,
    hosts: tuple[str, ...] = (HOST, OTHER_HOST),
    bus: Bus | None = None,
) -> AsyncIterator[Site]:
    """A running server with these modules; ``text`` is TOML for its configuration."""
    clock = ManualClock(now=1_700_000_000.0, monotonic=1_000.0)
    storage = MemoryStorage(clock.now)
    server = _Server(configuration(modules, text, hosts), modules, storage, bus or LocalBus(), _Tls(), clock=clock)
    await server.start()
    running = Site(server, storage, clock)
    try:
        yield running
    finally:
        storage.set_available(True)
        await server.stop()


def _elements(data: bytes) -> list[Element]:
    """The elements in what the server wrote, wherever stream headers stand between them."""
    opened = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    found: list[Element] = []
    for part in data.replace(b"</stream:stream>", b"").split(b"<?xml version='1.0'?>"):
        body = part[part.index(b">") + 1 :] if part.startswith(b"<stream:stream") else part
        found += xmltree.from_bytes(opened + body + b"</stream:stream>")
    return found


def condition(answer: Element) -> str:
    """The condition of a stanza of type ``error``, with its type: ``item-not-found/cancel``."""
    assert answer.get("type") == "error", xmltree.to_bytes(answer)
    error = answer.find("{jabber:client}error")
    assert error is not None
    return f"{error[0].tag.rpartition('}')[2]}/{error.get('type')}"


def payload(answer: Element) -> Element:
    """The payload of a result."""
    assert answer.get("type") == "result", xmltree.to_bytes(answer)
    assert len(answer) == 1, xmltree.to_bytes(answer)
    return answer[0]

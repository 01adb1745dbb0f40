"""The client of the conversations: sends XML as text, expects XML as text.

romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
await romeo.send(f"<message to='{juliet.bare}' type='chat'><body>hi</body></message>")
await juliet.receives(f"<message from='{romeo.full}' to='{juliet.bare}' type='chat'><body>hi</body></message>")
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from tests.support import sasl
from tests.support.accounts import Account
from tests.support.matching import (
    CLIENT,
    SM,
    STREAM,
    STREAM_ERRORS,
    assert_matches,
    difference,
    matches,
    parse,
    show,
)
from tests.support.wire import PATIENCE, ConnectionEnd, Header, StreamEnd, Wire

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
SERVER_END_POINT = "tls-server-end-point"

_serial = itertools.count(1)


def client_context(*, alpn: str | None = "xmpp-client") -> ssl.SSLContext:
    """A TLS context that takes the servers' self-signed certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context


def stream_header(to: str | None = "localhost", **attributes: str) -> str:
    """A client's stream header. Keyword arguments are further attributes, or replace the usual ones."""
    usual = {"version": "1.0", "xmlns": CLIENT, "xmlns:stream": STREAM}
    if to is not None:
        usual["to"] = to
    pairs = " ".join(f"{key}={quoteattr(value)}" for key, value in (usual | attributes).items())
    return f"<?xml version='1.0'?><stream:stream {pairs}>"


class Client:
    """One stream, from the connection to the end. ``jid`` is set by :meth:`bind`."""

    def __init__(self, wire: Wire, host: str) -> None:
        self.wire = wire
        self.host = host
        self._account: Account | None = None
        self.full = ""
        self.features: ET.Element | None = None
        self.header: dict[str, str] = {}
        self.skips_acks = True
        """Stream management's requests and answers are not of interest to the test."""
        self.handled = 0
        """How much the server has handled, as it said when it resumed the session."""
        self.barrier: Callable[[], Awaitable[None]] | None = None
        """Waits for what has been caused at other workers, where there are some."""
        self._inbox: deque[ET.Element] = deque()

    @property
    def account(self) -> Account:
        """The account that has authenticated."""
        assert self._account is not None, "nobody has authenticated"
        return self._account

    @property
    def known(self) -> bool:
        """The client has authenticated."""
        return self._account is not None

    @property
    def user(self) -> str:
        """The localpart of the account."""
        return self.account.user

    @property
    def bare(self) -> str:
        """The bare JID."""
        return self.full.partition("/")[0]

    @property
    def resource(self) -> str:
        """The resource."""
        return self.full.partition("/")[2]

    # ------------------------------------------------------------------------------------- sending, receiving

    async def send(self, xml: str) -> None:
        """Send XML (or anything else) as it is."""
        await self.wire.write(xml.encode())

    async def next(self, patience: float = PATIENCE) -> ET.Element:
        """The next element that came; fails when the stream ends instead."""
        return self._inbox.popleft() if self._inbox else await self._arriving(patience)

    async def _arriving(self, patience: float = PATIENCE) -> ET.Element:
        while True:
            event = await self.wire.event(patience)
            if not isinstance(event, ET.Element):
                raise AssertionError(f"{self.wire.name}: the stream ended\n{self.wire.story()}")
            if self.skips_acks and event.tag in (f"{{{SM}}}r", f"{{{SM}}}a"):
                continue
            return event

    async def receives(self, expected: str, patience: float = PATIENCE) -> ET.Element:
        """The next element is ``expected`` (see :mod:`tests.support.matching`)."""
        node = await self.next(patience)
        assert_matches(node, expected, f"{self.wire.name}: ")
        return node

    async def receives_all(self, *expected: str) -> None:
        """The next elements are the expected ones, in any order."""
        left = list(expected)
        while left:
            node = await self.next()
            match = next((xml for xml in left if matches(node, xml)), None)
            if match is None:
                nearest = min((difference(node, parse(xml)) or "" for xml in left), key=len)
                wanted = "\n            ".join(left)
                raise AssertionError(f"{self.wire.name}: {nearest}\n  received: {show(node)}\n  expected: {wanted}")
            left.remove(match)

    async def receives_nothing(self, after: Iterable[Client] = ()) -> None:
        """Nothing has come, proven by round trips: of the clients ``after``, whose stanzas count, then of this one."""
        for other in after:
            await other.settled()
        await self.settled()
        if self._inbox:
            seen = "\n  ".join(show(node) for node in self._inbox)
            raise AssertionError(f"{self.wire.name}: received what was not expected:\n  {seen}")

    async def settled(self) -> None:
        """Everything that this client sent so far has been handled by the server, and has taken effect."""
        await self.answered()
        if self.barrier is not None:
            await self.barrier()
            await self.answered()

    async def answered(self) -> None:
        """The worker at which the client's session is has handled everything that this client sent so far."""
        reply = await self.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to=self.host)
        assert reply.get("type") in ("result", "error"), show(reply)

    async def drained(self) -> list[ET.Element]:
        """What has come so far and nobody asked for; the inbox is empty afterwards."""
        await self.settled()
        found = list(self._inbox)
        self._inbox.clear()
        return found

    # ------------------------------------------------------------------------------------------------ queries

    async def iq(self, kind: str, payload: str, *, to: str | None = None, lang: str | None = None) -> ET.Element:
        """Send an IQ and return its answer; what comes meanwhile stays in the inbox, in order."""
        stanza_id = f"q{next(_serial)}"
        addressed = f" to={quoteattr(to)}" if to else ""
        language = f" xml:lang='{lang}'" if lang else ""
        await self.send(f"<iq type='{kind}' id='{stanza_id}'{addressed}{language}>{payload}</iq>")
        while True:
            node = await self._arriving()
            if (
                node.tag == f"{{{CLIENT}}}iq"
                and node.get("id") == stanza_id
                and node.get("type") in ("result", "error")
            ):
                return node
            self._inbox.append(node)

    async def get(self, payload: str, *, to: str | None = None, lang: str | None = None) -> ET.Element:
        """The answer to an IQ of type ``get``, result or error."""
        return await self.iq("get", payload, to=to, lang=lang)

    async def set(self, payload: str, *, to: str | None = None, lang: str | None = None) -> ET.Element:
        """The answer to an IQ of type ``set``, result or error."""
        return await self.iq("set", payload, to=to, lang=lang)

    # ------------------------------------------------------------------------------------------------- stream

    async def open_stream(self, to: str | None = None, **attributes: str) -> ET.Element:
        """Open (or restart) the stream and return the server's features."""
        self.wire.restart()
        await self.send(stream_header(self.host if to is None else to, **attributes))
        self.header = await self.receives_header()
        self.features = await self.next()
        assert self.features.tag == f"{{{STREAM}}}features", show(self.features)
        return self.features

    async def receives_header(self) -> dict[str, str]:
        """The server opens its stream; returns the attributes."""
        event = await self.wire.event()
        assert isinstance(event, Header), f"{self.wire.name}: no stream header\n{self.wire.story()}"
        return event.attributes

    def offers(self, namespace: str, name: str) -> bool:
        """Whether the features that came last have that element."""
        return self.feature(namespace, name) is not None

    def feature(self, namespace: str, name: str) -> ET.Element | None:
        """That element of the features that came last."""
        assert self.features is not None, "no features yet"
        return self.features.find(f"{{{namespace}}}{name}")

    @property
    def mechanisms(self) -> list[str]:
        """The SASL mechanisms on offer."""
        offered = self.feature(SASL, "mechanisms")
        if offered is None:
            return []
        return [node.text or "" for node in offered.findall(f"{{{SASL}}}mechanism")]

    async def starttls(self) -> None:
        """Negotiate TLS on a stream that is open, and restart the stream."""
        await self.send(f"<starttls xmlns='{TLS}'/>")
        await self.receives(f"<proceed xmlns='{TLS}'/>")
        await self.wire.start_tls(client_context(), self.host)
        await self.open_stream()

    async def stream_error(self, *conditions: str) -> ET.Element:
        """The server ends the stream with an error and closes the connection; returns the error.

        The error is one of the conditions; any one will do when none is named.
        """
        while True:
            event = await self.wire.event()
            if isinstance(event, ET.Element) and event.tag == f"{{{STREAM}}}error":
                break
            if isinstance(event, StreamEnd | ConnectionEnd):
                raise AssertionError(f"{self.wire.name}: no stream error\n{self.wire.story()}")
        namespace = f"{{{STREAM_ERRORS}}}"
        found = [node.tag.removeprefix(namespace) for node in event if node.tag.startswith(namespace)]
        named = [condition for condition in found if condition != "text"]
        assert len(named) == 1, f"one condition expected: {show(event)}"
        assert not conditions or named[0] in conditions, f"expected {' or '.join(conditions)}: {show(event)}"
        await self.closed_by_server()
        return event

    async def closed_by_server(self) -> None:
        """The server ends its stream and then the connection, and says nothing else."""
        event = await self.wire.event()
        assert isinstance(event, StreamEnd), f"{self.wire.name}: no </stream:stream>\n{self.wire.story()}"
        await self.disconnected()

    async def disconnected(self) -> None:
        """The server closes the connection."""
        event = await self.wire.event()
        assert isinstance(event, ConnectionEnd), f"{self.wire.name}: not closed\n{self.wire.story()}"

    async def end(self) -> None:
        """Close the stream in good order: both sides send their end tag (RFC 6120, 4.4)."""
        await self.send("</stream:stream>")
        while not isinstance(event := await self.wire.event(), StreamEnd):
            assert isinstance(event, ET.Element), f"{self.wire.name}: no </stream:stream>\n{self.wire.story()}"
        await self.wire.close()

    def drop(self) -> None:
        """Lose the connection without a word."""
        self.wire.drop()

    # --------------------------------------------------------------------------------------------------- SASL

    async def auth(self, mechanism: str, initial: bytes | None) -> ET.Element:
        """Send ``<auth/>`` and return the answer."""
        content = sasl.b64(initial) if initial is not None else ""
        await self.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{content}</auth>")
        return await self.next()

    async def respond(self, message: bytes) -> ET.Element:
        """Answer a challenge and return what the server says to it."""
        await self.send(f"<response xmlns='{SASL}'>{sasl.b64(message) if message else ''}</response>")
        return await self.next()

    def binding(self) -> tuple[str, bytes]:
        """The channel binding tls-server-end-point (RFC 5929) of this connection."""
        return SERVER_END_POINT, hashlib.sha256(self.wire.peer_certificate()).digest()

    def scram(self, mechanism: str, account: Account, password: str | None = None) -> sasl.Scram:
        """A SCRAM exchange for the account, bound to the channel for the -PLUS mechanisms."""
        plus = mechanism.endswith("-PLUS")
        return sasl.Scram(
            sasl.HASHES[mechanism.removesuffix("-PLUS")],
            account.user,
            account.password if password is None else password,
            binding=self.binding() if plus else None,
        )

    async def sasl(self, account: Account, mechanism: str = "PLAIN", password: str | None = None) -> ET.Element:
        """Authenticate and return ``<success/>`` or ``<failure/>``."""
        if mechanism == "PLAIN":
            secret = account.password if password is None else password
            return await self.auth("PLAIN", sasl.plain(account.user, secret))
        exchange = self.scram(mechanism, account, password)
        challenge = await self.auth(mechanism, exchange.first())
        if challenge.tag != f"{{{SASL}}}challenge":
            return challenge
        answer = await self.respond(exchange.final(decoded(challenge)))
        if answer.tag == f"{{{SASL}}}success":
            exchange.verify(decoded(answer))
        return answer

    async def authenticate(self, account: Account, mechanism: str = "PLAIN") -> None:
        """Authenticate, which has to succeed, and restart the stream."""
        answer = await self.sasl(account, mechanism)
        assert answer.tag == f"{{{SASL}}}success", show(answer)
        self._account = account
        await self.open_stream()

    async def bind(self, resource: str | None = None) -> str:
        """Bind a resource and return the full JID."""
        inner = f"<resource>{resource}</resource>" if resource is not None else ""
        answer = await self.set(f"<bind xmlns='{BIND}'>{inner}</bind>")
        assert answer.get("type") == "result", show(answer)
        self.full = answer.findtext(f"{{{BIND}}}bind/{{{BIND}}}jid") or ""
        assert self.full, show(answer)
        self.wire.name = self.full
        return self.full

    # ----------------------------------------------------------------------------------------------- presence

    async def available(self, inner: str = "", priority: int | None = None) -> None:
        """Send presence and wait for the server's echo of it (RFC 6121, 4.2.2); everybody has been told afterwards."""
        shown = f"<priority>{priority}</priority>" if priority is not None else ""
        await self.send(f"<presence>{inner}{shown}</presence>")
        await self._echo(None)
        if self.barrier is not None:
            await self.barrier()

    async def unavailable(self) -> None:
        """Send presence of type ``unavailable``; it has been handled afterwards."""
        await self.send("<presence type='unavailable'/>")
        await self.settled()
        self._inbox = deque(
            node for node in self._inbox if (node.get("from"), node.get("type")) != (self.full, "unavailable")
        )

    async def _echo(self, kind: str | None) -> None:
        passed: list[ET.Element] = []
        while True:
            node = await self.next()
            if node.tag == f"{{{CLIENT}}}presence" and (node.get("from"), node.get("type")) == (self.full, kind):
                break
            passed.append(node)
        self._inbox.extendleft(reversed(passed))

    async def roster(self, version: str | None = None) -> ET.Element:
        """Request the roster, which makes this an interested resource (RFC 6121, 2.2); returns the answer."""
        ver = f" ver={quoteattr(version)}" if version is not None else ""
        return await self.get(f"<query xmlns='jabber:iq:roster'{ver}/>")


def decoded(node: ET.Element) -> bytes:
    """What a SASL element carries."""
    return base64.b64decode(node.text or "")


async def befriend(one: Client, other: Client) -> None:
    """Give the two a mutual subscription. Best before they are available or interested: nobody hears of it then."""
    for asks, answers in ((one, other), (other, one)):
        await asks.send(f"<presence to='{answers.bare}' type='subscribe'/>")
        await asks.settled()
        await answers.send(f"<presence to='{asks.bare}' type='subscribed'/>")
        await answers.settled()

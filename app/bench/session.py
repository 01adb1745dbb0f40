"""One XMPP client: connect, TLS, SASL, bind, stream management, presence, close (RFC 6120, RFC 6121, XEP-0198)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Protocol

from bench import sasl
from bench.stream import StreamReader, StreamSyntaxError, attribute
from bench.transport import Connection, Loop

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator

_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_TLS = "urn:ietf:params:xml:ns:xmpp-tls"
_BIND = "urn:ietf:params:xml:ns:xmpp-bind"
_SESSION = "urn:ietf:params:xml:ns:xmpp-session"
_PING = "urn:xmpp:ping"
_MANAGEMENT = "urn:xmpp:sm:3"
ACK_REQUEST = f"<r xmlns='{_MANAGEMENT}'/>".encode()
_STANZAS = (b"<message", b"<presence", b"<iq")
_TEXT = re.compile(rb"<[^>]*>([^<]*)<")
_MECHANISM = re.compile(rb"<mechanism>([^<]*)</mechanism>")


class SessionError(Exception):
    """A login failed or an established session broke; the text says where."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how clients connect.

    Attributes:
        tls: a context, or None for a connection in the clear.
        direct: TLS from the first byte (XEP-0368); otherwise STARTTLS.
    """

    address: tuple[str, int]
    domain: str
    tls: ssl.SSLContext | None
    direct: bool


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in."""

    user: str
    password: str
    resource: str


class Owner(Protocol):
    """Who is told what becomes of a session."""

    def session_ready(self, session: Session) -> None:
        """Logged in: bound, available, own presence seen."""

    def session_ended(self, session: Session, error: str) -> None:
        """The session is over; `error` is empty when we had asked for it."""


class Session:
    """Logs in by itself; afterwards `on_data` gets what the server sends."""

    __slots__ = (
        "_connection",
        "_endpoint",
        "_loop",
        "_management",
        "_mechanism",
        "_owner",
        "_reader",
        "_steps",
        "account",
        "acknowledged",
        "closing",
        "inbound",
        "jid",
        "on_data",
        "on_message",
        "outbound",
        "ready_time",
        "start_time",
    )

    def __init__(
        self, loop: Loop, endpoint: Endpoint, account: Account, owner: Owner, *, mechanism: str, management: bool
    ) -> None:
        """Start connecting.

        Args:
            loop: the loop that serves the connection.
            endpoint: where to connect.
            account: who logs in.
            owner: who is told.
            mechanism: one of sasl.MECHANISMS.
            management: enable stream management (XEP-0198), with resumption as usual clients ask for it.
        """
        self._loop = loop
        self._endpoint = endpoint
        self._owner = owner
        self._mechanism = mechanism
        self._management = management
        self._reader = StreamReader()
        self._steps: Generator[None, bytes, None] | None = None
        self.account = account
        self.jid = b""
        self.inbound = 0
        self.outbound = 0
        self.acknowledged = -1
        self.closing = False
        self.on_data: Callable[[bytes], None] = self._negotiate
        self.on_message: Callable[[bytes], None] = _ignore
        self.start_time = time.perf_counter()
        self.ready_time = 0.0
        self._connection = Connection(loop, endpoint.address, self, endpoint.tls if endpoint.direct else None)

    # ------------------------------------------------------------------------------- what the connection reports

    def connected(self) -> None:
        """TCP is there, or TLS is."""
        if self._steps is None:
            self._steps = self._login()
            next(self._steps)
        else:
            # STARTTLS is done: the generator waits for the new stream's header.
            self._open_stream()

    def received(self, data: bytes) -> None:
        """Bytes from the server."""
        try:
            self.on_data(data)
        except (SessionError, StreamSyntaxError, sasl.AuthenticationError) as error:
            self.fail(str(error))

    def disconnected(self, reason: str) -> None:
        """The server went away."""
        self._owner.session_ended(self, "" if self.closing else self._describe(reason))

    # ------------------------------------------------------------------------------------------------- the login

    def _negotiate(self, data: bytes) -> None:
        for element in self._reader.feed(data):
            if self._steps is None:
                self.handle(element)
                continue
            try:
                self._steps.send(element)
            except StopIteration:
                self._steps = None
                self.on_data = self._established
                self.ready_time = time.perf_counter()
                self._owner.session_ready(self)

    def _login(self) -> Generator[None, bytes, None]:
        """The conversation as one text: each `yield` waits for the server's next element."""
        self._open_stream()
        features = yield from self._features()
        if self._endpoint.tls is not None and not self._endpoint.direct:
            self.send(f"<starttls xmlns='{_TLS}'/>".encode())
            _expect((yield), b"<proceed")
            self._connection.start_tls(self._endpoint.tls)
            features = yield from self._features()
        yield from self._authenticate(features)
        self._open_stream()
        features = yield from self._features()
        yield from self._bind(features)
        if self._management:
            self.send(f"<enable xmlns='{_MANAGEMENT}' resume='true'/>".encode())
            _expect((yield), b"<enabled")
        self.send(b"<presence/>")
        self.outbound = 1
        while True:
            # Other resources of the account may be announced before our own presence comes back.
            element = yield
            self.handle(element)
            if element.startswith(b"<presence") and attribute(element, b"from") == self.jid:
                return

    def _features(self) -> Generator[None, bytes, bytes]:
        _expect((yield), b"<stream:stream")
        features = yield
        _expect(features, b"<stream:features")
        return features

    def _authenticate(self, features: bytes) -> Generator[None, bytes, None]:
        offered = [name.decode() for name in _MECHANISM.findall(features)]
        if self._mechanism not in offered:
            raise SessionError(f"the server does not offer {self._mechanism}, only {', '.join(offered) or 'nothing'}")
        user, password = self.account.user, self.account.password
        if self._mechanism == sasl.PLAIN:
            self._send_auth(sasl.plain_message(user, password))
            _expect((yield), b"<success")
            return
        scram = sasl.ScramClient(user, password)
        self._send_auth(scram.first())
        challenge = yield
        _expect(challenge, b"<challenge")
        answer = scram.final(_text(challenge))
        self.send(f"<response xmlns='{_SASL}'>".encode() + answer + b"</response>")
        success = yield
        _expect(success, b"<success")
        scram.verify(_text(success))

    def _send_auth(self, message: bytes) -> None:
        self.send(f"<auth xmlns='{_SASL}' mechanism='{self._mechanism}'>".encode() + message + b"</auth>")

    def _bind(self, features: bytes) -> Generator[None, bytes, None]:
        resource = escape(self.account.resource)
        self.send(
            f"<iq type='set' id='bind'><bind xmlns='{_BIND}'><resource>{resource}</resource></bind></iq>".encode()
        )
        result = yield
        _expect(result, b"<iq")
        jid = re.search(rb"<jid>([^<]*)</jid>", result)
        if jid is None:
            raise SessionError(f"binding was refused: {_excerpt(result)}")
        self.jid = jid[1]
        # RFC 3921's session, for servers that do not say it is optional.
        session = re.search(rb"<session\b.*?(?:/>|</session>)", features, re.DOTALL)
        if session is not None and b"optional" not in session[0]:
            self.send(f"<iq type='set' id='session'><session xmlns='{_SESSION}'/></iq>".encode())
            _expect((yield), b"<iq")

    def _open_stream(self) -> None:
        self._reader = StreamReader()
        self.send(
            f"<?xml version='1.0'?><stream:stream to='{self._endpoint.domain}' version='1.0' xml:lang='en' "
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>".encode()
        )

    # ---------------------------------------------------------------------------------------------- once logged in

    def _established(self, data: bytes) -> None:
        for element in self._reader.feed(data):
            self.handle(element)

    def handle(self, element: bytes) -> None:
        """Account for one element: count stanzas, answer acknowledgement requests, note acknowledgements.

        Raises:
            SessionError: the server ended the stream although we did not ask.
        """
        if element.startswith(_STANZAS):
            self.inbound += 1
            if element.startswith(b"<message"):
                self.on_message(element)
            elif element.startswith(b"<iq") and attribute(element, b"type") == b"get":
                self._answer_ping(element)
        elif element.startswith(b"<r ") or element == b"<r/>":
            self.send(b"<a xmlns='%b' h='%d'/>" % (_MANAGEMENT.encode(), self.inbound))
        elif element.startswith(b"<a "):
            self.acknowledged = int(attribute(element, b"h") or b"-1")
        elif element.startswith((b"</stream:stream", b"<stream:error")):
            if not self.closing:
                raise SessionError(f"the server ended the stream: {_excerpt(element)}")
            self._connection.close()
            self._owner.session_ended(self, "")

    def _answer_ping(self, element: bytes) -> None:
        identifier = attribute(element, b"id") or b""
        self.send(b"<iq type='result' id='%b'/>" % identifier)
        self.outbound += 1

    def ping(self) -> None:
        """Ask the server whether the session lives; any answer counts."""
        self.send(f"<iq type='get' id='ping' to='{self._endpoint.domain}'><ping xmlns='{_PING}'/></iq>".encode())
        self.outbound += 1

    def send(self, data: bytes) -> None:
        """Send bytes; whoever sends stanzas adds them to `outbound`."""
        self._connection.send(data)

    def close(self) -> None:
        """End the stream; the owner hears of it when the server has closed too."""
        self.closing = True
        self.send(b"</stream:stream>")

    def fail(self, reason: str) -> None:
        """Give the session up and tell the owner."""
        self._connection.close()
        self._owner.session_ended(self, self._describe(reason))

    def abandon(self) -> None:
        """Close the socket and tell nobody."""
        self._connection.close()

    def _describe(self, reason: str) -> str:
        stage = "in the session" if self._steps is None and self.ready_time else "while logging in"
        return f"{self.account.user}/{self.account.resource} {stage}: {reason}"


def _ignore(_element: bytes) -> None:
    """Messages that nobody asked for, an announcement of the server for example."""


def _expect(element: bytes, start: bytes) -> None:
    if not element.startswith(start):
        raise SessionError(f"expected {start.decode()}, got {_excerpt(element)}")


def _excerpt(element: bytes) -> str:
    return element[:300].decode(errors="replace")


def _text(element: bytes) -> bytes:
    match = _TEXT.match(element)
    return b"" if match is None else match[1]

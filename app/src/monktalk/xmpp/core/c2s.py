"""The life of a client stream: header, features, STARTTLS, errors, close (RFC 6120 sections 4 and 5).

Authentication is in :mod:`login`, resource binding and resumption in :mod:`binding`; a bound stream hands stanzas to its
:class:`~monktalk.xmpp.core.session.Session`.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING, Any

from monktalk.common.jid import JID, InvalidJID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core import binding
from monktalk.xmpp.core.link import CLOSED, Link
from monktalk.xmpp.core.login import Login
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, PRESENCE, Stanza
from monktalk.xmpp.protocol.stream import (
    STREAM_END,
    Event,
    StreamClosed,
    StreamFault,
    StreamOpened,
    stream_header,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Iterable

    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.relay import Uplink
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Session

log = get_logger(__name__)

_STARTTLS = ns.qname(ns.TLS, "starttls")
_STANZAS = (MESSAGE, PRESENCE, IQ)


class ClientStream:
    """One stream of one client, on any kind of link.

    ``host`` is None until the header has named it; ``user`` is the authenticated localpart; ``session`` the bound resource.
    """

    __slots__ = (
        "_backlog",
        "_closed",
        "_epoch",
        "_login",
        "_opened",
        "_task",
        "_uplink",
        "host",
        "id",
        "lang",
        "link",
        "peer",
        "server",
        "session",
        "tls_required",
        "user",
    )

    def __init__(self, server: Server, link: Link, *, tls_required: bool) -> None:
        self.server = server
        self.link: Link = link
        self.peer = link.peer
        self.tls_required = tls_required
        self.id = ""
        self.host: VirtualHost | None = None
        self.user: str | None = None
        self.session: Session | None = None
        self.lang: str | None = None
        self._opened = False
        self._closed = False
        self._epoch = 0
        self._login: Login | None = None
        self._task: asyncio.Task[None] | None = None
        self._backlog: deque[Event] | None = None
        self._uplink: Uplink | None = None

    # -- input ---------------------------------------------------------------------------------------------------

    def handle(self, events: Iterable[Event]) -> None:
        """Take what the parser found. After the stream has been closed everything is ignored.

        So is what came together with the element that restarts the stream: otherwise bytes that somebody put in
        front of the TLS handshake would count as if they had come inside of it (CVE-2011-0411 and its kin).
        """
        epoch = self._epoch
        try:
            for event in events:
                if self._epoch != epoch:
                    return
                session = self.session
                if session is not None and event.__class__ is Stanza:
                    session.receive(event)
                elif self._task is not None:
                    self._defer(event)
                elif not self._closed:
                    self._handle(event)
        except StreamError as error:
            self.fail(error)
        except Exception:
            log.exception("stream_failed", stream=self.id, ip=self.peer)
            self.fail(StreamError("internal-server-error"))

    def _defer(self, event: Event) -> None:
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(event)
        self.link.pause()

    def _handle(self, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self._open(event)
        elif isinstance(event, StreamFault):
            raise event.error
        elif isinstance(event, StreamClosed):
            self.close("closed by the client")
        else:
            self._handle_element(event)

    def _handle_element(self, element: Stanza) -> None:
        if self.host is not None and self.server.hosts.get(self.host.domain) is not self.host:
            raise StreamError("host-gone", "the domain is not served any more")
        if element.name == _STARTTLS:
            self._start_tls()
        elif self.user is None:
            self._handle_unauthenticated(element)
        elif not binding.handle(self, element):
            raise StreamError("not-authorized", "bind a resource before anything else")

    def _handle_unauthenticated(self, element: Stanza) -> None:
        assert self.host is not None
        if element.name.startswith(ns.SASL):
            if self._login is None:
                self._login = Login(self)
            self._login.handle(element)
        elif element.name in _STANZAS:
            if self.clear_refused or not self.host.hooks.stream_element(self, element):
                raise StreamError("not-authorized", "authenticate before sending stanzas")
        else:
            raise StreamError("unsupported-stanza-type", "this element is not expected here")

    def session_element(self, element: Stanza) -> bool:
        """An element that is no stanza, on a bound stream. False when it is not known."""
        if element.name == _STARTTLS:
            self._start_tls()
            return True
        return binding.handle_bound(self, element)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` before anything else that comes on the stream is handled."""
        assert self._task is None, "a stream waits for one thing at a time"
        self._task = self.server.spawn(self._work(work))

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StreamError as error:
            self.fail(error)
        except Exception:
            log.exception("stream_failed", stream=self.id, ip=self.peer)
            self.fail(StreamError("internal-server-error"))
        finally:
            self._task = None
            backlog, self._backlog = self._backlog, None
            if backlog:
                self.handle(backlog)
            if self._task is None and not self._closed:
                self.link.resume()

    # -- negotiation ---------------------------------------------------------------------------------------------

    @property
    def clear_refused(self) -> bool:
        """The stream is in clear, and the listener wants TLS before anything else."""
        return self.tls_required and not self.link.secure

    def _open(self, opened: StreamOpened) -> None:
        if self._opened:
            raise StreamError("bad-format", "the stream is open already")
        self.id = secrets.token_hex(16)
        self.lang = opened.lang
        host = self.server.host_for(opened.to)
        known = self.host
        if known is None and host is not None:
            self.host = host
        answering = self.host.domain if self.host is not None else self.server.default_domain
        to = _echo(opened.from_) if self.link.secure else None
        self.link.write(stream_header(self.id, answering, to, self.server.language))
        self._opened = True
        if host is None or (known is not None and known is not host):
            raise StreamError("host-unknown", "this server does not serve the domain that the stream is addressed to")
        self._check_version(opened.version)
        self._check_from(opened.from_)
        self.link.write(self._features(host))

    @staticmethod
    def _check_version(version: str | None) -> None:
        major = (version or "0").partition(".")[0]
        if not major.isascii() or not major.isdigit() or int(major[:4]) < 1:
            raise StreamError("unsupported-version", "the stream must have version 1.0")

    def _check_from(self, claimed: str | None) -> None:
        if self.user is None or claimed is None or self.host is None:
            return
        try:
            same = JID.parse(claimed).bare == JID.of(self.user, self.host.domain).bare
        except InvalidJID:
            same = False
        if not same:
            raise StreamError("invalid-from", "the stream is not from the account that has authenticated")

    def _features(self, host: VirtualHost) -> bytes:
        features: list[bytes] = []
        if not self.link.secure and self.user is None and self.server.tls.available:
            required = b"<required/>" if self.tls_required else b""
            features.append(f"<starttls xmlns='{ns.TLS}'>".encode() + required + b"</starttls>")
        if self.user is not None:
            features.append(binding.features(host))
        elif not self.clear_refused:
            features.append(Login.features(self, host))
        if self.user is not None or not self.clear_refused:
            host.hooks.stream_features(self, features)
        features.append(self._limits(host))
        return b"<stream:features>" + b"".join(features) + b"</stream:features>"

    def _limits(self, host: VirtualHost) -> bytes:
        limits = host.limits
        size = limits.stanza_size if self.user is not None else limits.stanza_size_unauthenticated
        idle = limits.idle_time if self.user is not None else limits.login_time
        seconds = f"<idle-seconds>{int(idle)}</idle-seconds>" if idle else ""
        return f"<limits xmlns='{ns.STREAM_LIMITS}'><max-bytes>{size}</max-bytes>{seconds}</limits>".encode()

    def _start_tls(self) -> None:
        if self.link.secure or self.user is not None or not self.server.tls.available:
            self.link.write(f"<failure xmlns='{ns.TLS}'/>".encode())
            self.close("STARTTLS at a wrong time")
            return
        self.link.write(f"<proceed xmlns='{ns.TLS}'/>".encode())
        self._restart()
        self.link.start_tls()

    def authenticated(self, user: str, success: bytes) -> None:
        """SASL has succeeded: send ``success`` and expect a new header (RFC 6120 section 6.4.6)."""
        assert self.host is not None
        if self._closed:
            self.host.left(user)
            return
        self.host.arriving[self] = user
        self.user = user
        self._login = None
        self.link.write(success)
        self.link.authenticated()
        self._restart()

    @property
    def closed(self) -> bool:
        """The stream has ended."""
        return self._closed

    def relayed(self, uplink: Uplink) -> None:
        """The client has authenticated, and its user's home is another worker, which serves it from now on."""
        self._login = None
        self._epoch += 1
        self._backlog = None
        self._uplink = uplink

    def relay_ended(self) -> None:
        """The worker that serves the client has closed the stream."""
        self._closed = True
        self._uplink = None
        self.link.close()
        self._release("closed by the session's worker", resumable=False)

    @property
    def arrived(self) -> bool:
        """The client has a session, here or elsewhere."""
        return self.session is not None or self._uplink is not None

    def _restart(self) -> None:
        self._opened = False
        self._epoch += 1
        self._backlog = None
        self.link.restart()

    # -- the end -------------------------------------------------------------------------------------------------

    def fail(self, error: StreamError, *, resumable: bool = False) -> None:
        """Send a stream error and close. The session ends too, unless it is ``resumable`` by another connection."""
        if self._closed:
            return
        if not self._opened:
            domain = self.host.domain if self.host is not None else self.server.default_domain
            self.link.write(stream_header(secrets.token_hex(16), domain, None, self.server.language))
        self.link.write(error.to_bytes())
        log.info("stream_error", stream=self.id, ip=self.peer, condition=error.condition, reason=error.text)
        self.close(f"stream error: {error.condition}", resumable=resumable)

    def close(self, reason: str, *, resumable: bool = False) -> None:
        """Close the stream and the connection."""
        if self._closed:
            return
        self._closed = True
        self.link.write(STREAM_END)
        self.link.close()
        self._release(reason, resumable=resumable)

    def lost(self) -> None:
        """The connection is gone."""
        self._closed = True
        self._release("connection lost", resumable=True)
        # Link and stream know each other: parted here, they don't have to wait for the garbage collector.
        self.link = CLOSED

    def _release(self, reason: str, *, resumable: bool) -> None:
        session, self.session = self.session, None
        uplink, self._uplink = self._uplink, None
        if uplink is not None:
            uplink.close()
        if self.host is not None:
            user = self.host.arriving.pop(self, None)
            if user is not None and session is None:
                self.host.left(user)
        if self._login is not None:
            self._login.close()
            self._login = None
        if session is None or session.stream is not self:
            return
        if resumable and session.sm is not None and session.sm.token is not None:
            session.detach()
            self.server.hibernate(session)
        else:
            session.finish(reason)


def _echo(claimed: str | None) -> str | None:
    """The peer's claimed address for the answer's ``to``, when it is an address at all."""
    if claimed is None:
        return None
    try:
        return JID.parse(claimed).full
    except InvalidJID:
        return None

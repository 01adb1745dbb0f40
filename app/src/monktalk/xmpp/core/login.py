"""SASL on a client stream (RFC 6120 section 6): drives a mechanism, asks for credentials, counts failures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.cluster.bus import BusDown
from monktalk.xmpp.core.auth.errors import AuthUnavailable
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol import sasl
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)

_AUTH = ns.qname(ns.SASL, "auth")
_RESPONSE = ns.qname(ns.SASL, "response")
_ABORT = ns.qname(ns.SASL, "abort")


class Login:
    """The authentication of one stream. It may take several attempts; too many end the stream."""

    __slots__ = ("_attempts", "_exchange", "_mechanism", "_stream")

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._exchange: sasl.Exchange | None = None
        self._mechanism = ""
        self._attempts = 0

    @staticmethod
    def features(stream: ClientStream, host: VirtualHost) -> bytes:
        """``<mechanisms/>`` and the channel bindings (XEP-0440) that this stream can have."""
        bindings = list(stream.link.bindings())
        offered = sasl.offered(host.settings("auth").mechanisms, bindings=bindings)
        names = "".join(f"<mechanism>{name}</mechanism>" for name in offered)
        feature = f"<mechanisms xmlns='{ns.SASL}'>{names}</mechanisms>"
        if bindings:
            types = "".join(f"<channel-binding type='{name}'/>" for name in bindings)
            feature += f"<sasl-channel-binding xmlns='{ns.CHANNEL_BINDING}'>{types}</sasl-channel-binding>"
        return feature.encode()

    def close(self) -> None:
        """The stream has ended: forget the exchange."""
        self._exchange = None

    def handle(self, element: Stanza) -> None:
        """Handle an element in the SASL namespace."""
        try:
            if self._stream.clear_refused:
                raise sasl.SaslFailure("encryption-required", "use STARTTLS first")
            if element.name == _ABORT:
                self._exchange = None
                raise sasl.SaslFailure("aborted")
            if element.name == _AUTH:
                self._start(element)
            elif element.name != _RESPONSE or self._exchange is None:
                raise sasl.SaslFailure("malformed-request", "no authentication is under way")
            assert self._exchange is not None
            data = sasl.decode(element.text().strip())
            step = self._exchange.respond(data if element.name == _AUTH else data or b"")
        except sasl.SaslFailure as failure:
            self._refuse(failure)
            return
        self._proceed(step)

    def _start(self, element: Stanza) -> None:
        stream = self._stream
        host = stream.host
        assert host is not None
        if stream.server.throttle.blocked(stream.peer):
            raise sasl.SaslFailure("temporary-auth-failure", "too many failed logins from this address, try later")
        self._mechanism = element.attributes.get("mechanism", "")
        bindings = stream.link.bindings()
        offered = sasl.offered(host.settings("auth").mechanisms, bindings=list(bindings))
        if self._mechanism not in offered:
            raise sasl.SaslFailure("invalid-mechanism", "this mechanism is not on offer")
        self._exchange = sasl.start(
            self._mechanism,
            host.domain,
            bindings=bindings,
            plus_offered=any(name.endswith("-PLUS") for name in offered),
        )

    def _proceed(self, step: sasl.Step) -> None:
        if isinstance(step, sasl.Challenge):
            self._send("challenge", step.data)
        elif isinstance(step, sasl.Success):
            self._stream.run(self._succeed(step))
        else:
            assert self._exchange is not None
            assert self._stream.host is not None
            self._stream.host.arriving[self._stream] = step.username
            self._stream.run(self._ask(step, self._exchange))

    async def _ask(self, step: sasl.NeedPassword | sasl.NeedKeys, exchange: sasl.Exchange) -> None:
        """Get what the mechanism needs from the authentication service, and go on with it."""
        stream = self._stream
        host = stream.host
        assert host is not None
        address = stream.peer
        if stream.server.throttle.blocked(address, f"{step.username}@{host.domain}"):
            self._send_failure(sasl.SaslFailure("temporary-auth-failure", "too many failed logins, try later"))
            return
        try:
            if isinstance(step, sasl.NeedPassword):
                result = exchange.supply(await host.auth.check_password(step.username, step.password, address))
            else:
                keys = await host.auth.scram_keys(step.username, step.hash_name, address)
                result = exchange.supply(keys or host.auth.decoy(step.username, step.hash_name))
        except AuthUnavailable as error:
            log.warning("auth_unavailable", host=host.domain, reason=str(error))
            self._send_failure(sasl.SaslFailure("temporary-auth-failure", "try again later"))
        except sasl.SaslFailure as failure:
            await self._refuse_later(failure, step.username)
        else:
            if self._exchange is not exchange:
                return
            if isinstance(result, sasl.Success):
                await self._succeed(result)
            elif isinstance(result, sasl.Challenge):
                self._send("challenge", result.data)

    async def _succeed(self, success: sasl.Success) -> None:
        stream = self._stream
        host = stream.host
        assert host is not None
        server = stream.server
        try:
            disabled = await server.storage.accounts.disabled(host.domain, success.username)
        except StorageUnavailable:
            self._send_failure(sasl.SaslFailure("temporary-auth-failure", "try again later"))
            return
        if disabled:
            self._send_failure(sasl.SaslFailure("account-disabled"))
            return
        try:
            home = None if server.bus.alone else await server.bus.arrive(host.domain, success.username)
            if home is None:
                await server.adoption.come_home(host, success.username)
        except BusDown as error:
            log.warning("home_unknown", host=host.domain, reason=str(error))
            self._send_failure(sasl.SaslFailure("temporary-auth-failure", "try again later"))
            return
        server.throttle.succeeded(stream.peer, JID.of(success.username, host.domain).bare)
        server.metrics.logins.inc()
        server.storage.accounts.seen(host.domain, success.username, server.clock.now())
        log.info(
            "authenticated",
            user=JID.of(success.username, host.domain).bare,
            mechanism=self._mechanism,
            ip=stream.peer,
            stream=stream.id,
        )
        text = "" if success.data is None else sasl.encode(success.data)
        answer = f"<success xmlns='{ns.SASL}'>{text}</success>".encode()
        if home is None:
            stream.authenticated(success.username, answer)
        else:
            host.arriving.pop(stream, None)
            server.hub.relays.pass_on(stream, success.username, home, answer)

    def _refuse(self, failure: sasl.SaslFailure) -> None:
        """Answer a failure that says nothing about an account at once, any other one after a delay."""
        if failure.condition == "not-authorized":
            self._stream.run(self._refuse_later(failure, self._exchange.username if self._exchange else ""))
        else:
            self._count_attempt()
            self._send_failure(failure)

    async def _refuse_later(self, failure: sasl.SaslFailure, username: str) -> None:
        stream = self._stream
        host = stream.host
        assert host is not None
        throttle = stream.server.throttle
        # What is no account's name is counted by who tries it, or all strangers would share one ever longer delay.
        account = f"{username or f'/{stream.peer}'}@{host.domain}"
        throttle.failed(stream.peer, account)
        host.auth.refused(username)
        stream.server.metrics.login_failures.inc()
        log.info("login_failed", host=host.domain, mechanism=self._mechanism, ip=stream.peer, stream=stream.id)
        await asyncio.sleep(throttle.delay(stream.peer, account))
        self._count_attempt()
        self._send_failure(failure)

    def _count_attempt(self) -> None:
        self._attempts += 1

    def _send_failure(self, failure: sasl.SaslFailure) -> None:
        self._exchange = None
        text = f"<text xml:lang='en'>{escape(failure.text)}</text>" if failure.text else ""
        self._stream.link.write(f"<failure xmlns='{ns.SASL}'><{failure.condition}/>{text}</failure>".encode())
        host = self._stream.host
        user = host.arriving.pop(self._stream, None) if host is not None else None
        if host is not None and user is not None:
            host.left(user)
        if host is not None and self._attempts >= host.limits.auth_attempts:
            self._stream.fail(StreamError("policy-violation", "too many failed attempts to authenticate"))

    def _send(self, name: str, data: bytes) -> None:
        self._stream.link.write(f"<{name} xmlns='{ns.SASL}'>{sasl.encode(data) if data else ''}</{name}>".encode())

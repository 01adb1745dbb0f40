"""Accounts made, changed and removed by their owners on the stream itself."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from monktalk.common.config import Kind, Option
from monktalk.common.jid import JID, InvalidJID
from monktalk.common.logging import get_logger
from monktalk.common.scram import InvalidPassword, prepare_password
from monktalk.xmpp.core.administration import change_password, create_account, remove_account_here
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.core.auth.throttle import FailureCounter, address_key
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.iq import STORAGE_DOWN
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import IQ, error_reply, iq_result
from monktalk.xmpp.protocol.xmltree import element, find, text_of
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element

log = get_logger(__name__)

_QUERY: Final = ns.qname(ns.REGISTER, "query")
_FEATURE: Final = f"<register xmlns='{ns.REGISTER_FEATURE}'/>".encode()
_EVERYBODY: Final = b""


class Register(Module):
    """In-band registration (XEP-0077): new accounts before login, password change and removal after it."""

    name = "register"
    default = False
    features = (ns.REGISTER,)
    options = (
        Option(
            "allow_from",
            Kind.NETWORKS,
            ("127.0.0.0/8", "::1/128"),
            doc="Networks from which accounts may be made. Passwords may be changed and accounts removed from anywhere.",
        ),
        Option(
            "instructions",
            Kind.STRING,
            "Choose a name and a password for your account.",
            doc="What clients show above the form.",
        ),
        Option("window", Kind.DURATION, "1 h", minimum=1, doc="The time for which the two limits below are counted."),
        Option(
            "per_address", Kind.INTEGER, 5, minimum=1, doc="Attempts from one address (IPv6: one /64) in that time."
        ),
        Option("in_total", Kind.INTEGER, 100, minimum=1, doc="Attempts from everywhere in that time."),
        Option("password_change", Kind.BOOLEAN, True, doc="Let users change their passwords."),
        Option("removal", Kind.BOOLEAN, True, doc="Let users remove their accounts."),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._attempts = FailureCounter()

    # -- before login --------------------------------------------------------------------------------------------

    @HostHooks.stream_features.handler()
    def announce(self, stream: ClientStream, features: list[bytes]) -> None:
        """Say that accounts can be made, to those who may make one."""
        if stream.user is None and self._admits(stream.peer):
            features.append(_FEATURE)

    def _admits(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self.settings.allow_from)

    @HostHooks.stream_element.handler()
    def before_login(self, stream: ClientStream, stanza: Stanza) -> bool:
        """Answer the form, or make an account. The stream has TLS where that is required."""
        kind = stanza.attributes.get("type")
        if stanza.name != IQ or list(stanza.payloads) != [_QUERY] or kind not in ("get", "set") or not stanza.id:
            return False
        try:
            if stanza.attributes.get("to", self.host.domain) != self.host.domain:
                raise StanzaError("item-not-found", f"this stream is to {self.host.domain}")
            if not self._admits(stream.peer):
                raise StanzaError("not-allowed", "accounts are not made from this address")
            if kind == "get":
                stream.link.write(iq_result(stanza, self._form()))
            else:
                user, password = self._read_new(_query(stanza))
                self._count(stream.peer)
                stream.run(self._create(stream, stanza, user, password))
        except StanzaError as error:
            stream.link.write(error_reply(stanza, error) or b"")
        return True

    def _form(self, *known: Element) -> Element:
        return element(
            ns.REGISTER,
            "query",
            None,
            element(ns.REGISTER, "instructions", None, self.settings.instructions),
            *(known or (element(ns.REGISTER, "username"),)),
            element(ns.REGISTER, "password"),
        )

    def _read_new(self, query: Element) -> tuple[str, str]:
        if find(query, ns.REGISTER, "remove") is not None:
            raise StanzaError("unexpected-request", "log in to remove the account")
        username = text_of(query, ns.REGISTER, "username")
        password = text_of(query, ns.REGISTER, "password")
        if not username or not password:
            raise StanzaError("not-acceptable", "an account needs a name and a password")
        user = self._prepared(username)
        _check_password(password)
        # An administrator's address must not fall to the first who asks for it.
        if self.host.is_administrator(JID.of(user, self.host.domain)):
            raise StanzaError("conflict", "there is such an account already")
        return user, password

    def _prepared(self, username: str) -> str:
        try:
            return JID.of(username, self.host.domain).local
        except InvalidJID as error:
            raise StanzaError("jid-malformed", str(error)) from None

    def _count(self, peer: str) -> None:
        """Count an attempt, whatever comes of it: refusals tell which accounts exist."""
        now, window = self.host.server.clock.monotonic(), self.settings.window
        for key, limit in ((address_key(peer), self.settings.per_address), (_EVERYBODY, self.settings.in_total)):
            if self._attempts.count(key, now, window) >= limit:
                log.warning("registration_refused", host=self.host.domain, ip=peer, reason="too many attempts")
                raise StanzaError("resource-constraint", "too many accounts are being made, try again later")
        for key in (address_key(peer), _EVERYBODY):
            self._attempts.add(key, now, window)

    async def _create(self, stream: ClientStream, stanza: Stanza, user: str, password: str) -> None:
        try:
            await create_account(self.host, user, password, stream.peer)
        except AccountExists:
            error = StanzaError("conflict", "there is such an account already")
        except NotAllowed:
            error = StanzaError("not-allowed", "the account can't be made")
        except AuthUnavailable:
            error = StanzaError("resource-constraint", "accounts can't be made at the moment, try again later")
        except StorageUnavailable:
            error = STORAGE_DOWN
        else:
            log.info("registered", host=self.host.domain, user=user, ip=stream.peer)
            stream.link.write(iq_result(stanza))
            return
        stream.link.write(error_reply(stanza, error) or b"")

    # -- after login ---------------------------------------------------------------------------------------------

    @iq("get", ns.REGISTER, "query", to=(Target.HOST, Target.SELF))
    def registration(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer what the account is registered with."""
        return self._form(
            element(ns.REGISTER, "registered"), element(ns.REGISTER, "username", None, self._account(request))
        )

    @iq("set", ns.REGISTER, "query", to=(Target.HOST, Target.SELF))
    async def change(self, request: Stanza, session: Session | None) -> Reply:
        """Change the password, or remove the account."""
        user, query = self._account(request), _query(request)
        try:
            if find(query, ns.REGISTER, "remove") is not None:
                if len(query) != 1:
                    raise StanzaError("bad-request", "<remove/> stands alone")
                await self._remove(request, user, session.stream if session is not None else None)
            else:
                await self._change_password(query, user)
        except AccountMissing:
            raise StanzaError("registration-required", "the account is not registered here") from None
        except NotAllowed:
            raise StanzaError("not-allowed", "the account can't be changed") from None
        except AuthUnavailable:
            raise StanzaError(
                "resource-constraint", "accounts can't be changed at the moment, try again later"
            ) from None
        return None

    def _account(self, request: Stanza) -> str:
        """The localpart of the sender, who has an account of this host (and not one of that name elsewhere)."""
        if request.sender.domain != self.host.domain:
            raise StanzaError("registration-required", f"accounts of {self.host.domain} are managed from there")
        return request.sender.local

    async def _remove(self, request: Stanza, user: str, stream: ClientStream | None) -> None:
        if not self.settings.removal:
            raise StanzaError("not-allowed", "accounts are not removed here")

        def goodbye() -> None:
            # The session has ended: its answer to the request would go nowhere.
            if stream is not None:
                stream.link.write(iq_result(request))

        await remove_account_here(self.host, user, goodbye)
        log.info("unregistered", host=self.host.domain, user=user)

    async def _change_password(self, query: Element, user: str) -> None:
        if not self.settings.password_change:
            raise StanzaError("not-allowed", "passwords are not changed here")
        username = text_of(query, ns.REGISTER, "username")
        password = text_of(query, ns.REGISTER, "password")
        if not username or not password:
            raise StanzaError("bad-request", "name the account and its new password")
        if self._prepared(username) != user:
            raise StanzaError("forbidden", "this is another's account")
        _check_password(password)
        await change_password(self.host, user, password)


def _query(stanza: Stanza) -> Element:
    query = stanza.payload()
    assert query is not None
    return query


def _check_password(password: str) -> None:
    try:
        prepare_password(password)
    except InvalidPassword as error:
        raise StanzaError("not-acceptable", str(error)) from None

"""What administrators do to a host, whichever way they ask: ad-hoc commands (XEP-0133) or mongooseimctl."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.auth.errors import AccountMissing
from monktalk.xmpp.core.module import Target
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, Stanza, open_tag
from monktalk.xmpp.protocol.xmltree import Element, children_to_bytes, element, from_bytes, to_bytes

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Session

log = get_logger(__name__)


async def create_account(host: VirtualHost, user: str, password: str, address: str | None = None) -> None:
    """Make an account. ``user`` is a prepared localpart, ``address`` that of whoever asks for it.

    Raises what :meth:`AuthProvider.register` raises: AccountExists, NotAllowed, AuthUnavailable.
    """
    await host.auth.register(user, password, address)
    await host.server.storage.accounts.add(host.domain, user, host.server.clock.now())
    await host.hooks.account_created(user)
    log.info("account_created", host=host.domain, user=user)


async def remove_account(host: VirtualHost, user: str, goodbye: Callable[[], None] = lambda: None) -> None:
    """Remove an account with everything that belongs to it, and end its sessions.

    An account that only this server remembers, since an earlier removal was cut short, is removed here. ``goodbye`` is
    called when everything is gone and only the streams are still to be closed. Raises AccountMissing, AuthUnavailable,
    NotAllowed.
    """
    try:
        await host.auth.remove_user(user)
    except AccountMissing:
        if await host.server.storage.accounts.find(host.domain, user) is None:
            raise
    sessions = host.user_sessions(user)
    streams = [session.stream for session in sessions if session.stream is not None]
    for stream in streams:
        stream.link.pause()
    for session in sessions:
        session.end("the account was removed")
    _refuse_arrivals(host, user, "the account was removed")
    try:
        await host.hooks.account_removed(user)
        await host.server.storage.accounts.delete(host.domain, user)
    finally:
        goodbye()
        for stream in streams:
            # The condition that XEP-0077 section 3.2 has for streams of an account that is gone.
            stream.fail(StreamError("not-authorized", "the account was removed"))
    log.info("account_removed", host=host.domain, user=user)


async def change_password(host: VirtualHost, user: str, password: str) -> None:
    """Set a password; sessions stay. Raises AuthUnavailable, NotAllowed."""
    await host.auth.set_password(user, password)
    log.info("password_changed", host=host.domain, user=user)


async def set_disabled(host: VirtualHost, user: str, disabled: bool, reason: str = "") -> None:
    """Disable an account, which ends its sessions and refuses its logins, or enable it again."""
    await host.server.storage.accounts.set_disabled(host.domain, user, disabled, reason)
    if disabled:
        end_sessions(host, user, reason or "the account was disabled")
        _refuse_arrivals(host, user, "the account was disabled")
    log.info("account_disabled" if disabled else "account_enabled", host=host.domain, user=user)


def _refuse_arrivals(host: VirtualHost, user: str, reason: str) -> None:
    """End the streams of those who have shown a password that counts no more, and would bind a resource next."""
    for stream in host.arrivals(user):
        stream.fail(StreamError("not-authorized", reason))


def end_sessions(
    host: VirtualHost, user: str, reason: str, resource: str | None = None, *, condition: str = "policy-violation"
) -> int:
    """End the user's sessions, or the one with that resource; returns how many."""
    ended = 0
    for session in host.user_sessions(user):
        if resource is None or session.jid.resource == resource:
            end_session(session, reason, condition=condition)
            ended += 1
    return ended


def end_session(session: Session, reason: str, *, condition: str = "policy-violation") -> None:
    """End one session, for good, with a stream error that gives the reason."""
    if session.stream is not None:
        session.stream.fail(StreamError(condition, reason))
    session.end(reason)


def announce(host: VirtualHost, text: str, subject: str | None = None) -> int:
    """Send a message from the host to every session that is online; returns how many."""
    body = children_to_bytes(_content(text, subject)) + b"</message>"
    sent = 0
    for session in host.all_sessions():
        if session.priority is not None:
            attributes = {"from": host.domain, "to": session.jid.full, "type": "headline"}
            session.send(open_tag(MESSAGE, attributes) + b">" + body)
            sent += 1
    log.info("announced", host=host.domain, sessions=sent)
    return sent


def send_message(
    server: Server, sender: JID, recipient: JID, text: str, *, kind: str = "chat", subject: str | None = None
) -> None:
    """Deliver a message to a local user by the rules of RFC 6121 section 8, whoever it is said to be from.

    Raises :class:`StanzaError` when nobody takes it, ``remote-server-not-found`` for a host that is not served here.
    """
    host = server.hosts.get(recipient.domain)
    if host is None:
        raise StanzaError("remote-server-not-found", f"{recipient.domain} is not served here")
    attributes = {"from": sender.full, "to": recipient.full, "type": kind, "id": secrets.token_hex(8)}
    content = _content(text, subject)
    raw = open_tag(MESSAGE, attributes) + b">" + children_to_bytes(content) + b"</message>"
    stanza = Stanza(MESSAGE, attributes, raw, [child.tag[1:] for child in content])
    stanza.sender, stanza.recipient = sender, recipient
    host.deliver(stanza)


def _content(text: str, subject: str | None) -> list[Element]:
    content = [element(ns.CLIENT, "body", None, text)]
    if subject:
        content.insert(0, element(ns.CLIENT, "subject", None, subject))
    return content


async def ask_as(host: VirtualHost, user: str, kind: str, payload: Element) -> Element | None:
    """What the server answers to a request (``get`` or ``set``) of the account to itself: the payload of the result.

    So whatever a module does for a client, checks included, an administrator can do for an account. Raises what the
    handler raises, and :class:`StanzaError` (``service-unavailable``) when no module handles such requests.
    """
    name = payload.tag[1:]
    handler = host.iq_handlers.get((kind, Target.SELF, name))
    if handler is None:
        raise StanzaError("service-unavailable", f"no module of {host.domain} handles {name}")
    sender = JID.of(user, host.domain)
    attributes = {"type": kind, "id": secrets.token_hex(8), "from": sender.full}
    request = Stanza(IQ, attributes, open_tag(IQ, attributes) + b">" + to_bytes(payload) + b"</iq>", [name])
    request.sender, request.recipient = sender, None
    outcome = handler(request, None)
    reply = await outcome if isinstance(outcome, Awaitable) else outcome
    return from_bytes(reply) if isinstance(reply, bytes) else reply

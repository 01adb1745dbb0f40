"""What administrators do to a host, whichever way they ask: ad-hoc commands (XEP-0133) or mongooseimctl.

Sessions are ended where they are, and everybody hears of accounts that have changed: see :func:`offer`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.jid import JID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.auth.errors import AccountMissing
from monktalk.xmpp.core.calls import CallFailed
from monktalk.xmpp.core.module import Target
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, Stanza, open_tag
from monktalk.xmpp.protocol.xmltree import Element, children_to_bytes, element, from_bytes, to_bytes

if TYPE_CHECKING:
    from monktalk.xmpp.core.calls import Replies
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Session

log = get_logger(__name__)

CHANGED, REMOVED, DISABLED = "changed", "removed", "disabled"
"""What others are told of an account: its password or its existence has changed, it is removed, it is disabled."""

REMOVAL_SECONDS: Final = 60.0
"""How long the removal of an account may take: everything that belongs to it is deleted."""

_NOTICE: Final = "account"
_REASONS: Final = {REMOVED: "the account was removed", DISABLED: "the account was disabled"}


async def create_account(host: VirtualHost, user: str, password: str, address: str | None = None) -> None:
    """Make an account. ``user`` is a prepared localpart, ``address`` that of whoever asks for it.

    Raises what :meth:`AuthProvider.register` raises: AccountExists, NotAllowed, AuthUnavailable.
    """
    await host.auth.register(user, password, address)
    _tell_others(host, user, CHANGED)
    await host.server.storage.accounts.add(host.domain, user, host.server.clock.now())
    await host.hooks.account_created(user)
    log.info("account_created", host=host.domain, user=user)


async def remove_account(host: VirtualHost, user: str) -> None:
    """Remove an account with everything that belongs to it, and end its sessions, wherever they are.

    Raises AccountMissing, AuthUnavailable, NotAllowed, StorageUnavailable, and CallFailed when the worker that has the
    sessions does not answer.
    """
    await host.server.calls.at_home(host.domain, user, "remove_account", host.domain, user, seconds=REMOVAL_SECONDS)


async def remove_account_here(host: VirtualHost, user: str, goodbye: Callable[[], None] = lambda: None) -> None:
    """Remove an account whose home is this worker, or that has none.

    An account that only this server remembers, since an earlier removal was cut short, is removed here. ``goodbye`` is
    called when everything is gone and only the streams are still to be closed. Raises AccountMissing, AuthUnavailable,
    NotAllowed.
    """
    try:
        await host.auth.remove_user(user)
    except AccountMissing:
        if await host.server.storage.accounts.find(host.domain, user) is None:
            raise
    finally:
        _tell_others(host, user, REMOVED)
    sessions = host.user_sessions(user)
    streams = [session.stream for session in sessions if session.stream is not None]
    for stream in streams:
        stream.link.pause()
    for session in sessions:
        session.end(_REASONS[REMOVED])
    refuse_arrivals(host, user, REMOVED)
    try:
        await host.hooks.account_removed(user)
        await host.server.storage.accounts.delete(host.domain, user)
    finally:
        goodbye()
        for stream in streams:
            # The condition that XEP-0077 section 3.2 has for streams of an account that is gone.
            stream.fail(StreamError("not-authorized", _REASONS[REMOVED]))
    log.info("account_removed", host=host.domain, user=user)


async def change_password(host: VirtualHost, user: str, password: str) -> None:
    """Set a password; sessions stay. Raises AuthUnavailable, NotAllowed."""
    try:
        await host.auth.set_password(user, password)
    finally:
        # Also when nobody knows whether it was done.
        _tell_others(host, user, CHANGED)
    log.info("password_changed", host=host.domain, user=user)


async def set_disabled(host: VirtualHost, user: str, disabled: bool, reason: str = "") -> None:
    """Disable an account, which ends its sessions and refuses its logins, or enable it again.

    Raises StorageUnavailable; and CallFailed when the account is disabled, and the worker that has its sessions does not
    answer.
    """
    await host.server.storage.accounts.set_disabled(host.domain, user, disabled, reason)
    log.info("account_disabled" if disabled else "account_enabled", host=host.domain, user=user)
    if disabled:
        refuse_arrivals(host, user, DISABLED)
        _tell_others(host, user, DISABLED)
        await end_sessions(host, user, reason or _REASONS[DISABLED])


def refuse_arrivals(host: VirtualHost, user: str, what: str) -> None:
    """End the streams of those who have shown a password that counts no more, and would bind a resource next."""
    for stream in host.arrivals(user):
        stream.fail(StreamError("not-authorized", _REASONS[what]))


async def end_sessions(host: VirtualHost, user: str, reason: str, resource: str | None = None) -> int:
    """End the user's sessions, or the one with that resource, wherever they are; returns how many.

    Raises CallFailed when the worker that has them does not answer.
    """
    ended: int = await host.server.calls.at_home(host.domain, user, "end_sessions", host.domain, user, reason, resource)
    return ended


def end_session(session: Session, reason: str) -> None:
    """End one session that is here, for good, with a stream error that gives the reason."""
    if session.stream is not None:
        session.stream.fail(StreamError("policy-violation", reason))
    session.end(reason)


async def announce(host: VirtualHost, text: str, subject: str | None = None) -> Replies:
    """Send a message from the host to every session that is online; the answers say to how many of each worker."""
    return await host.server.calls.everywhere("announce", host.domain, text, subject)


def announce_here(host: VirtualHost, text: str, subject: str | None = None) -> int:
    """Send a message from the host to every session of this worker that is online; returns how many."""
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


# -- other workers -----------------------------------------------------------------------------------------------


def offer(server: Server) -> None:
    """Let other workers have things done to sessions that are here, and hear from them of accounts."""

    def found(domain: str) -> VirtualHost:
        host = server.hosts.get(domain)
        if host is None:
            raise CallFailed(f"The worker there does not serve {domain}: its configuration is another one.")
        return host

    async def remove(domain: str, user: str) -> None:
        await remove_account_here(found(domain), user)

    async def end(domain: str, user: str, reason: str, resource: str | None) -> int:
        sessions = [
            session for session in found(domain).user_sessions(user) if resource in (None, session.jid.resource)
        ]
        for session in sessions:
            end_session(session, reason)
        return len(sessions)

    async def tell_all(domain: str, text: str, subject: str | None) -> int:
        return announce_here(found(domain), text, subject)

    server.calls.offer("remove_account", remove)
    server.calls.offer("end_sessions", end)
    server.calls.offer("announce", tell_all)
    server.bus.on_notice(_NOTICE, lambda _topic, what: _hear(server, *what[:3]))


def _tell_others(host: VirtualHost, user: str, what: str) -> None:
    """Tell the other workers what has become of an account: they forget what they know of it."""
    host.server.bus.notify(_NOTICE, host.domain, user, what)


def _hear(server: Server, *what: Any) -> None:
    domain, user, change = what
    host = server.hosts.get(domain)
    if host is None:
        return
    host.auth.forget(user)
    if change in _REASONS:
        refuse_arrivals(host, user, change)

"""What administrators do to a host, whichever way they ask: ad-hoc commands (XEP-0133) or mongooseimctl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.logging import get_logger
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.stanza import MESSAGE, open_tag
from monktalk.xmpp.protocol.xmltree import element, to_bytes

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session

log = get_logger(__name__)


async def create_account(host: VirtualHost, user: str, password: str) -> None:
    """Make an account. ``user`` is a prepared localpart.

    Raises what :meth:`AuthProvider.register` raises: AccountExists, NotAllowed, AuthUnavailable.
    """
    await host.auth.register(user, password)
    await host.server.storage.accounts.add(host.domain, user, host.server.clock.now())
    await host.hooks.account_created(user)
    log.info("account_created", host=host.domain, user=user)


async def remove_account(host: VirtualHost, user: str) -> None:
    """Remove an account with everything that belongs to it, and end its sessions. Raises AuthUnavailable, NotAllowed."""
    await host.auth.remove_user(user)
    end_sessions(host, user, "the account was removed")
    await host.hooks.account_removed(user)
    await host.server.storage.accounts.delete(host.domain, user)
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
    log.info("account_disabled" if disabled else "account_enabled", host=host.domain, user=user)


def end_sessions(host: VirtualHost, user: str, reason: str, resource: str | None = None) -> int:
    """End the user's sessions, or the one with that resource; returns how many."""
    ended = 0
    for session in host.user_sessions(user):
        if resource is None or session.jid.resource == resource:
            end_session(session, reason)
            ended += 1
    return ended


def end_session(session: Session, reason: str) -> None:
    """End one session, for good, with a stream error that gives the reason."""
    if session.stream is not None:
        session.stream.fail(StreamError("policy-violation", reason))
    session.end(reason)


def announce(host: VirtualHost, text: str, subject: str | None = None) -> int:
    """Send a message from the host to every session that is online; returns how many."""
    content = [element(ns.CLIENT, "body", None, text)]
    if subject:
        content.insert(0, element(ns.CLIENT, "subject", None, subject))
    body = b"".join(map(to_bytes, content)) + b"</message>"
    sent = 0
    for session in host.all_sessions():
        if session.priority is not None:
            attributes = {"from": host.domain, "to": session.jid.full, "type": "headline"}
            session.send(open_tag(MESSAGE, attributes) + b">" + body)
            sent += 1
    log.info("announced", host=host.domain, sessions=sent)
    return sent

"""Sessions: who is connected, and what can be done to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from monktalk.xmpp.admin.registry import CommandError, Scope, Table, UsageError, command
from monktalk.xmpp.core import administration
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.stanza import PRESENCE, Stanza
from monktalk.xmpp.protocol.xmltree import Element, element, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from monktalk.xmpp.admin.context import Context
    from monktalk.xmpp.core.session import Session

GROUP: Final = "Sessions"

_INFO: Final = ("jid", "connection", "ip", "port", "priority", "node", "uptime")
_STATUS: Final = ("user", "host", "resource", "priority", "status")
_SHOWS: Final = ("available", "chat", "away", "xa", "dnd")
_LOWEST, _HIGHEST = -128, 127


def _all(context: Context) -> Iterator[Session]:
    for host in context.server.hosts.values():
        yield from host.all_sessions()


def _of_user(context: Context, user: str, domain: str) -> list[Session]:
    host, local = context.account(user, domain)
    return host.user_sessions(local)


def session_of(context: Context, user: str, domain: str, resource: str) -> Session:
    """The session of that resource. Raises :class:`CommandError` when there is none."""
    for session in _of_user(context, user, domain):
        if session.jid.resource == resource:
            return session
    raise CommandError(f"User {user}@{domain}/{resource} is not connected")


def _info(context: Context, sessions: Iterable[Session]) -> Table:
    """What ``connected_users_info`` tells of each session; ``away`` is the connection of one that may be resumed."""
    now = context.server.clock.now()
    rows: list[tuple[Any, ...]] = []
    for session in sessions:
        link = session.link
        if link is None:
            connection = "away"
        else:
            kind = "c2s" if link.kind == "tcp" else link.kind
            connection = f"{kind}_tls" if session.secure else kind
        port = link.port if link is not None else 0
        uptime = int(now - session.bound_at)
        rows.append((session.jid.full, connection, session.peer, port, session.priority, context.node_name, uptime))
    return Table(_INFO, rows)


@command("connected_users", "", "List all sessions.", scope=Scope.EVERYWHERE)
async def connected_users(context: Context) -> list[str]:
    """Full JIDs."""
    return [session.jid.full for session in _all(context)]


@command("connected_users_number", "", "Count all sessions.", scope=Scope.EVERYWHERE)
async def connected_users_number(context: Context) -> int:
    """How many there are."""
    return sum(1 for _ in _all(context))


@command(
    "connected_users_info",
    "",
    "List all sessions: JID, connection, IP, port, priority, node, seconds.",
    scope=Scope.EVERYWHERE,
)
async def connected_users_info(context: Context) -> Table:
    """The priority is empty for a session that has not sent presence."""
    return _info(context, _all(context))


@command("connected_users_vhost", "HOST", "As connected_users_info, for one host.", scope=Scope.EVERYWHERE)
async def connected_users_vhost(context: Context, domain: str) -> Table:
    """The sessions of a host."""
    return _info(context, context.host(domain).all_sessions())


@command("user_sessions_info", "USER HOST", "As connected_users_info, for one user.", scope=Scope.HOME)
async def user_sessions_info(context: Context, user: str, domain: str) -> Table:
    """The sessions of a user."""
    return _info(context, _of_user(context, user, domain))


@command("user_resources", "USER HOST", "List the resources of a user.", scope=Scope.HOME)
async def user_resources(context: Context, user: str, domain: str) -> list[str]:
    """In the order in which they connected."""
    return [session.jid.resource for session in _of_user(context, user, domain)]


@command("num_resources", "USER HOST", "Count the resources of a user.", scope=Scope.HOME)
async def num_resources(context: Context, user: str, domain: str) -> int:
    """How many sessions the user has."""
    return len(_of_user(context, user, domain))


@command(
    "resource_num", "USER HOST NUM", "Name the resource of a user by its number, counted from 1.", scope=Scope.HOME
)
async def resource_num(context: Context, user: str, domain: str, number: str) -> str:
    """The n-th resource of ``user_resources``."""
    resources = await user_resources(context, user, domain)
    if not number.isdecimal() or not 0 < int(number) <= len(resources):
        raise CommandError(f"Error: Wrong resource number: {number}")
    return resources[int(number) - 1]


@command("kick_session", "USER HOST RESOURCE REASON", "End a session.", scope=Scope.HOME)
async def kick_session(context: Context, user: str, domain: str, resource: str, reason: str) -> str:
    """The client is told the reason; it may connect again."""
    session = session_of(context, user, domain, resource)
    administration.end_session(session, reason or "Kicked by administrator")
    return f"Session {session.jid.full} ended"


@command(
    "status_list",
    "STATUS",
    "List the users with that status: available, chat, away, xa, dnd or all.",
    scope=Scope.EVERYWHERE,
)
async def status_list(context: Context, status: str) -> Table:
    """User, host, resource, priority and status text of each session that has sent presence."""
    return _statuses(_all(context), status)


@command("status_list_host", "HOST STATUS", "As status_list, for one host.", scope=Scope.EVERYWHERE)
async def status_list_host(context: Context, domain: str, status: str) -> Table:
    """As :func:`status_list`."""
    return _statuses(context.host(domain).all_sessions(), status)


def _statuses(sessions: Iterable[Session], wanted: str) -> Table:
    if wanted not in (*_SHOWS, "all"):
        raise UsageError(f"There is no status {wanted!r}: {', '.join(_SHOWS)}, all.")
    rows = []
    for session in sessions:
        if session.presence is None or session.priority is None:
            continue
        tree = session.presence.tree()
        show = text_of(tree, ns.CLIENT, "show") or "available"
        if wanted in ("all", show):
            jid = session.jid
            rows.append(
                (jid.local, jid.domain, jid.resource, session.priority, text_of(tree, ns.CLIENT, "status") or "")
            )
    return Table(_STATUS, rows)


@command(
    "set_presence",
    "USER HOST RESOURCE TYPE SHOW STATUS PRIORITY",
    "Send presence as if a session had sent it itself.",
    scope=Scope.HOME,
)
async def set_presence(context: Context, user: str, domain: str, resource: str, *presence: str) -> str:
    """TYPE is ``available`` or ``unavailable``; SHOW, STATUS and PRIORITY may be empty."""
    kind, show, status, priority = presence
    session = session_of(context, user, domain, resource)
    if kind not in ("available", "", "unavailable"):
        raise UsageError(f"There is no presence of type {kind!r} to be set: available, unavailable.")
    if show not in (*_SHOWS, ""):
        raise UsageError(f"There is no show {show!r}: {', '.join(_SHOWS)}.")
    content: list[Element] = []
    if show not in ("available", ""):
        content.append(element(ns.CLIENT, "show", None, show))
    if status:
        content.append(element(ns.CLIENT, "status", None, status))
    if priority:
        content.append(element(ns.CLIENT, "priority", None, str(_priority(priority))))
    attributes = {"type": "unavailable"} if kind == "unavailable" else None
    session.inject(Stanza.from_tree(element(ns.CLIENT, PRESENCE, attributes, *content)))
    return f"Presence of {session.jid.full} set"


def _priority(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = _HIGHEST + 1
    if not _LOWEST <= number <= _HIGHEST:
        raise UsageError(f"A priority is a number from {_LOWEST} to {_HIGHEST}, not {text!r}.")
    return number

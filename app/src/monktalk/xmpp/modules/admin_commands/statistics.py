"""Commands that tell something: about one account, or which accounts there are (XEP-0133 sections 4.9 to 4.22)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from monktalk.common.clock import xmpp_datetime
from monktalk.common.jid import JID
from monktalk.xmpp.core.administration import ask_as
from monktalk.xmpp.core.auth.errors import AccountMissing, AuthUnavailable
from monktalk.xmpp.core.calls import CallFailed
from monktalk.xmpp.modules.adhoc import CommandFailed, FormCommand, Outcome
from monktalk.xmpp.modules.admin_commands.common import ACCOUNTS, command, existing, many_accounts, refusal, silent
from monktalk.xmpp.protocol import forms
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.adhoc import Note
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.forms import JID_MULTI, LIST_SINGLE, TEXT_MULTI, TEXT_SINGLE, Field
from monktalk.xmpp.protocol.xmltree import element, text_of

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.forms import Submission

Found = tuple[list[str], list[Note]]
"""Localparts, and what there is to say about those that may be missing."""

Names = Callable[["VirtualHost"], Awaitable[Found]]

MOST: Final = 10_000
"""Accounts in one list at most, whatever the form says."""

_PAGE: Final = 10_000
_MAX_ITEMS: Final = Field(
    "max_items",
    LIST_SINGLE,
    "Maximum number of items to show",
    options={**{str(number): str(number) for number in (25, 50, 75, 100, 150, 200)}, "none": "None"},
)
_AWAY: Final = ("away", "xa")
_ONLINE: Final = "users_online"
_SESSIONS: Final = "sessions_of_user"


def commands(host: VirtualHost) -> list[FormCommand]:
    """The commands of this part."""
    found = [
        command(
            host,
            "get-user-lastlogin",
            "Get User Last Login Time",
            _last_login,
            ACCOUNTS,
            instructions="Fill out this form to see when users have logged in last.",
        ),
        command(
            host,
            "user-stats",
            "Get User Statistics",
            _user_statistics,
            ACCOUNTS,
            instructions="Fill out this form to gather user statistics.",
        ),
    ]
    for kind, names, listing in (
        ("registered", _registered, "get-registered-users-list"),
        ("disabled", _disabled, "get-disabled-users-list"),
        ("online", _online, "get-online-users-list"),
        ("active", _active, "get-active-users"),
        ("idle", _idle, "get-idle-users"),
    ):
        title = kind.capitalize()
        found.append(command(host, f"get-{kind}-users-num", f"Get Number of {title} Users", _number(kind, names)))
        found.append(
            command(
                host,
                listing,
                f"Get List of {title} Users",
                _list(kind, names),
                _MAX_ITEMS,
                instructions=f"Fill out this form to get a list of {kind} users.",
            )
        )
    return found


# -- which accounts ----------------------------------------------------------------------------------------------


async def _accounts(host: VirtualHost, *, disabled: bool) -> list[str]:
    """The accounts that the server has made or seen; only those that are disabled, if asked."""
    store = host.server.storage.accounts
    names: list[str] = []
    offset = 0
    while True:
        page = await store.list(host.domain, offset, _PAGE)
        names += [account.user for account in page if account.disabled or not disabled]
        offset += len(page)
        if len(page) < _PAGE:
            return names


async def _registered(host: VirtualHost) -> Found:
    return await _accounts(host, disabled=False), []


async def _disabled(host: VirtualHost) -> Found:
    return await _accounts(host, disabled=True), []


async def _online(host: VirtualHost) -> Found:
    return await _everywhere(host, "online")


async def _active(host: VirtualHost) -> Found:
    """Users with a client that is available, and does not say that its user is away."""
    return await _everywhere(host, "active")


async def _idle(host: VirtualHost) -> Found:
    """Users that are online and not active."""
    return await _everywhere(host, "idle")


async def _everywhere(host: VirtualHost, kind: str) -> Found:
    """The users of a kind at all workers; a user is at one."""
    replies = await host.server.calls.everywhere(_ONLINE, host.domain, kind)
    return [user for users in replies.values() for user in users], silent(replies)


def offer(server: Server) -> None:
    """Tell other workers about the users and sessions that are here."""
    server.calls.offer(_ONLINE, functools.partial(_online_here, server))
    server.calls.offer(_SESSIONS, functools.partial(_sessions_here, server))


async def _online_here(server: Server, domain: str, kind: str) -> list[str]:
    host = server.hosts.get(domain)
    return [
        user
        for user, resources in (host.sessions.items() if host is not None else ())
        if kind == "online" or any(map(_is_active, resources.values())) == (kind == "active")
    ]


async def _sessions_here(server: Server, domain: str, user: str) -> list[tuple[str, str]]:
    """Resource and address of each session of a user."""
    host = server.hosts.get(domain)
    sessions = host.user_sessions(user) if host is not None else ()
    return [(session.jid.resource, session.peer) for session in sessions]


def _is_active(session: Session) -> bool:
    presence = session.presence
    if presence is None or session.priority is None:
        return False
    return ns.qname(ns.CLIENT, "show") not in presence.payloads or (
        text_of(presence.tree(), ns.CLIENT, "show") not in _AWAY
    )


def _number(kind: str, names: Names) -> Callable[[VirtualHost, Submission], Awaitable[Outcome]]:
    async def run(host: VirtualHost, _submission: Submission) -> Outcome:
        notes: list[Note] = []
        if names is _registered:
            number = await host.server.storage.accounts.count(host.domain)
        else:
            found, notes = await names(host)
            number = len(found)
        field = Field(f"{kind}usersnum", TEXT_SINGLE, f"The number of {kind} users", [str(number)])
        return Outcome(notes, forms.result(ns.ADMIN, [field]))

    return run


def _list(kind: str, names: Names) -> Callable[[VirtualHost, Submission], Awaitable[Outcome]]:
    async def run(host: VirtualHost, submission: Submission) -> Outcome:
        limit = _limit(submission.one("max_items"))
        found, notes = await names(host)
        jids = [JID.of(name, host.domain).bare for name in found[:limit]]
        if len(found) > limit:
            notes.append(Note(f"{limit} of {len(found)} users are listed", "warn"))
        field = Field(f"{kind}userjids", JID_MULTI, f"The list of {kind} users", jids)
        return Outcome(notes, forms.result(ns.ADMIN, [field]))

    return run


def _limit(text: str) -> int:
    if text in ("", "none"):
        return MOST
    if not text.isdecimal() or len(text) > 9:
        raise CommandFailed("the maximum number of items is a number, or none")
    return min(int(text), MOST)


# -- about accounts ----------------------------------------------------------------------------------------------


async def _last_login(host: VirtualHost, submission: Submission) -> Outcome:
    """One time for each account, in their order; a word for one that has never logged in (section 4.9)."""
    accounts = many_accounts(host, submission)
    times = []
    for jid in accounts:
        await _check(host, jid)
        known = await host.server.storage.accounts.find(host.domain, jid.local)
        times.append(xmpp_datetime(known.last_login) if known is not None and known.last_login else "never")
    fields = [
        Field("accountjids", JID_MULTI, "The Jabber ID(s) of the accounts", [jid.bare for jid in accounts]),
        Field("lastlogin", TEXT_SINGLE if len(times) == 1 else TEXT_MULTI, "Last login", times),
    ]
    return Outcome(form=forms.result(ns.ADMIN, fields))


async def _user_statistics(host: VirtualHost, submission: Submission) -> Outcome:
    accounts = many_accounts(host, submission)
    if len(accounts) != 1:
        raise CommandFailed("name one account: statistics are of one at a time")
    jid = accounts[0]
    await _check(host, jid)
    try:
        sessions = await host.server.calls.at_home(host.domain, jid.local, _SESSIONS, host.domain, jid.local)
    except CallFailed as error:
        raise CommandFailed(str(error)) from None
    fields = [
        Field("accountjids", JID_MULTI, "The Jabber ID of the account", [jid.bare]),
        Field("ipaddresses", TEXT_MULTI, "IP addresses", list(dict.fromkeys(peer for _, peer in sessions))),
        Field("onlineresources", TEXT_MULTI, "Online resources", [resource for resource, _ in sessions]),
    ]
    try:
        roster = await ask_as(host, jid.local, "get", element(ns.ROSTER, "query"))
    except StanzaError:
        pass  # without the module roster there is none to be counted
    else:
        size = 0 if roster is None else len(roster)
        fields.insert(1, Field("rostersize", TEXT_SINGLE, "Roster size", [str(size)]))
    return Outcome(form=forms.result(ns.ADMIN, fields))


async def _check(host: VirtualHost, jid: JID) -> None:
    try:
        await existing(host, jid.local)
    except (AccountMissing, AuthUnavailable) as error:
        raise refusal(error, jid) from None

"""Rosters of local users. Contacts are neither asked nor told, but the user's clients see every change."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monktalk.common.jid import JID, InvalidJID
from monktalk.xmpp.admin.registry import CommandError, Result, Table, UsageError, check_text, command
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.protocol.errors import StanzaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monktalk.xmpp.admin.context import Context
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.modules.roster import Item

GROUP: Final = "Rosters"

_CONTACT: Final = ("jid", "nick", "subscription", "ask", "group")
_SUBSCRIPTIONS: Final = ("none", "from", "to", "both")
_ASKS: Final = ("none", "out", "in", "both")
_MAX_TEMPLATE: Final = 4 * 1024 * 1024


def _module(host: VirtualHost) -> RosterModule:
    if RosterModule.name not in host.modules:
        raise CommandError(f"The module roster is not enabled for {host.domain}.")
    return RosterModule.of(host)


def _contact(user: str, server: str) -> str:
    try:
        return JID.of(user, server).bare
    except InvalidJID as error:
        raise CommandError(f"{user}@{server} can't be a contact: {error}") from None


@command(
    "add_rosteritem",
    "LOCALUSER LOCALSERVER USER SERVER NICK GROUP SUBS",
    "Add a contact to a roster, or change it; SUBS is none, from, to or both.",
)
async def add_rosteritem(context: Context, user: str, domain: str, *contact: str) -> str:
    """GROUP may be empty."""
    contact_user, server, nick, group, subscription = contact
    host, local = await context.existing(user, domain)
    jid = _contact(contact_user, server)
    groups = [group] if group else []
    try:
        await _module(host).set_item(local, jid, name=nick, groups=groups, subscription=subscription)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except StanzaError as error:
        raise CommandError(f"The item can't be added: {error}") from None
    return f"Added the item to the roster of {local}@{host.domain}"


@command("delete_rosteritem", "LOCALUSER LOCALSERVER USER SERVER", "Remove a contact from a roster.")
async def delete_rosteritem(context: Context, user: str, domain: str, contact: str, server: str) -> str:
    """Subscriptions both ways end."""
    host, local = await context.existing(user, domain)
    jid = _contact(contact, server)
    if not await _module(host).remove_item(local, jid):
        raise CommandError(f"{jid} is not in the roster of {local}@{host.domain}")
    return f"The item removed from roster of {local}@{host.domain}"


@command("get_roster", "USER HOST", "List a roster: JID, nick, subscription, pending requests, group.")
async def get_roster(context: Context, user: str, domain: str) -> Table:
    """A contact that is in several groups is listed once for each."""
    host, local = await context.existing(user, domain)
    roster = await _module(host).get_roster(local)
    rows = []
    for jid, item in roster.items.items():
        ask = _ask(item, asked=jid in roster.requests)
        rows += [(jid, item.name, item.subscription, ask, group) for group in item.groups or ("",)]
    return Table(_CONTACT, rows)


def _ask(item: Item, *, asked: bool) -> str:
    """``out``: the user waits for an answer, ``in``: the contact does."""
    if item.ask:
        return "both" if asked else "out"
    return "in" if asked else "none"


# -- templates ---------------------------------------------------------------------------------------------------


@command("push_roster", "FILE USER HOST", "Add the contacts that a file lists to a roster, subscribed both ways.")
async def push_roster(context: Context, name: str, user: str, domain: str) -> str:
    """The file is an Erlang list: ``[{"bob", "example.org", "workers", "Bob"}, …].``."""
    host, local = await context.existing(user, domain)
    template = await asyncio.to_thread(_read_template, context.file(name))
    own = JID.of(local, host.domain).bare
    added = 0
    for contact, server, group, nick in template:
        jid = _contact(contact, server)
        if jid != own:
            try:
                await _module(host).set_item(
                    local, jid, name=nick, groups=[group] if group else [], subscription="both"
                )
            except StanzaError as error:
                raise CommandError(f"{jid} can't be added, {added} contacts were: {error}") from None
            added += 1
    return f"Added {added} contacts to the roster of {local}@{host.domain}"


_STRING: Final = r'(?:<<)?"((?:[^"\\]|\\.)*)"(?:/utf8)?(?:>>)?'
_TUPLE: Final = re.compile(r"\s*\{\s*" + r"\s*,\s*".join([_STRING] * 4) + r"\s*\}\s*(,|\])")
_COMMENT: Final = re.compile(r'^((?:[^"%]|"(?:[^"\\]|\\.)*")*)%.*$', re.MULTILINE)


def _read_template(path: Path) -> list[tuple[str, str, str, str]]:
    try:
        if path.stat().st_size > _MAX_TEMPLATE:
            raise CommandError(f"{path} is larger than {_MAX_TEMPLATE} bytes.")
        text = path.read_text("utf-8")
    except OSError as error:
        raise CommandError(f"{path} can't be read by the server: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8") from None
    check_text(text)
    try:
        return parse_template(text)
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from None


def parse_template(text: str) -> list[tuple[str, str, str, str]]:
    """User, server, group and nick of each contact in a roster template. Raises ValueError, which names the line."""
    body = _COMMENT.sub(r"\1", text).rstrip().removesuffix(".").rstrip()
    stripped = body.lstrip()
    at = len(body) - len(stripped) + 1
    found: list[tuple[str, str, str, str]] = []
    if stripped == "[]":
        return found
    closed = not stripped.startswith("[")
    while not closed:
        match = _TUPLE.match(body, at)
        if match is None:
            break
        user, server, group, nick = (re.sub(r"\\(.)", r"\1", part) for part in match.groups()[:4])
        found.append((user, server, group, nick))
        at = match.end()
        closed = match[5] == "]"
    if not closed or not found or body[at:].strip():
        line = body.count("\n", 0, at) + 1
        raise ValueError(f'line {line}: expected [{{"user", "server", "group", "nick"}}, …].')
    return found


# -- all rosters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Filter:
    """What ``process_rosteritems`` looks for."""

    subscriptions: frozenset[str]
    asks: frozenset[str]
    users: tuple[re.Pattern[str], ...] | None
    contacts: tuple[re.Pattern[str], ...] | None

    def matches(self, user: str, contact: str, item: Item, *, asked: bool) -> bool:
        ask = _ask(item, asked=asked)
        return (
            item.subscription in self.subscriptions
            and (ask in self.asks or (ask == "both" and bool(self.asks & {"in", "out"})))
            and _any(self.users, user)
            and _any(self.contacts, contact)
        )


def _any(patterns: tuple[re.Pattern[str], ...] | None, jid: str) -> bool:
    return patterns is None or any(pattern.fullmatch(jid) for pattern in patterns)


@command(
    "process_rosteritems",
    "ACTION SUBS ASKS USERS CONTACTS",
    "List or delete the roster items that match: ACTION is list or delete, the others any, or values with `:` between.",
)
async def process_rosteritems(context: Context, action: str, *filters: str) -> Result:
    """SUBS: none, from, to, both. ASKS: none, out, in. USERS and CONTACTS: regular expressions for whole JIDs."""
    if action not in ("list", "delete"):
        raise UsageError(f"There is no action {action!r}: list, delete.")
    subscriptions, asks, users, contacts = filters
    wanted = _Filter(
        _choice("SUBS", subscriptions, _SUBSCRIPTIONS),
        _choice("ASKS", asks, _ASKS),
        _patterns(users),
        _patterns(contacts),
    )
    found: list[tuple[str, str]] = []
    total = 0
    for host in context.server.hosts.values():
        if RosterModule.name not in host.modules:
            continue
        module = RosterModule.of(host)
        for user in await module.users():
            roster = await module.get_roster(user)
            total += len(roster.items)
            jid = JID.of(user, host.domain).bare
            matching = [
                contact
                for contact, item in roster.items.items()
                if wanted.matches(jid, contact, item, asked=contact in roster.requests)
            ]
            for contact in matching:
                if action == "delete":
                    await module.remove_item(user, contact)
                found.append((jid, contact))
    lines = [f"There are {total} roster items in total.", *(f"Matches: {jid} {contact}" for jid, contact in found)]
    return Result("\n".join(lines), [{"user": jid, "contact": contact} for jid, contact in found])


def _choice(name: str, text: str, allowed: Sequence[str]) -> frozenset[str]:
    values = text.split(":")
    if "any" in values:
        return frozenset(allowed)
    wrong = [value for value in values if value not in allowed]
    if wrong:
        raise UsageError(f"{name} is any, or some of {', '.join(allowed)} with `:` between, not {wrong[0]!r}.")
    return frozenset(values)


def _patterns(text: str) -> tuple[re.Pattern[str], ...] | None:
    values = text.split(":")
    if "any" in values:
        return None
    try:
        return tuple(re.compile(value) for value in values if value)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}") from None

"""Commands that change accounts and end sessions, and the announcement (XEP-0133 sections 4.1 to 4.8, 4.23)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.core import administration
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.core.calls import CallFailed
from monktalk.xmpp.modules.adhoc import CommandFailed, FormCommand, Outcome
from monktalk.xmpp.modules.admin_commands.common import (
    ACCOUNT,
    ACCOUNTS,
    command,
    done,
    existing,
    for_each,
    many_accounts,
    new_password,
    one_account,
    refusal,
    silent,
)
from monktalk.xmpp.protocol import forms
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.adhoc import Note
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.forms import TEXT_MULTI, TEXT_PRIVATE, TEXT_SINGLE, Field
from monktalk.xmpp.protocol.xmltree import Element, element

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.protocol.forms import Submission

log = get_logger(__name__)

_SERVICE_ERRORS: Final = (AccountExists, AccountMissing, AuthUnavailable, NotAllowed)

_PASSWORD: Final = Field("password", TEXT_PRIVATE, "The password", required=True)
_REPEATED: Final = Field("password-verify", TEXT_PRIVATE, "The password once more")


def commands(host: VirtualHost) -> list[FormCommand]:
    """The commands of this part."""
    return [
        command(
            host,
            "add-user",
            "Add a User",
            _add,
            ACCOUNT,
            _PASSWORD,
            _REPEATED,
            Field("email", TEXT_SINGLE, "Email address"),
            Field("given_name", TEXT_SINGLE, "Given name"),
            Field("surname", TEXT_SINGLE, "Family name"),
            instructions="Fill out this form to add a user.",
        ),
        command(
            host, "delete-user", "Delete Users", _delete, ACCOUNTS, instructions="Fill out this form to delete users."
        ),
        command(
            host,
            "disable-user",
            "Disable Users",
            _disable,
            ACCOUNTS,
            instructions="Fill out this form to disable users: their sessions end, and they can't log in.",
        ),
        command(
            host,
            "reenable-user",
            "Re-Enable Users",
            _enable,
            ACCOUNTS,
            instructions="Fill out this form to let disabled users log in again.",
        ),
        command(
            host,
            "end-user-session",
            "End User Sessions",
            _end_sessions,
            ACCOUNTS,
            instructions="Fill out this form to end all sessions of users, or with a resource one of them.",
        ),
        command(
            host,
            "change-user-password",
            "Change User Password",
            _change_password,
            ACCOUNT,
            _PASSWORD,
            instructions="Fill out this form to change a user's password.",
        ),
        command(
            host,
            "get-user-roster",
            "Get User Roster",
            _roster,
            ACCOUNTS,
            instructions="Fill out this form to see the rosters of users.",
        ),
        command(
            host,
            "announce",
            "Send Announcement to Online Users",
            _announce,
            Field("subject", TEXT_SINGLE, "Subject"),
            Field("announcement", TEXT_MULTI, "Announcement", required=True),
            instructions="Fill out this form to send an announcement to all online users.",
        ),
    ]


async def _add(host: VirtualHost, submission: Submission) -> Outcome:
    jid = one_account(host, submission)
    password = new_password(submission, repeated=True)
    try:
        await administration.create_account(host, jid.local, password)
    except _SERVICE_ERRORS as error:
        raise refusal(error, jid) from None
    card = _card(submission)
    if card is not None:
        try:
            await administration.ask_as(host, jid.local, "set", card)
        except StanzaError as error:
            log.info("card_not_stored", host=host.domain, user=jid.local, reason=str(error))
    return done(f"{jid.bare} was added")


def _card(submission: Submission) -> Element | None:
    """The vCard of a new user, as far as the form says anything about him."""
    email, given, family = (submission.one(var).strip() for var in ("email", "given_name", "surname"))
    card = element(ns.VCARD, "vCard")
    if given or family:
        card.append(element(ns.VCARD, "FN", None, " ".join(part for part in (given, family) if part)))
        names = (("FAMILY", family), ("GIVEN", given))
        card.append(
            element(ns.VCARD, "N", None, *(element(ns.VCARD, part, None, text) for part, text in names if text))
        )
    if email:
        card.append(element(ns.VCARD, "EMAIL", None, element(ns.VCARD, "USERID", None, email)))
    return card if len(card) else None


async def _delete(host: VirtualHost, submission: Submission) -> Outcome:
    accounts = many_accounts(host, submission)
    return await for_each(accounts, lambda name: administration.remove_account(host, name), "Users deleted")


async def _disable(host: VirtualHost, submission: Submission) -> Outcome:
    async def disable(name: str) -> None:
        await existing(host, name)
        await administration.set_disabled(host, name, disabled=True)

    return await for_each(many_accounts(host, submission), disable, "Users disabled")


async def _enable(host: VirtualHost, submission: Submission) -> Outcome:
    async def enable(name: str) -> None:
        await existing(host, name)
        await administration.set_disabled(host, name, disabled=False)

    return await for_each(many_accounts(host, submission), enable, "Users enabled")


async def _end_sessions(host: VirtualHost, submission: Submission) -> Outcome:
    ended, failures = 0, []
    for jid in many_accounts(host, submission):
        try:
            ended += await administration.end_sessions(
                host, jid.local, "ended by an administrator", jid.resource or None
            )
        except CallFailed as error:
            failures.append(str(error))
    return done(f"Sessions ended: {ended}", *failures)


async def _change_password(host: VirtualHost, submission: Submission) -> Outcome:
    jid = one_account(host, submission)
    password = new_password(submission, repeated=False)
    try:
        await administration.change_password(host, jid.local, password)
    except _SERVICE_ERRORS as error:
        raise refusal(error, jid) from None
    return done(f"The password of {jid.bare} was changed")


async def _roster(host: VirtualHost, submission: Submission) -> Outcome:
    """The rosters stand in the form, each as its user's client would get it (section 4.8)."""
    accounts = many_accounts(host, submission)
    rosters: list[Element] = []
    for jid in accounts:
        try:
            await existing(host, jid.local)
            roster = await administration.ask_as(host, jid.local, "get", element(ns.ROSTER, "query"))
        except _SERVICE_ERRORS as error:
            raise refusal(error, jid) from None
        except StanzaError as error:
            raise CommandFailed(f"the roster of {jid.bare} can't be read: {error}") from None
        if roster is not None:
            rosters.append(roster)
    named = Field("accountjids", forms.JID_MULTI, values=[jid.bare for jid in accounts])
    return Outcome(form=forms.result(ns.ADMIN, [named], *rosters))


async def _announce(host: VirtualHost, submission: Submission) -> Outcome:
    text = submission.text("announcement")
    if not text.strip():
        raise CommandFailed("the announcement is empty")
    replies = await administration.announce(host, text, submission.one("subject") or None)
    return Outcome([Note(f"Sent to {sum(replies.values())} sessions"), *silent(replies)])

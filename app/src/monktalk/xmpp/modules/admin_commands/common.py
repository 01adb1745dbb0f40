"""What the commands have in common: naming accounts, and making forms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from monktalk.common.jid import JID, InvalidJID
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.core.calls import CallFailed
from monktalk.xmpp.modules.adhoc import CommandFailed, FormCommand, Outcome
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.adhoc import Note
from monktalk.xmpp.protocol.forms import JID_MULTI, JID_SINGLE, Field, Submission

if TYPE_CHECKING:
    from monktalk.xmpp.core.calls import Replies
    from monktalk.xmpp.core.host import VirtualHost

log = get_logger(__name__)

Action = Callable[["VirtualHost", Submission], Awaitable[Outcome]]

MAX_ACCOUNTS: Final = 1000
"""Accounts that one command may name."""

ACCOUNT: Final = Field("accountjid", JID_SINGLE, "The Jabber ID of the account", required=True)
ACCOUNTS: Final = Field("accountjids", JID_MULTI, "The Jabber ID(s) of the accounts", required=True)


def command(
    host: VirtualHost,
    node: str,
    name: str,
    action: Action,
    *fields: Field,
    instructions: str = "",
) -> FormCommand:
    """A command of XEP-0133; without instructions it has no form. Who did what is logged."""

    async def run(requester: JID, submission: Submission) -> Outcome:
        outcome = await action(host, submission)
        accounts = submission.many("accountjids") or submission.many("accountjid")
        log.info("admin_command", node=node, by=requester.full, accounts=",".join(accounts))
        return outcome

    return FormCommand(f"{ns.ADMIN}#{node}", name, ns.ADMIN, run, instructions, fields if instructions else None)


def done(text: str, *failures: str) -> Outcome:
    """The end of a command that has nothing but that to tell, and what could not be done."""
    return Outcome([Note(text), *(Note(failure, "error") for failure in failures)])


def silent(replies: Replies) -> list[Note]:
    """What the user of a command has to know of workers that have not answered."""
    return [Note(reason, "warn") for _, reason in replies.failures]


def account(host: VirtualHost, text: str) -> JID:
    """An account of the host; a resource is allowed. Raises :class:`CommandFailed`."""
    try:
        jid = JID.parse(text.strip())
    except InvalidJID as error:
        raise CommandFailed(f"{text} is not a Jabber ID: {error}") from None
    if not jid.local:
        raise CommandFailed(f"{text} is not the Jabber ID of an account")
    if jid.domain != host.domain:
        raise CommandFailed(f"{jid.bare} is not an account of {host.domain}")
    return jid


def one_account(host: VirtualHost, submission: Submission) -> JID:
    """The account in ``accountjid``. Raises :class:`CommandFailed`."""
    return account(host, submission.one("accountjid"))


def many_accounts(host: VirtualHost, submission: Submission) -> list[JID]:
    """The accounts in ``accountjids``, each once. Raises :class:`CommandFailed`."""
    texts = submission.many("accountjids")
    if not texts:
        raise CommandFailed("name at least one account")
    if len(texts) > MAX_ACCOUNTS:
        raise CommandFailed(f"name {MAX_ACCOUNTS} accounts at most")
    return list(dict.fromkeys(account(host, text) for text in texts))


async def for_each(accounts: Sequence[JID], work: Callable[[str], Awaitable[None]], finished: str) -> Outcome:
    """Do something to each account, by its localpart, and tell how often that was possible and where not."""
    failures: list[str] = []
    names = list(dict.fromkeys(jid.local for jid in accounts))
    for name in names:
        try:
            await work(name)
        except (AccountMissing, CommandFailed):
            failures.append(f"there is no account {name}")
        except NotAllowed as error:
            failures.append(f"{name}: refused by the authentication service: {error}")
        except AuthUnavailable:
            failures.append(f"{name}: the authentication service can't be reached")
        except CallFailed as error:
            failures.append(f"{name}: {error}")
    notes = []
    if len(names) > len(failures):
        notes.append(Note(f"{finished}: {len(names) - len(failures)}"))
    if failures:
        notes.append(Note("; ".join(failures), "error"))
    return Outcome(notes)


async def existing(host: VirtualHost, name: str) -> None:
    """Raises :class:`AccountMissing` when there is no such account, and AuthUnavailable."""
    if not await host.auth.exists(name):
        raise AccountMissing(name)


def refusal(error: Exception, jid: JID) -> CommandFailed:
    """The sentence for what the authentication service has raised."""
    match error:
        case AccountExists():
            return CommandFailed(f"{jid.bare} exists already")
        case AccountMissing():
            return CommandFailed(f"there is no account {jid.bare}")
        case AuthUnavailable():
            return CommandFailed("the authentication service can't be reached, try again later")
    return CommandFailed(f"the authentication service refuses: {error}")


def new_password(submission: Submission, *, repeated: bool) -> str:
    """The password that was given. Raises :class:`CommandFailed` when it is empty, or repeated differently."""
    password = submission.one("password")
    if not password:
        raise CommandFailed("the password is empty")
    again = submission.one("password-verify")
    if (repeated or again) and again != password:
        raise CommandFailed("the two passwords are not the same")
    return password

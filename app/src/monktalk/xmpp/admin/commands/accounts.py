"""Accounts: who may log in. Names and passwords are kept by the authentication service."""

from __future__ import annotations

import asyncio
import csv
import io
import secrets
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.admin.registry import ERROR, OK, CommandError, Result, command
from monktalk.xmpp.core import administration
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, NotAllowed
from monktalk.xmpp.core.calls import CallFailed

if TYPE_CHECKING:
    from pathlib import Path

    from monktalk.xmpp.admin.context import Context

log = get_logger(__name__)

GROUP: Final = "Accounts"

MAX_IMPORT: Final = 64 * 1024 * 1024
_COLUMNS: Final = 3
_PAGE: Final = 10_000


async def _register(context: Context, user: str, domain: str, password: str) -> str:
    host, local = context.account(user, domain)
    jid = f"{local}@{host.domain}"
    if not password:
        raise CommandError(f"Can't register user {jid}: the password is empty")
    try:
        await administration.create_account(host, local, password)
    except AccountExists:
        raise CommandError(f"User {jid} already registered") from None
    except NotAllowed as error:
        raise CommandError(f"Can't register user {jid}: {error}") from None
    return f"User {jid} successfully registered"


@command("register", "[USER] HOST PASSWORD", "Make an account; without USER its name is made up.")
async def register(context: Context, *arguments: str) -> str:
    """With two arguments the name is random, as later releases of MongooseIM have it."""
    user, domain, password = arguments if len(arguments) == _COLUMNS else (secrets.token_hex(8), *arguments)
    return await _register(context, user, domain, password)


@command("register_identified", "USER HOST PASSWORD", "Make an account of that name.")
async def register_identified(context: Context, user: str, domain: str, password: str) -> str:
    """The same as ``register`` with three arguments."""
    return await _register(context, user, domain, password)


@command("unregister", "USER HOST", "Remove an account and everything that belongs to it.")
async def unregister(context: Context, user: str, domain: str) -> str:
    """Its sessions end."""
    host, local = context.account(user, domain)
    try:
        await administration.remove_account(host, local)
    except AccountMissing:
        raise CommandError(f"User {local}@{host.domain} does not exist") from None
    return f"User {local}@{host.domain} successfully unregistered"


@command("change_password", "USER HOST NEWPASS", "Change the password of an account.")
async def change_password(context: Context, user: str, domain: str, password: str) -> str:
    """Sessions stay."""
    host, local = context.account(user, domain)
    jid = f"{local}@{host.domain}"
    if not password:
        raise CommandError(f"Can't change the password of {jid}: it would be empty")
    try:
        await administration.change_password(host, local, password)
    except AccountMissing:
        raise CommandError(f"User {jid} does not exist") from None
    return f"Password for user {jid} successfully changed"


@command("check_account", "USER HOST", "Tell whether there is such an account.")
async def check_account(context: Context, user: str, domain: str) -> str:
    """An error when there is none."""
    host, local = await context.existing(user, domain)
    return f"User {local}@{host.domain} exists"


@command("check_password", "USER HOST PASSWORD", "Tell whether a password is right.")
async def check_password(context: Context, user: str, domain: str, password: str) -> str:
    """An error when it is wrong; the password is not repeated."""
    host, local = await context.existing(user, domain)
    if not await host.auth.check_password(local, password):
        raise CommandError(f"Password for user {local}@{host.domain} is incorrect")
    return f"Password for user {local}@{host.domain} is correct"


@command("ban_account", "USER HOST REASON", "Refuse an account's logins and end its sessions.")
async def ban_account(context: Context, user: str, domain: str, reason: str) -> str:
    """The account is disabled; its password stays as it is."""
    host, local = await context.existing(user, domain)
    try:
        await administration.set_disabled(host, local, disabled=True, reason=reason)
    except CallFailed as error:
        raise CommandError(
            f"User {local}@{host.domain} can't log in any more, but may still be connected. {error}"
        ) from None
    return f"User {local}@{host.domain} successfully banned with reason: {reason}"


@command("unban_account", "USER HOST", "Let an account log in again after ban_account.")
async def unban_account(context: Context, user: str, domain: str) -> str:
    """Undo ``ban_account``."""
    host, local = await context.existing(user, domain)
    await administration.set_disabled(host, local, disabled=False)
    return f"User {local}@{host.domain} may log in again"


@command("registered_users", "HOST", "List the accounts of a host that this server has made or seen.")
async def registered_users(context: Context, domain: str) -> list[str]:
    """The names, sorted."""
    host = context.host(domain)
    names: list[str] = []
    while True:
        page = await context.server.storage.accounts.list(host.domain, len(names), _PAGE)
        names += [account.user for account in page]
        if len(page) < _PAGE:
            return names


@command("import_users", "FILE", "Make the accounts of a CSV file: user,host,password in each line.")
async def import_users(context: Context, name: str) -> Result:
    """A line for each row of the file: what became of it, and the account. Those that exist stay as they are."""
    text = await asyncio.to_thread(_read, context.file(name))
    outcomes: list[tuple[str, str]] = []
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if row:
            outcomes.append(await _import(context, number, row))
    log.info("users_imported", file=context.file(name), created=sum(outcome == "ok" for outcome, _ in outcomes))
    failed = any(outcome not in ("ok", "exists") for outcome, _ in outcomes)
    return Result(
        "\n".join(f"{outcome}\t{what}" for outcome, what in outcomes),
        [{"result": outcome, "user": what} for outcome, what in outcomes],
        ERROR if failed else OK,
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMPORT + 1)
        if len(data) > MAX_IMPORT:
            raise CommandError(f"{path} is larger than {MAX_IMPORT} bytes: split it")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"{path} can't be read by the server: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8") from None


async def _import(context: Context, number: int, row: list[str]) -> tuple[str, str]:
    """What became of one row. A service that can't be reached ends the whole import."""
    if len(row) != _COLUMNS:
        return "bad_csv", f"line {number}: {len(row)} fields, not user,host,password"
    user, domain, password = (field.strip() for field in row)
    try:
        host, local = context.account(user, domain)
        if not password:
            return "null_password", f"{local}@{host.domain}"
        await administration.create_account(host, local, password)
    except AccountExists:
        return "exists", f"{user}@{domain}"
    except NotAllowed:
        return "not_allowed", f"{user}@{domain}"
    except CommandError as error:
        return "invalid", f"line {number}: {error}"
    return "ok", f"{local}@{host.domain}"

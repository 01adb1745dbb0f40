"""The accounts of an embedded run: rows of `web_users`, with passwords that are kept for the next start."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from monktalk.db import migrate
from monktalk.db.engine import create_engine, write_transaction
from monktalk.db.schema import accounts, web_users
from monktalk.embedded.files import Unusable, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from monktalk.embedded.environment import Environment
    from monktalk.embedded.files import Files


def make(environment: Environment, files: Files) -> dict[str, str]:
    """Bring the schema up to date and make the accounts that are missing; returns bare JIDs and their passwords.

    A password that the environment names replaces the one in the table; a random one is made once and remembered in a
    file that only the owner can read. Raises :class:`Unusable` for a database or file that is in no order.
    """
    try:
        return _make(environment, files)
    except SQLAlchemyError as error:
        raise Unusable(
            f"the database {files.database} can't be used: {getattr(error, 'orig', None) or error}"
        ) from None


def _make(environment: Environment, files: Files) -> dict[str, str]:
    try:
        migrate.upgrade(files.database_url)
    except ValueError as error:
        raise Unusable(f"the database {files.database} can't be used: {error}") from None
    remembered = _remembered(files.accounts)
    wanted = [*environment.accounts, *([environment.admin] if environment.admin else [])]
    found: dict[str, str] = {}
    engine = create_engine(files.database_url)
    try:
        with write_transaction(engine) as connection:
            for account in wanted:
                jid = f"{account.user}@{environment.domain}"
                password = account.password or remembered.get(jid) or secrets.token_urlsafe(9)
                _store(connection, account.user, environment.domain, password, known=remembered.get(jid) == password)
                found[jid] = password
    finally:
        engine.dispose()
    write_private(files.accounts, json.dumps(remembered | found, indent=1))
    return found


def _remembered(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        passwords: dict[str, str] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise Unusable(f"{path} can't be read: {error}; remove it, and new passwords are made up") from None
    return passwords


def _store(connection: Connection, user: str, domain: str, password: str, *, known: bool) -> None:
    """Write the credentials, unless they are there: the auth service may have turned the password into SCRAM keys."""
    mine = (web_users.c.node == user) & (web_users.c.domain == domain)
    present = connection.execute(select(web_users.c.token).where(mine)).first()
    if present is None:
        connection.execute(insert(web_users).values(node=user, token=password, domain=domain))
    elif not known:
        connection.execute(update(web_users).where(mine).values(token=password))
    seen = (accounts.c.host == domain) & (accounts.c.username == user)
    if connection.execute(select(accounts.c.username).where(seen)).first() is None:
        connection.execute(insert(accounts).values(host=domain, username=user, created=time.time()))

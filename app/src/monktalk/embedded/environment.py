"""What `make run` reads from the environment."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monktalk.common.jid import InvalidJID, prepare_domain, prepare_local
from monktalk.common.scram import InvalidPassword, prepare_password

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
"""Where the authentication service listens, wherever clients may come from."""

DEFAULT_PORT = 5222
OLD_PORT = 80
"""Clients of the old installation connect to this port; it is opened too when that is allowed."""


class InvalidVariable(ValueError):
    """A variable that can't be used; the message names it and says what is expected."""


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be made: the prepared localpart, and the password, None for a random one."""

    user: str
    password: str | None


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables, checked. ``ports`` are those to listen on for clients, 0 standing for a free one."""

    data: Path
    bind: str
    domain: str
    ports: tuple[int, ...]
    auth_port: int
    accounts: tuple[NewAccount, ...]
    admin: NewAccount | None
    tls_required: bool


def read(variables: Mapping[str, str] | None = None) -> Environment:
    """Read the variables ``MONKTALK_*``, and see whether the ports can be had.

    Raises :class:`InvalidVariable` with a sentence.
    """
    source = os.environ if variables is None else variables
    bind = _bind(source.get("MONKTALK_BIND") or "127.0.0.1")
    accounts = _accounts("MONKTALK_ACCOUNTS", source.get("MONKTALK_ACCOUNTS", ""))
    admins = _accounts("MONKTALK_ADMIN", source.get("MONKTALK_ADMIN", ""))
    if len(admins) > 1:
        raise InvalidVariable("MONKTALK_ADMIN names one account, as user:password")
    ports = _client_ports(source.get("MONKTALK_PORT_XMPP"), bind)
    auth_port = _auth_port(source.get("MONKTALK_PORT_AUTH") or "3300")
    for name, address, port in (("AUTH", LOOPBACK, auth_port), *(("XMPP", bind, port) for port in ports)):
        refusal = "the same port is to serve clients" if name == "AUTH" and port in ports else _refusal(address, port)
        if refusal:
            raise InvalidVariable(
                f"can't listen on {address} port {port}: {refusal}; set MONKTALK_PORT_{name} to another port"
            )
    return Environment(
        data=Path(source.get("MONKTALK_DATA_DIR") or "var").absolute(),
        bind=bind,
        domain=_domain(source.get("MONKTALK_DOMAIN") or "localhost"),
        ports=ports,
        auth_port=auth_port,
        accounts=accounts or (NewAccount("alice", None), NewAccount("bob", None)),
        admin=admins[0] if admins else None,
        tls_required=_boolean("MONKTALK_TLS_REQUIRED", source.get("MONKTALK_TLS_REQUIRED") or "true"),
    )


def _domain(text: str) -> str:
    try:
        return prepare_domain(text)
    except InvalidJID as error:
        raise InvalidVariable(f"MONKTALK_DOMAIN={text}: {error}") from None


def _port(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise InvalidVariable(f"{name}={text}: a port is a number from 0 to 65535")


def _auth_port(text: str) -> int:
    port = _port("MONKTALK_PORT_AUTH", text)
    if port == 0:
        raise InvalidVariable("MONKTALK_PORT_AUTH=0: the port has to be named, the XMPP server is configured with it")
    return port


def _boolean(name: str, text: str) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise InvalidVariable(f"{name}={text}: write true or false")


def _client_ports(text: str | None, bind: str) -> tuple[int, ...]:
    if text:
        return (_port("MONKTALK_PORT_XMPP", text),)
    return (DEFAULT_PORT,) if _refusal(bind, OLD_PORT) else (DEFAULT_PORT, OLD_PORT)


def _bind(text: str) -> str:
    refusal = _refusal(text, 0)
    if refusal:
        raise InvalidVariable(f"MONKTALK_BIND={text}: can't listen there: {refusal}")
    return text


def _refusal(address: str, port: int) -> str | None:
    """Why nobody can listen there now; None when it is possible."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, UnicodeError) as error:
            return getattr(error, "strerror", None) or str(error)
    return None


def _accounts(name: str, text: str) -> tuple[NewAccount, ...]:
    """``user:password,user:password``; a password may hold colons, but no comma."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        user, separator, password = item.partition(":")
        if not separator or not password:
            raise InvalidVariable(f"{name}: write user:password, one account after the other with commas between them")
        try:
            prepare_password(password)
            found.append(NewAccount(prepare_local(user), password))
        except (InvalidJID, InvalidPassword) as error:
            raise InvalidVariable(f"{name}: {user}: {error}") from None
    return tuple(found)

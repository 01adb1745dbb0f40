"""The accounts of the clients: a file with an address and a password on each line."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in."""

    user: str
    domain: str
    password: str

    @property
    def jid(self) -> bytes:
        """The bare address, as it stands in stanzas."""
        return f"{self.user}@{self.domain}".encode()


def make(count: int, domain: str, prefix: str = "load") -> list[Account]:
    """As many accounts with random passwords; whoever runs the server has to put them in."""
    return [Account(f"{prefix}-{number}", domain, secrets.token_urlsafe(16)) for number in range(1, count + 1)]


def read(path: Path) -> list[Account]:
    """The accounts of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not an address and a password.
    """
    accounts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        address, _, password = line.strip().partition(" ")
        user, at, domain = address.partition("@")
        if not (user and at and domain and password):
            raise ValueError(f"{path}, line {number}: an address and a password are expected, with a space between")
        accounts.append(Account(user, domain, password))
    return accounts


def write(path: Path, accounts: Sequence[Account]) -> None:
    """Write such a file, for nobody else to read."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{each.user}@{each.domain} {each.password}\n" for each in accounts), encoding="utf-8")

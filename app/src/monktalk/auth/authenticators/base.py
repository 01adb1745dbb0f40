"""What an authenticator is: the interface that a domain's file implements or takes ready-made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monktalk.auth.errors import AccountMissing, NotAllowed, WrongPassword

if TYPE_CHECKING:
    from monktalk.auth.cache import DigestCache
    from monktalk.auth.web_users import WebUsersTable

ANSWERS: Final = ("username", "true")
"""What success may say: the name of the user, or the word that stock MongooseIM wants."""

KEYS: Final = "scram"
PLAIN: Final = "plain"
FORMATS: Final = (KEYS, PLAIN)
"""What get_password may give: SCRAM keys, or the password itself."""


@dataclass(frozen=True)
class Resources:
    """What the service lends to authenticators.

    Attributes:
        table: web_users.
        cache: for results of slow computations.
        answer, upgrade, iterations: what the service's configuration says, for authenticators that say nothing.
    """

    table: WebUsersTable
    cache: DigestCache[str]
    answer: str = "username"
    upgrade: bool = True
    iterations: int = 4096


class Authenticator(ABC):
    """The accounts of one domain. Its methods are called by several threads at once.

    User names come as the XMPP server has prepared them, never empty, without control characters, and never
    `true` or `false`. A method that cannot do its work because something else does not answer raises
    `Unavailable`; any other exception counts as the same and is logged with its place. None of its texts may hold
    a password.

    Attributes:
        answer: what success says, one of `ANSWERS`, or None for what the service's configuration says.
        concurrency: how many calls may be under way at once, 0 for any number. One domain's calls that do not
            come back must not take all threads from other domains.
    """

    answer: str | None = None
    concurrency: int = 8

    domain: str
    resources: Resources

    def start(self, domain: str, resources: Resources) -> None:
        """Take what the service lends; called once, before any other method.

        Raises:
            ValueError: the authenticator cannot serve this domain; the domain is disabled then.
        """
        self.domain = domain
        self.resources = resources

    @abstractmethod
    def user_exists(self, user: str) -> bool:
        """Return whether there is such an account."""

    @abstractmethod
    def check_password(self, user: str, password: str) -> bool:
        """Return whether the account exists and this is its password.

        Should take the same time for accounts that do not exist as for wrong passwords, and compare secrets
        with `hmac.compare_digest`.
        """

    def get_password(self, user: str) -> str | None:
        """Return the account's password, or its SCRAM keys as text; None without an account or when it is secret."""
        del user
        return None

    def register(self, user: str, password: str) -> None:
        """Make an account.

        Raises:
            AccountExists: it is there already.
            NotAllowed: this domain's accounts are not made here, which is the default.
        """
        del user, password
        raise NotAllowed("Accounts of this domain are not made here.")

    def set_password(self, user: str, password: str) -> None:
        """Change an account's password.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: this domain's passwords are not changed here, which is the default.
        """
        del user, password
        raise NotAllowed("Passwords of this domain are not changed here.")

    def remove_user(self, user: str) -> None:
        """Delete an account.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: this domain's accounts are not deleted here, which is the default.
        """
        del user
        raise NotAllowed("Accounts of this domain are not deleted here.")

    def remove_user_validate(self, user: str, password: str) -> None:
        """Delete an account if the password is right.

        Raises:
            AccountMissing: there is no such account.
            WrongPassword: there is, with another password.
            NotAllowed: as for `remove_user`.
        """
        if not self.check_password(user, password):
            raise WrongPassword if self.user_exists(user) else AccountMissing
        self.remove_user(user)

    def get_certs(self, user: str) -> str | None:
        """Return the certificates that the account may log in with, as PEM; None when there are none."""
        del user
        return None


def check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Check an option of an authenticator that is one of several words, or None.

    Raises:
        ValueError: it is another one.
    """
    if value is not None and value not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {listed}")

"""Bots ("buddies") beside the accounts of a domain whose own back end does not know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.auth.authenticators.base import Authenticator
from monktalk.auth.authenticators.web_users import WebUsers
from monktalk.auth.errors import NotAllowed
from monktalk.common.jid import InvalidJID, prepare_local

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monktalk.auth.authenticators.base import Resources


class Buddies(Authenticator):
    """Named buddies have their passwords in web_users; everybody else is the business of another authenticator.

    A buddy is never let in without a password, and its name is never sent to the other authenticator, not even
    when web_users does not know it. Buddies are not made by `register`: a stranger could be faster than their
    owner. Insert them into web_users.

    Args:
        accounts: who knows all others.
        buddies: the user names of the domain's buddies.
        web_users: how buddies are looked up, where the defaults do not fit.

    Raises:
        ValueError: a name cannot be one of a user, or something else than an authenticator is wrapped.
    """

    def __init__(self, accounts: Authenticator, buddies: Iterable[str], *, web_users: WebUsers | None = None) -> None:
        if not isinstance(accounts, Authenticator):
            raise ValueError("Buddies wraps an authenticator, such as HttpBackend(…)")
        if isinstance(buddies, str):
            raise ValueError('buddies must be a list of names, like ["echo", "help"]')
        self._accounts = accounts
        self._web_users = web_users or WebUsers()
        self._names = frozenset(_prepare(name) for name in buddies)
        self.answer = accounts.answer
        self.concurrency = accounts.concurrency

    def start(self, domain: str, resources: Resources) -> None:
        """Pass on what the service lends."""
        super().start(domain, resources)
        self._accounts.start(domain, resources)
        self._web_users.start(domain, resources)

    def is_buddy(self, user: str) -> bool:
        """Return whether the name is one of a buddy, in whatever spelling."""
        if user in self._names:
            return True
        try:
            return prepare_local(user) in self._names
        except InvalidJID:
            return False

    def user_exists(self, user: str) -> bool:
        """Ask who is in charge."""
        return self._of(user).user_exists(user)

    def check_password(self, user: str, password: str) -> bool:
        """Ask who is in charge."""
        return self._of(user).check_password(user, password)

    def get_password(self, user: str) -> str | None:
        """Ask who is in charge."""
        return self._of(user).get_password(user)

    def register(self, user: str, password: str) -> None:
        """Leave it to the other authenticator, buddies excepted."""
        if self.is_buddy(user):
            raise NotAllowed("Buddies are made by whoever runs this server, not by registration.")
        self._accounts.register(user, password)

    def set_password(self, user: str, password: str) -> None:
        """Ask who is in charge."""
        self._of(user).set_password(user, password)

    def remove_user(self, user: str) -> None:
        """Ask who is in charge."""
        self._of(user).remove_user(user)

    def remove_user_validate(self, user: str, password: str) -> None:
        """Ask who is in charge."""
        self._of(user).remove_user_validate(user, password)

    def get_certs(self, user: str) -> str | None:
        """Ask who is in charge."""
        return self._of(user).get_certs(user)

    def _of(self, user: str) -> Authenticator:
        return self._web_users if self.is_buddy(user) else self._accounts


def _prepare(name: str) -> str:
    try:
        return prepare_local(name)
    except InvalidJID as error:
        raise ValueError(f"{name!r} cannot be the name of a buddy: {error}") from None

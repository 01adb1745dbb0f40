"""Accounts in the table web_users, made by hand, by the XMPP server or by whatever else writes there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.auth.authenticators.base import ANSWERS, FORMATS, KEYS, PLAIN, Authenticator, check_choice
from monktalk.auth.errors import AccountMissing, InvalidCall, NotAllowed, Unavailable
from monktalk.auth.passwords import is_same, spend_check, to_scram, to_scram_cached
from monktalk.common import scram
from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from monktalk.auth.authenticators.base import Resources

log = get_logger(__name__)

_PROVEN = "yes"


class WebUsers(Authenticator):
    """The accounts of a domain in web_users.

    A stored token is SCRAM keys in one of MongooseIM's forms, or else the password itself. A password is
    replaced by its keys (`upgrade`) when it has been checked, and when somebody is about to log in with it by
    SCRAM: the service hands keys out then and does not see the outcome. SHA-1 keys get company of the other
    hashes when their password is checked. Nobody's change in between is undone by that.

    Args:
        upgrade: whether to do that; None for what the service's configuration says. Not possible, and so off,
            with `password_format="plain"`.
        password_format: what get_password gives: "scram" keys, those of a password that must stay (computed once
            and remembered), or "plain" the password, and nothing for accounts that have keys.
        scram_iterations: PBKDF2 iterations of new keys; None for what the service's configuration says.
        registration: whether accounts may be made by `register`.
        answer: see `Authenticator`.

    Raises:
        ValueError: an option has a value that it cannot have.
    """

    # The database's pool and time limits bound how long its calls take.
    concurrency = 0

    def __init__(
        self,
        *,
        upgrade: bool | None = None,
        password_format: str = KEYS,
        scram_iterations: int | None = None,
        registration: bool = True,
        answer: str | None = None,
    ) -> None:
        check_choice("answer", answer, ANSWERS)
        check_choice("password_format", password_format, FORMATS)
        if upgrade and password_format == PLAIN:
            raise ValueError('upgrade=True contradicts password_format="plain": keys cannot be turned into passwords')
        if scram_iterations is not None and not scram.ITERATIONS <= scram_iterations <= scram.MAX_ITERATIONS:
            raise ValueError(f"scram_iterations must be between {scram.ITERATIONS} and {scram.MAX_ITERATIONS}")
        self.answer = answer
        self.registration = registration
        self._plain = password_format == PLAIN
        self._upgrade_wanted = upgrade
        self._iterations_wanted = scram_iterations
        self._upgrade = False
        self._iterations = scram.ITERATIONS

    def start(self, domain: str, resources: Resources) -> None:
        """Take what the service lends."""
        super().start(domain, resources)
        self._iterations = self._iterations_wanted or resources.iterations
        wanted = resources.upgrade if self._upgrade_wanted is None else self._upgrade_wanted
        self._upgrade = wanted and not self._plain

    def user_exists(self, user: str) -> bool:
        """Return whether web_users has the account."""
        return self.resources.table.token(self.domain, user) is not None

    def check_password(self, user: str, password: str) -> bool:
        """Return whether the password is the one in web_users; a PBKDF2 is computed whenever it is not."""
        token = self.resources.table.token(self.domain, user)
        if token is not None and scram.is_scram(token):
            return self._check_keys(user, password, token)
        if token is None or not is_same(token, password):
            spend_check(password, self._iterations)
            return False
        if self._upgrade:
            self._store_keys(user, token, password)
        return True

    def get_password(self, user: str) -> str | None:
        """Return the account's keys, or with `password_format="plain"` its password."""
        token = self.resources.table.token(self.domain, user)
        if token is None:
            return None
        if scram.is_scram(token):
            return None if self._plain else token
        if self._plain:
            return token
        try:
            keys = to_scram_cached(self.resources.cache, self.domain, user, token, self._iterations)
        except scram.InvalidPassword as error:
            log.warning("unusable_password", domain=self.domain, user=user, reason=error)
            return None
        if self._upgrade and not self._replace(user, token, keys):
            # Somebody else changed it meanwhile: what is stored now is the truth.
            changed = self.resources.table.token(self.domain, user)
            if changed != token:
                return changed if changed is not None and scram.is_scram(changed) else None
        return keys

    def register(self, user: str, password: str) -> None:
        """Make an account."""
        if not self.registration:
            raise NotAllowed("Accounts of this domain are not made here.")
        self.resources.table.insert(self.domain, user, self._token(password))

    def set_password(self, user: str, password: str) -> None:
        """Change a password."""
        if not self.resources.table.set(self.domain, user, self._token(password)):
            raise AccountMissing

    def remove_user(self, user: str) -> None:
        """Delete an account."""
        if not self.resources.table.delete(self.domain, user):
            raise AccountMissing

    def _token(self, password: str) -> str:
        """Return what is stored for a new password."""
        try:
            scram.prepare_password(password)
        except scram.InvalidPassword as error:
            raise InvalidCall(str(error)) from None
        if not self._plain:
            return to_scram(password, self._iterations)
        if scram.is_scram(password):
            raise InvalidCall("The password looks like stored SCRAM keys.")
        return password

    def _check_keys(self, user: str, password: str, token: str) -> bool:
        try:
            credentials = scram.parse(token)
        except scram.InvalidScram as error:
            log.error("unusable_credentials", domain=self.domain, user=user, reason=error)
            spend_check(password, self._iterations)
            return False
        cache = self.resources.cache
        # The token is part of the question: when it changes, the answer is not found again.
        question = cache.key("check", self.domain, user, token, password)
        if cache.get(question) is not None:
            return True
        if not scram.verify_password(password, scram.checking_keys(credentials)):
            return False
        cache.put(question, _PROVEN)
        if self._upgrade and self._is_weak(credentials):
            self._store_keys(user, token, password)
        return True

    def _is_weak(self, credentials: dict[str, scram.ScramKeys]) -> bool:
        iterations = min(keys.iterations for keys in credentials.values())
        return iterations < self._iterations or not set(scram.HASHES) <= set(credentials)

    def _store_keys(self, user: str, token: str, password: str) -> None:
        """Replace a token by keys of its password, which has just been checked."""
        try:
            keys = to_scram(password, self._iterations)
        except scram.InvalidPassword as error:
            log.warning("not_upgraded", domain=self.domain, user=user, reason=error)
            return
        self._replace(user, token, keys)

    def _replace(self, user: str, token: str, keys: str) -> bool:
        """Store keys unless the token has changed; a login does not fail because that cannot be done."""
        try:
            replaced = self.resources.table.replace(self.domain, user, token, keys)
        except Unavailable:
            log.warning("not_upgraded", domain=self.domain, user=user, reason="the database does not take writes")
            return False
        if replaced:
            log.info("upgraded", domain=self.domain, user=user)
        return replaced

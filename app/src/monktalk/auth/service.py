"""What every call goes through, whatever the domain: which domain, back-off, and failures made uniform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from monktalk.auth.errors import (
    AccountMissing,
    CallError,
    InvalidCall,
    NotAllowed,
    Throttled,
    Unavailable,
    WrongPassword,
)
from monktalk.auth.loader import failure_lines
from monktalk.auth.passwords import spend_check
from monktalk.common.jid import MAX_PART_BYTES, InvalidJID, prepare_domain
from monktalk.common.logging import get_logger
from monktalk.common.scram import MAX_PASSWORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from monktalk.auth.authenticators.base import Authenticator
    from monktalk.auth.backoff import BackOff
    from monktalk.auth.loader import Domain

T = TypeVar("T")

UNUSABLE_NAMES: Final = frozenset({"true", "false"})
"""Where success is answered with the user name, these names would be verdicts."""

SLOT_TIME: Final = 1.0
"""Seconds to wait when a domain has as many calls under way as it may."""

log = get_logger(__name__)


class Call(NamedTuple):
    """What the XMPP server asks: three parameters, and the address of its client when it tells."""

    user: str
    server: str
    password: str
    address: str = ""


class AuthService:
    """The calls of the contract, for all domains. May be used by many threads.

    Every method may raise `InvalidCall` for values that no account can have, and `Unavailable` when the domain's
    authenticator is broken or cannot answer.

    Args:
        domains: the domains that have a file.
        back_off: counts wrong passwords.
        iterations: of PBKDF2, for what is computed where there is no account.
    """

    def __init__(self, domains: Mapping[str, Domain], back_off: BackOff, iterations: int) -> None:
        self.domains = domains
        self._back_off = back_off
        self._iterations = iterations

    def user_exists(self, call: Call) -> str | None:
        """Return what success says when the account exists, None otherwise."""
        domain = self._find(call)
        if domain is None or not self._ask(domain, lambda accounts: accounts.user_exists(call.user)):
            return None
        return _success(domain, call)

    def check_password(self, call: Call) -> str | None:
        """Return what success says when the password is right, None otherwise.

        Raises:
            Throttled: too many were wrong.
        """
        domain = self._find(call)
        self._admit(domain, call)
        right = domain is not None and self._ask(domain, lambda accounts: self._check(accounts, call))
        if domain is None:
            spend_check(call.password, self._iterations)
        self._count(domain, call, right=right)
        return _success(domain, call) if domain is not None and right else None

    def get_password(self, call: Call) -> str:
        """Return the account's password or SCRAM keys.

        Raises:
            AccountMissing: there is no such account, or its password is not told.
        """
        domain = self._find(call)
        stored = None if domain is None else self._ask(domain, lambda accounts: accounts.get_password(call.user))
        if stored is None:
            raise AccountMissing
        return stored

    def register(self, call: Call) -> str:
        """Make an account and return what success says.

        Raises:
            AccountExists: it is there already.
            NotAllowed: it cannot be made.
        """
        domain = self._find(call)
        if domain is None:
            raise NotAllowed
        self._ask(domain, lambda accounts: accounts.register(call.user, call.password))
        log.info("registered", domain=domain.name, user=call.user)
        return _success(domain, call)

    def set_password(self, call: Call) -> str:
        """Change a password and return what success says.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: the domain does not allow it.
        """
        domain = self._demand(call)
        self._ask(domain, lambda accounts: accounts.set_password(call.user, call.password))
        log.info("password_changed", domain=domain.name, user=call.user)
        return _success(domain, call)

    def remove_user(self, call: Call) -> str:
        """Delete an account and return what success says.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: the domain does not allow it.
        """
        domain = self._demand(call)
        self._ask(domain, lambda accounts: accounts.remove_user(call.user))
        log.info("removed", domain=domain.name, user=call.user)
        return _success(domain, call)

    def remove_user_validate(self, call: Call) -> str:
        """Delete an account if the password is right, and return what success says.

        Raises:
            AccountMissing: there is no such account.
            WrongPassword: it has another password.
            NotAllowed: the domain does not allow it.
            Throttled: too many passwords were wrong.
        """
        domain = self._find(call)
        self._admit(domain, call)
        try:
            if domain is None:
                spend_check(call.password, self._iterations)
                raise AccountMissing
            self._ask(domain, lambda accounts: accounts.remove_user_validate(call.user, call.password))
        except (AccountMissing, WrongPassword):
            self._count(domain, call, right=False)
            raise
        log.info("removed", domain=domain.name, user=call.user)
        return _success(domain, call)

    def get_certs(self, call: Call) -> str:
        """Return the account's certificates, as PEM.

        Raises:
            AccountMissing: it has none, or there is no such account.
        """
        domain = self._find(call)
        certificates = None if domain is None else self._ask(domain, lambda accounts: accounts.get_certs(call.user))
        if certificates is None:
            raise AccountMissing
        return certificates

    def _find(self, call: Call) -> Domain | None:
        """Return the domain of a call; None when it, or an account of this name, cannot be here."""
        _check_values(call)
        if call.user in UNUSABLE_NAMES:
            return None
        try:
            return self.domains.get(prepare_domain(call.server))
        except InvalidJID:
            return None

    def _demand(self, call: Call) -> Domain:
        domain = self._find(call)
        if domain is None:
            raise AccountMissing
        return domain

    def _ask(self, domain: Domain, question: Callable[[Authenticator], T]) -> T:
        """Put a question to a domain's authenticator.

        Raises:
            CallError: the authenticator's own, or `Unavailable` in place of anything else that it raises.
        """
        if domain.authenticator is None:
            raise Unavailable
        if domain.slots is not None and not domain.slots.acquire(timeout=SLOT_TIME):
            log.error("authenticator_busy", domain=domain.name, limit=domain.authenticator.concurrency)
            raise Unavailable
        try:
            return question(domain.authenticator)
        except CallError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a domain's own code is that domain's trouble
            # Only the places: the text of an exception in code of others may quote what it was called with.
            log.error(
                "authenticator_failed", domain=domain.name, exception=type(error).__name__, places=failure_lines(error)
            )
            raise Unavailable from None
        finally:
            if domain.slots is not None:
                domain.slots.release()

    def _check(self, accounts: Authenticator, call: Call) -> bool:
        # An authenticator that returns something else than a verdict must not let anybody in.
        return accounts.check_password(call.user, call.password) is True

    def _admit(self, domain: Domain | None, call: Call) -> None:
        if domain is not None and domain.authenticator is None:
            raise Unavailable
        wait = self._back_off.wait(_name(domain, call), call.user, call.address)
        if wait > 0:
            raise Throttled(wait)

    def _count(self, domain: Domain | None, call: Call, *, right: bool) -> None:
        if right:
            self._back_off.succeeded(_name(domain, call), call.user, call.address)
        else:
            self._back_off.failed(_name(domain, call), call.user, call.address)


def _name(domain: Domain | None, call: Call) -> str:
    """Return one name for all spellings of a domain, so that each is not counted apart."""
    return call.server if domain is None else domain.name


def _success(domain: Domain, call: Call) -> str:
    return "true" if domain.answer == "true" else call.user


def _check_values(call: Call) -> None:
    """Refuse values that no account can have, before they cost anything.

    Raises:
        InvalidCall: they are too long, empty, or have control characters.
    """
    for name, value, limit in (
        ("user", call.user, MAX_PART_BYTES),
        ("server", call.server, MAX_PART_BYTES),
        ("pass", call.password, MAX_PASSWORD_BYTES),
    ):
        if len(value.encode("utf-8", "replace")) > limit:
            raise InvalidCall(f"The parameter {name} has more than {limit} bytes.")
    if not call.user or not call.server:
        raise InvalidCall("The parameters user and server must not be empty.")
    if any(character < " " or character == "\x7f" for character in call.user + call.server + call.password):
        raise InvalidCall("The parameters must not have control characters.")

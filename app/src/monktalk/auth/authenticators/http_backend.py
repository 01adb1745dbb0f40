"""Accounts that the owner of a domain keeps behind an HTTP service of its own."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from monktalk.auth.authenticators.base import ANSWERS, FORMATS, KEYS, PLAIN, Authenticator, check_choice
from monktalk.auth.authenticators.http_client import HttpClient, Reply
from monktalk.auth.errors import (
    AccountExists,
    AccountMissing,
    InvalidCall,
    NotAllowed,
    Unavailable,
    WrongPassword,
)
from monktalk.auth.passwords import to_scram_cached
from monktalk.common import scram
from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

log = get_logger(__name__)

CALLS: Final = (
    "user_exists",
    "check_password",
    "get_password",
    "register",
    "set_password",
    "remove_user",
    "remove_user_validate",
    "get_certs",
)
_QUERIES: Final = frozenset({"user_exists", "check_password", "get_password", "get_certs"})
_PARAMETERS: Final = ("user", "server", "pass")
_MEANINGFUL: Final = frozenset({200, 201, 204, 400, 401, 403, 404, 409})
_DONE: Final = frozenset({200, 201, 204})


class HttpBackend(Authenticator):
    """The accounts of a domain behind an HTTP service that speaks MongooseIM's contract, or nearly so.

    By the contract, `GET <url>check_password?user=…&server=…&pass=…` is answered with 200 and `true` or the user
    name, and changes are sent as POST. `#` in a user name stands for `@` towards the back end, so that addresses of
    another kind can be user names.

    Args:
        url: base address of the back end. `https://`; `http://` only on this machine, or with `insecure=True`.
        username, password: what the back end wants to see from this service (HTTP basic authentication);
            `password_file` names a file that holds the password instead.
        ca_file: PEM file of the certificate authorities to trust, instead of the system's.
        timeout: seconds for a whole call.
        connections: calls under way at once.
        gives_passwords: whether the back end answers get_password; it is not asked otherwise.
        password_format: what get_password gives to the XMPP server: "scram" keys, which are computed when the back
            end gives a password, or "plain", the password.
        changes: whether register, set_password and remove_user are passed on; they are refused otherwise.
        post: send everything as POST: some back ends log their queries, with the passwords in them.
        server: what to send as `server`, where the back end does not know the domain's name.
        paths: other names of calls, {"check_password": "login"}.
        parameters: other names of parameters, {"user": "username", "pass": "password"}.
        insecure: allow `http://` to another machine. Everybody on the way can read passwords then.
        max_answer: bytes of an answer.
        answer: see `Authenticator`.

    Raises:
        ValueError: an option has a value that it cannot have.
        OSError: `password_file` or `ca_file` cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str = "",
        password: str = "",
        password_file: str | None = None,
        ca_file: str | None = None,
        timeout: float = 3.0,
        connections: int = 8,
        gives_passwords: bool = False,
        password_format: str = KEYS,
        changes: bool = False,
        post: bool = False,
        server: str | None = None,
        paths: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        insecure: bool = False,
        max_answer: int = 16 * 1024,
        answer: str | None = None,
    ) -> None:
        check_choice("answer", answer, ANSWERS)
        check_choice("password_format", password_format, FORMATS)
        _check_url(url, insecure=insecure)
        if timeout <= 0 or connections < 1 or max_answer < 1:
            raise ValueError("timeout, connections and max_answer must be positive")
        if password_file is not None:
            password = Path(password_file).read_text("utf-8").rstrip("\r\n")
        self.answer = answer
        self.concurrency = connections
        self._paths = _names("paths", CALLS, paths)
        self._parameters = _names("parameters", _PARAMETERS, parameters)
        self._server = server
        self._gives_passwords = gives_passwords
        self._plain = password_format == PLAIN
        self._changes = changes
        self._post = post
        self._shows_credentials = bool(username or password)
        self._client = HttpClient(
            url,
            username=username,
            password=password,
            timeout=timeout,
            connections=connections,
            max_answer=max_answer,
            ca_file=ca_file,
        )

    def user_exists(self, user: str) -> bool:
        """Ask the back end."""
        return self._verdict(self._call("user_exists", user), user)

    def check_password(self, user: str, password: str) -> bool:
        """Ask the back end."""
        return self._verdict(self._call("check_password", user, password), user)

    def get_password(self, user: str) -> str | None:
        """Ask the back end, if it gives passwords."""
        if not self._gives_passwords:
            return None
        stored = self._text(self._call("get_password", user))
        if not stored:
            return None
        if scram.is_scram(stored):
            return None if self._plain else stored
        if self._plain:
            return stored
        try:
            return to_scram_cached(self.resources.cache, self.domain, user, stored, self.resources.iterations)
        except scram.InvalidPassword as error:
            log.warning("unusable_password", domain=self.domain, user=user, reason=error)
            return None

    def register(self, user: str, password: str) -> None:
        """Pass it on."""
        reply = self._change("register", user, password)
        if reply.status == 409:
            raise AccountExists
        self._demand_done(reply)

    def set_password(self, user: str, password: str) -> None:
        """Pass it on."""
        self._demand_done(self._change("set_password", user, password))

    def remove_user(self, user: str) -> None:
        """Pass it on."""
        self._demand_done(self._change("remove_user", user, ""))

    def remove_user_validate(self, user: str, password: str) -> None:
        """Pass it on."""
        reply = self._change("remove_user_validate", user, password)
        if reply.status == 403:
            raise WrongPassword
        self._demand_done(reply)

    def get_certs(self, user: str) -> str | None:
        """Ask the back end, if it gives passwords."""
        if not self._gives_passwords:
            return None
        return self._text(self._call("get_certs", user)) or None

    def _change(self, call: str, user: str, password: str) -> Reply:
        if not self._changes:
            raise NotAllowed("Accounts of this domain are changed at its own back end.")
        return self._call(call, user, password)

    def _call(self, call: str, user: str, password: str = "") -> Reply:
        """Make a call.

        Raises:
            Unavailable: the back end does not answer, or with something that means nothing.
        """
        server = self.domain if self._server is None else self._server
        values = {"user": _outward(user), "server": server, "pass": password}
        form = "&".join(f"{quote(self._parameters[name], '')}={quote(value, '')}" for name, value in values.items())
        target = self._paths[call]
        is_query = call in _QUERIES
        try:
            if is_query and not self._post:
                reply = self._client.get(f"{target}?{form}")
            else:
                reply = self._client.post(target, form, repeatable=is_query)
        except Unavailable as error:
            log.error("backend_failed", domain=self.domain, call=call, reason=error)
            raise
        if reply.status not in _MEANINGFUL:
            log.error("backend_failed", domain=self.domain, call=call, status=reply.status)
            raise Unavailable
        if reply.status == 401 and self._shows_credentials:
            log.error("backend_refuses_service", domain=self.domain, hint="check username and password in its file")
            raise Unavailable
        return reply

    def _verdict(self, reply: Reply, user: str) -> bool:
        """Return what an answer means: `true` or the name, in either spelling, byte by byte."""
        return reply.status == 200 and reply.body in (b"true", user.encode(), _outward(user).encode())

    def _text(self, reply: Reply) -> str:
        if reply.status != 200:
            return ""
        try:
            return reply.body.decode()
        except UnicodeDecodeError:
            return ""

    def _demand_done(self, reply: Reply) -> None:
        if reply.status in _DONE:
            return
        if reply.status == 404:
            raise AccountMissing
        if reply.status == 400:
            raise InvalidCall("The domain's back end refuses the values.")
        raise NotAllowed("The domain's back end does not allow it.")


def _outward(user: str) -> str:
    return user.replace("#", "@")


def _names(option: str, known: tuple[str, ...], given: Mapping[str, str] | None) -> dict[str, str]:
    unknown = sorted(set(given or {}) - set(known))
    if unknown:
        raise ValueError(f"{option} knows {', '.join(known)}, but not {', '.join(unknown)}")
    return {name: name for name in known} | dict(given or {})


def _check_url(url: str, *, insecure: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("url must be like https://accounts.example.org/xmpp/, without a query")
    if "@" in parts.netloc:
        raise ValueError("url must be without credentials; there are username and password for them")
    if parts.scheme == "http" and not insecure and not _is_here(parts.hostname):
        raise ValueError("url must begin with https://, or everybody on the way could read passwords")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The HTTP client of the authentication service (docs: the `http` back end of MongooseIM).

Every method is one call. What the service says becomes a value or one of the exceptions of `errors`;
anything that is no answer at all becomes `AuthUnavailable`. URLs carry passwords, so no message and no log
names one, and the exceptions of the HTTP library, which do, are not chained.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import aiohttp
from yarl import URL

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from monktalk.common.config import Settings

log = get_logger(__name__)

MAX_ANSWER: Final = 16 * 1024
"""Bytes of an answer's body. The longest useful one, SCRAM keys of several hashes, has less than 2 KiB."""

WAITING_PER_CONNECTION: Final = 64
"""Calls that may wait for each connection; more at once are refused instead of queued."""

DECOY_ROUNDS: Final = 100_000

UNUSABLE_NAMES: Final = frozenset({"true", "false"})
"""Account names that would read like a verdict, where the service answers with the name."""

ADDRESS_HEADER: Final = "X-Client-Address"

_MEANINGFUL: Final = frozenset({200, 201, 204, 400, 401, 403, 404, 409})
_WRITING_CALLS: Final = frozenset({"register", "set_password", "remove_user"})
_REFUSED_QUESTION: Final = frozenset({401, 403})
_DONE: Final = frozenset({200, 201, 204})
_SKIPPED_HEADERS: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True)
class Endpoint:
    """Where the service is and how to talk to it. Hosts with equal ones share connections."""

    url: str
    username: str
    password: str
    timeout: float
    connections: int

    @classmethod
    def of(cls, settings: Settings) -> Endpoint:
        """Return the endpoint that an `auth` section describes."""
        prefix = settings.path_prefix.strip("/")
        return cls(
            url=settings.url.rstrip("/") + (f"/{prefix}/" if prefix else "/"),
            username=settings.username,
            password=settings.password,
            timeout=settings.timeout,
            connections=settings.connections,
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"


class Answer(NamedTuple):
    """A status that means something, and a body."""

    status: int
    body: bytes


class AuthClient:
    """Calls one service. Its sessions are opened by the first call, which needs a running loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._headers = _authorization(endpoint)
        self._reading: aiohttp.ClientSession | None = None
        self._writing: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(endpoint.connections)
        self._waiting = 0
        self._refused = False
        self._closed = False

    @functools.cached_property
    def decoy_secret(self) -> bytes:
        """What the salts of accounts that do not exist are made with.

        It follows from the password that all processes and nodes share, so that a salt stays the same wherever
        and whenever it is asked for; slowly, as clients see salts and must not find the password behind them.
        """
        password = self.endpoint.password.encode()
        if not password:
            return secrets.token_bytes(32)
        return hashlib.pbkdf2_hmac("sha256", password, b"monktalk decoy", DECOY_ROUNDS)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the connections for a call.

        Raises:
            AuthUnavailable: too many calls wait for one already.
        """
        if self._waiting >= self.endpoint.connections * WAITING_PER_CONNECTION:
            raise AuthUnavailable(f"{self._waiting} calls wait for the authentication service already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    async def user_exists(self, user: str, server: str, address: str | None = None) -> bool:
        """Ask whether there is an account.

        Raises:
            NotAllowed: the service does not want to say, to this client or now.
            AuthUnavailable: no answer.
        """
        return self._verdict(await self._call("user_exists", user, server, "", address), user)

    async def check_password(self, user: str, server: str, password: str, address: str | None = None) -> bool:
        """Ask whether the password is right.

        Raises:
            NotAllowed: the service does not want to say, to this client or now.
            AuthUnavailable: no answer.
        """
        return self._verdict(await self._call("check_password", user, server, password, address), user)

    async def get_password(self, user: str, server: str, address: str | None = None) -> str | None:
        """Return the account's password or SCRAM string, whatever the service keeps; None without an account.

        Raises:
            NotAllowed: the service does not want to say, to this client or now.
            AuthUnavailable: no answer.
        """
        answer = await self._call("get_password", user, server, "", address)
        self._demand_answer(answer)
        if answer.status != 200:
            return None
        try:
            return answer.body.decode() or None
        except UnicodeDecodeError:  # neither a SCRAM string nor a password that a client could send
            return None

    async def register(self, user: str, server: str, password: str, address: str | None = None) -> None:
        """Make an account.

        Raises:
            AccountExists: it is there already.
            NotAllowed: the service refuses.
            AuthUnavailable: no answer; whether the account was made is unknown.
        """
        answer = await self._call("register", user, server, password, address)
        if answer.status == 409:
            raise AccountExists(f"{user}@{server} exists already")
        if answer.status != 201:
            raise NotAllowed(f"the authentication service does not register {user}@{server}")

    async def set_password(self, user: str, server: str, password: str, address: str | None = None) -> None:
        """Change the account's password.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: the service refuses.
            AuthUnavailable: no answer; whether the password was changed is unknown.
        """
        answer = await self._call("set_password", user, server, password, address)
        self._demand_done(answer, f"change the password of {user}@{server}")

    async def remove_user(self, user: str, server: str, address: str | None = None) -> None:
        """Delete the account.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: the service refuses.
            AuthUnavailable: no answer; whether the account was deleted is unknown.
        """
        answer = await self._call("remove_user", user, server, "", address)
        self._demand_done(answer, f"delete {user}@{server}")

    async def close(self) -> None:
        """Close the connections; calls from now on raise AuthUnavailable."""
        self._closed = True
        sessions, self._reading, self._writing = (self._reading, self._writing), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    def _verdict(self, answer: Answer, user: str) -> bool:
        """Return what a body means: `true` or the name itself is yes, compared byte by byte."""
        self._demand_answer(answer)
        if answer.status != 200 or user in UNUSABLE_NAMES:
            return False
        return answer.body in (b"true", user.encode())

    def _demand_answer(self, answer: Answer) -> None:
        """Tell a refusal of the question, which the next client need not meet, from a no to it."""
        if answer.status in _REFUSED_QUESTION:
            raise NotAllowed("the authentication service does not answer this now")

    def _demand_done(self, answer: Answer, what: str) -> None:
        if answer.status == 404:
            raise AccountMissing(f"the authentication service cannot {what}: there is no such account")
        if answer.status not in _DONE:
            raise NotAllowed(f"the authentication service does not {what}")

    async def _call(self, name: str, user: str, server: str, password: str, address: str | None) -> Answer:
        """Make a call and return its answer.

        Raises:
            AuthUnavailable: a time-out, a connection that fails, an answer that is none.
        """
        form = f"user={quote(user, '')}&server={quote(server, '')}&pass={quote(password, '')}"
        writes = name in _WRITING_CALLS
        session = self._session(writes=writes)
        method, url, body = "POST", f"{self.endpoint.url}{name}", form.encode()
        if not writes:
            method, url, body = "GET", f"{url}?{form}", b""
        headers = {ADDRESS_HEADER: address} if address else None
        try:
            async with session.request(
                method, URL(url, encoded=True), data=body or None, headers=headers, allow_redirects=False
            ) as response:
                answer = Answer(response.status, await _read(response))
        except TimeoutError:
            raise AuthUnavailable(f"{name}: no answer within {self.endpoint.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise AuthUnavailable(f"{name}: {_describe(error)}") from None
        self._watch_refusal(answer.status == 401)
        return answer

    def _watch_refusal(self, refused: bool) -> None:
        """Say once, not at each login, that the service does not know the server's own credentials."""
        if refused and not self._refused:
            log.error("service_refuses_server", url=self.endpoint.url, hint="check [auth] username and password")
        self._refused = refused

    def _session(self, *, writes: bool) -> aiohttp.ClientSession:
        """Return the session for calls that change something, or for the others.

        A kept connection may be closed by the service just when a call is sent. Calls that only read are
        repeated on a new connection then, by aiohttp; the others must not be, so each of them has a
        connection of its own.
        """
        if self._closed:
            raise AuthUnavailable("the connection to the authentication service is closed")
        session = self._writing if writes else self._reading
        if session is None:
            session = self._open(keep=not writes)
            if writes:
                self._writing = session
            else:
                self._reading = session
        return session

    def _open(self, *, keep: bool) -> aiohttp.ClientSession:
        # The system's resolver knows what /etc/nsswitch.conf says of "localhost".
        resolver = aiohttp.ThreadedResolver()
        connector = aiohttp.TCPConnector(limit=self.endpoint.connections, resolver=resolver, force_close=not keep)
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            skip_auto_headers=_SKIPPED_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout),
            auto_decompress=False,
            read_bufsize=MAX_ANSWER,
        )


class AuthClients:
    """The clients of a process: one for each endpoint, shared by the hosts that use it."""

    def __init__(self) -> None:
        self._clients: dict[Endpoint, tuple[AuthClient, int]] = {}

    def acquire(self, endpoint: Endpoint) -> AuthClient:
        """Return the client of `endpoint`; give it back with `release`."""
        client, users = self._clients.get(endpoint) or (AuthClient(endpoint), 0)
        self._clients[endpoint] = (client, users + 1)
        return client

    async def release(self, client: AuthClient) -> None:
        """Close the client when nobody else has it."""
        _, users = self._clients[client.endpoint]
        if users > 1:
            self._clients[client.endpoint] = (client, users - 1)
        else:
            del self._clients[client.endpoint]
            await client.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer.

    Raises:
        AuthUnavailable: a status without a meaning, a body that is too long or may have been cut off.
    """
    status = response.status
    if status not in _MEANINGFUL:
        response.close()
        raise AuthUnavailable(f"the authentication service answers with status {status}")
    if status != 200:
        await _drain(response)
        return b""
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if response.content_length is None and not chunked:
        response.close()
        raise AuthUnavailable("the authentication service answers without Content-Length")
    return await _drain(response)


async def _drain(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, also where it is of no use: a connection is only kept after the last byte."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_ANSWER:
            response.close()
            raise AuthUnavailable(f"the authentication service answers with more than {MAX_ANSWER} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _authorization(endpoint: Endpoint) -> dict[str, str]:
    if not endpoint.username and not endpoint.password:
        return {}
    credentials = f"{endpoint.username}:{endpoint.password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}


def _describe(error: Exception) -> str:
    """Return what happened, in words that cannot hold the URL."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the authentication service cannot be reached ({error.os_error.strerror or 'connection failed'})"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "the authentication service has closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer of the authentication service is cut off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer of the authentication service is no HTTP"
    return f"the call to the authentication service has failed ({type(error).__name__})"

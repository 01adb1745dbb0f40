"""Who may log in at one host: the authentication service, asked as seldom as possible.

The service keeps SCRAM keys (format `scram`) or passwords (format `plain`). With the first, it is asked for the
keys and everything is checked here; with the second, it checks PLAIN itself and the keys for SCRAM are computed
from the password that it gives.

What is done for an account that exists is done for a name that does not, too: neither answers nor their timing
say which names are accounts. Credentials and verdicts of both are remembered for the same time; but when a login
fails against credentials that are a moment old, the next one sees fresh ones, so that a new account and a new
password work at once. What the service refuses to say to one address is not remembered for others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from monktalk.common import scram
from monktalk.common.clock import SystemClock
from monktalk.common.logging import get_logger
from monktalk.common.metrics import Registry
from monktalk.xmpp.core.auth.breaker import CLOSED, BreakerOpen, CircuitBreaker
from monktalk.xmpp.core.auth.cache import MISSING, AnswerCache, CacheClosed
from monktalk.xmpp.core.auth.client import UNUSABLE_NAMES, Endpoint
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.protocol.sasl import fake_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Executor
    from typing import Any

    from monktalk.common.clock import Clock
    from monktalk.common.config import Settings
    from monktalk.common.metrics import Counter, Gauge
    from monktalk.common.scram import ScramKeys
    from monktalk.xmpp.core.auth.client import AuthClients

T = TypeVar("T")

Credentials = dict[str, "ScramKeys"]
"""The keys of an account by the name of their hash."""

FRESH_SECONDS: Final = 2.0
"""Credentials older than this are fetched again before a login is refused because of them."""

MAX_VERIFYING: Final = 2_000
"""Passwords that may wait for their PBKDF2: some seconds of a core. More at once are refused for the moment."""

log = get_logger(__name__)


class AuthProvider:
    """The accounts of one host. Names are prepared localparts; `address` is the peer's, told to the service.

    Args:
        host: the prepared domain.
        settings: the `auth` section as it is for this host.
        clients: shared by the hosts of the process.
        executor: threads for PBKDF2, which must not hold up the loop; by default the loop's own.
        iterations: how many rounds of PBKDF2 names without an account pretend to have, and passwords that the
            service gives in clear are hashed with.
    """

    def __init__(
        self,
        host: str,
        settings: Settings,
        clients: AuthClients,
        *,
        clock: Clock | None = None,
        metrics: Registry | None = None,
        executor: Executor | None = None,
        iterations: int = scram.ITERATIONS,
    ) -> None:
        self.host = host
        self.iterations = iterations
        self._passwords_in_clear = bool(settings.password_format == "plain")  # noqa: S105 - the name of a format
        self._clients = clients
        self._client = clients.acquire(Endpoint.of(settings))
        self._clock = clock or SystemClock()
        self._executor = executor
        self._verifying = 0
        self._closed = False
        self._metrics = _Metrics(metrics or Registry(), host)
        self._cache = AnswerCache(
            self._clock, settings.cache_time, hits=self._metrics.hits, misses=self._metrics.misses
        )
        self._exists = self._cache.digest("exists")
        self._keys = self._cache.digest("keys")
        self._breaker = CircuitBreaker(
            f"the authentication service of {host}",
            settings.breaker_failures,
            settings.breaker_reset,
            self._clock,
            counted=AuthUnavailable,
            opened=self._metrics.opened,
        )
        self._metrics.watch(self._breaker)

    async def check_password(self, user: str, password: str, address: str | None = None) -> bool:
        """Return whether there is such an account and this is its password.

        Raises:
            AuthUnavailable: nobody knows.
        """
        if user in UNUSABLE_NAMES:
            return False
        owner = self._cache.digest(user)
        try:
            right = await self._check(owner, user, password, address)
        except NotAllowed:
            return False
        if right:
            self._cache.put(owner, self._exists, value=True, positive=True)
        return right

    async def _check(self, owner: bytes, user: str, password: str, address: str | None) -> bool:
        if self._passwords_in_clear:
            right = await self._ask_verdict(owner, user, password, address)
            if not right and self._expire(owner, self._cache.digest("check", password)):
                right = await self._ask_verdict(owner, user, password, address)
        else:
            credentials = await self._credentials(owner, user, address)
            right = await self._verify(owner, user, password, credentials)
            if not right and self._expire(owner, self._keys):
                renewed = await self._credentials(owner, user, address)
                if renewed != credentials:
                    right = await self._verify(owner, user, password, renewed)
        return right

    async def scram_keys(self, user: str, hash_name: str, address: str | None = None) -> ScramKeys | None:
        """Return the account's keys for "sha1", "sha256" or "sha512"; None where there are none: see `decoy`.

        Raises:
            AuthUnavailable: nobody knows.
        """
        if user in UNUSABLE_NAMES:
            return None
        owner = self._cache.digest(user)

        async def fetch() -> ScramKeys | None:
            return await self._derive(user, hash_name, address)

        try:
            if self._passwords_in_clear:
                question = self._cache.digest("keys", hash_name)
                return await self._ask(owner, question, fetch, _is_there, address)
            credentials = await self._credentials(owner, user, address)
        except NotAllowed:
            return None
        return None if credentials is None else credentials.get(hash_name)

    def decoy(self, user: str, hash_name: str) -> ScramKeys:
        """Return the keys to go on with where there are none, so that the client learns nothing but a refusal."""
        return fake_keys(self._client.decoy_secret, user, self.host, hash_name, self.iterations)

    def refused(self, user: str) -> None:
        """Note that a SCRAM login of `user` has failed: if it was not for fresh keys, the next one gets them."""
        self._cache.renew(self._cache.digest(user), FRESH_SECONDS)

    async def exists(self, user: str) -> bool:
        """Return whether there is such an account.

        Raises:
            AuthUnavailable: nobody knows.
        """
        if user in UNUSABLE_NAMES:
            return False

        async def fetch() -> bool:
            return await self._call("user_exists", lambda: self._client.user_exists(user, self.host))

        try:
            return await self._ask(self._cache.digest(user), self._exists, fetch)
        except NotAllowed:
            return False

    def known(self, user: str) -> bool | None:
        """Return whether there is such an account if that is remembered, else None."""
        if user in UNUSABLE_NAMES:
            return False
        found = self._cache.peek(self._cache.digest(user), self._exists)
        return None if found is MISSING else bool(found)

    async def register(self, user: str, password: str, address: str | None = None) -> None:
        """Make an account.

        Raises:
            AccountExists: there is one of this name.
            NotAllowed: the service refuses.
            AuthUnavailable: whether the account was made is unknown.
        """
        if user in UNUSABLE_NAMES:
            raise NotAllowed(f"an account cannot be named {user}")
        await self._change("register", user, lambda: self._client.register(user, self.host, password, address))
        self._cache.put(self._cache.digest(user), self._exists, value=True, positive=True)

    async def set_password(self, user: str, password: str, address: str | None = None) -> None:
        """Change the account's password.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: the service refuses.
            AuthUnavailable: whether the password was changed is unknown.
        """
        await self._change("set_password", user, lambda: self._client.set_password(user, self.host, password, address))

    async def remove_user(self, user: str, address: str | None = None) -> None:
        """Delete the account.

        Raises:
            AccountMissing: there is no such account.
            NotAllowed: the service refuses.
            AuthUnavailable: whether the account was deleted is unknown.
        """
        await self._change("remove_user", user, lambda: self._client.remove_user(user, self.host, address))
        self._cache.put(self._cache.digest(user), self._exists, value=False, positive=False)

    def forget(self, user: str) -> None:
        """Drop what is remembered of `user`, as another process has changed the account."""
        self._cache.drop(self._cache.digest(user))

    def forget_all(self) -> None:
        """Drop everything that is remembered, as news of other processes' changes may have been lost."""
        self._cache.clear()

    @property
    def available(self) -> bool:
        """Whether the service answered when it was last asked, as far as the circuit breaker knows."""
        return self._breaker.state == CLOSED

    async def close(self) -> None:
        """End what is under way (with AuthUnavailable) and give the connections back."""
        if self._closed:
            return
        self._closed = True
        await self._cache.close()
        self._metrics.remove()
        await self._clients.release(self._client)

    # ------------------------------------------------------------------------------------ format "plain"

    async def _ask_verdict(self, owner: bytes, user: str, password: str, address: str | None) -> bool:
        async def fetch() -> bool:
            return await self._call(
                "check_password", lambda: self._client.check_password(user, self.host, password, address)
            )

        return await self._ask(owner, self._cache.digest("check", password), fetch, bool, address)

    async def _derive(self, user: str, hash_name: str, address: str | None) -> ScramKeys | None:
        """Return the keys of what the service gives; those of a password get a salt that is always the same."""
        stored = await self._call("get_password", lambda: self._client.get_password(user, self.host, address))
        if stored is not None and scram.is_scram(stored):
            return (self._parse(user, stored) or {}).get(hash_name)
        # The work is done without an account, too: it takes longer than everything else.
        salt = self.decoy(user, hash_name).salt
        keys = await self._run(lambda: _keys_of(stored or "-", hash_name, salt, self.iterations))
        return None if stored is None else keys

    # ------------------------------------------------------------------------------------ format "scram"

    async def _credentials(self, owner: bytes, user: str, address: str | None) -> Credentials | None:
        async def fetch() -> Credentials | None:
            stored = await self._call("get_password", lambda: self._client.get_password(user, self.host, address))
            return None if stored is None else self._parse(user, stored)

        credentials = await self._ask(owner, self._keys, fetch, _is_there, address)
        if credentials is not None:
            self._cache.put(owner, self._exists, value=True, positive=True)
        return credentials

    def _parse(self, user: str, stored: str) -> Credentials | None:
        try:
            return scram.parse(stored)
        except scram.InvalidScram as error:
            reason = str(error)
        log.error(
            "unusable_credentials",
            host=self.host,
            user=user,
            reason=reason,
            hint="the answer of get_password must be what [auth] password_format says",
        )
        return None

    async def _verify(self, owner: bytes, user: str, password: str, credentials: Credentials | None) -> bool:
        """Return whether the password fits; the work is the same where there are no credentials.

        The verdict is remembered for these very keys: when they change, it is never found again.
        """
        keys = scram.checking_keys(credentials) if credentials else self.decoy(user, "sha1")

        async def compute() -> bool:
            return await self._run(lambda: scram.verify_password(password, keys))

        return await self._ask(owner, self._cache.digest("fits", password, keys.stored_key), compute)

    # ------------------------------------------------------------------------------------------ common

    def _expire(self, owner: bytes, question: bytes) -> bool:
        """Drop what is not fresh; return whether the answer to `question` was dropped and is to be fetched."""
        return question in self._cache.renew(owner, FRESH_SECONDS)

    async def _ask(
        self,
        owner: bytes,
        question: bytes,
        fetch: Callable[[], Coroutine[Any, Any, T]],
        positive: Callable[[T], bool] = bool,
        address: str | None = None,
    ) -> T:
        try:
            return await self._cache.ask(owner, question, fetch, positive, asker=address or "")
        except CacheClosed as error:
            raise AuthUnavailable(str(error)) from None

    async def _call(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call of the service, when a connection is free and the breaker is closed."""
        if self._closed:
            raise AuthUnavailable(f"the accounts of {self.host} are not served any more")
        begun = self._clock.monotonic()
        outcome = "unavailable"
        try:
            async with self._client.slot():
                with self._breaker.attempt():
                    answer = await call()
            outcome = "answered"
        except BreakerOpen as error:
            outcome = "breaker_open"
            raise AuthUnavailable(str(error)) from None
        except AuthUnavailable as error:
            log.warning("auth_service_failed", host=self.host, call=name, reason=error)
            raise
        except (AccountExists, AccountMissing, NotAllowed):
            outcome = "refused"
            raise
        finally:
            self._metrics.count(name, outcome, self._clock.monotonic() - begun)
        return answer

    async def _change(self, name: str, user: str, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._call(name, call)
        finally:
            # Also when nobody knows whether it was done.
            self._cache.drop(self._cache.digest(user))

    async def _run(self, work: Callable[[], T]) -> T:
        """Do what takes milliseconds of CPU in a thread; PBKDF2 lets the others run meanwhile."""
        if self._verifying >= MAX_VERIFYING:
            raise AuthUnavailable(f"{self._verifying} passwords wait for being checked already")
        self._verifying += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._verifying -= 1


class _Metrics:
    """The metrics of one provider."""

    def __init__(self, registry: Registry, host: str) -> None:
        self._registry = registry
        self._host = host
        self._calls: dict[tuple[str, str], Counter] = {}
        self._gauge: Gauge | None = None
        self.hits = registry.counter("monktalk_auth_cache_hits_total", "Questions answered from memory.", host=host)
        self.misses = registry.counter("monktalk_auth_cache_misses_total", "Questions that were not.", host=host)
        self.opened = registry.counter(
            "monktalk_auth_breaker_opened_total", "Times that the circuit breaker opened.", host=host
        )
        self._seconds = registry.histogram(
            "monktalk_auth_call_seconds", "Duration of calls of the authentication service.", host=host
        )

    def watch(self, breaker: CircuitBreaker) -> None:
        self._gauge = self._registry.gauge(
            "monktalk_auth_breaker_open",
            "1 while the authentication service is not called because it did not answer.",
            lambda: float(breaker.state != CLOSED),
            host=self._host,
        )

    def count(self, call: str, outcome: str, seconds: float) -> None:
        counter = self._calls.get((call, outcome))
        if counter is None:
            counter = self._calls[call, outcome] = self._registry.counter(
                "monktalk_auth_calls_total",
                "Calls of the authentication service, by how they ended.",
                host=self._host,
                call=call,
                outcome=outcome,
            )
        counter.inc()
        if outcome != "breaker_open":
            self._seconds.observe(seconds)

    def remove(self) -> None:
        """Take the gauge away. Counters belong to the host, not to the provider: after a reload its next one goes on."""
        if self._gauge is not None:
            self._registry.remove(self._gauge)


def _is_there(answer: object) -> bool:
    return answer is not None


def _keys_of(password: str, hash_name: str, salt: bytes, iterations: int) -> ScramKeys | None:
    """Return the keys of a password; None where it has characters that no client can log in with."""
    try:
        return scram.derive(password, hash_name, iterations=iterations, salt=salt)
    except scram.InvalidPassword:
        return None

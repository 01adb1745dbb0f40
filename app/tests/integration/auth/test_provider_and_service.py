"""The XMPP server's side of authentication against the real service under gunicorn."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from monktalk.common import scram
from monktalk.common.config import Schema, parse
from monktalk.xmpp.core.auth.client import AuthClients
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.core.auth.provider import AuthProvider
from monktalk.xmpp.core.settings import AUTH
from tests.support.accounts import Account
from tests.support.stack import PLAIN_HOST, AuthService
from tests.unit.xmpp.core.auth.service import captured_log

HOST = "localhost"
BROKEN_HOST = "broken.example"
FORMATS = {HOST: "scram", PLAIN_HOST: "plain"}
ODD_NAMES = ["élodie", "a+b%20c", "日本", "o'neill=x"]
ODD_PASSWORD = "pä ss&wörd=%+?#日本"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthService]:
    service = AuthService(tmp_path_factory.mktemp("auth"))
    (service.directory / "externals-auth" / f"{BROKEN_HOST}.py").write_text("this is no Python\n")
    service.start()
    yield service
    service.program.stop()


@pytest.fixture
async def provider_of(service: AuthService) -> AsyncIterator[Callable[..., AuthProvider]]:
    clients = AuthClients()
    made: list[AuthProvider] = []

    def make(host: str = HOST, **options: object) -> AuthProvider:
        lines: dict[str, object] = {
            "url": service.url,
            "username": service.username,
            "password": service.password,
            "password_format": FORMATS.get(host, "scram"),
            "timeout": 3,
            "breaker_failures": 3,
            "breaker_reset": 0.2,
            "cache_time": 30,
        }
        text = "\n".join(f"{name} = {value!r}" for name, value in (lines | options).items())
        settings = parse(f"[auth]\n{text}", "test", Schema([AUTH])).section("auth")
        made.append(AuthProvider(host, settings, clients))
        return made[-1]

    yield make
    for provider in made:
        await provider.close()


async def eventually_right(provider: AuthProvider, account: Account) -> None:
    """Wait until a login succeeds: the service is back and the breaker has noticed."""
    async with asyncio.timeout(20):
        while True:
            try:
                assert await provider.check_password(account.user, account.password)
            except AuthUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def unavailable_until_the_breaker_opens(provider: AuthProvider, account: Account) -> None:
    for number in range(3):
        assert provider.available
        with pytest.raises(AuthUnavailable):
            await provider.check_password(f"{account.user}{number}", "secret")
    assert not provider.available


@pytest.mark.parametrize("host", FORMATS)
async def test_a_row_in_web_users_is_an_account_at_once(
    service: AuthService, provider_of: Callable[..., AuthProvider], host: str
) -> None:
    provider = provider_of(host)
    account = service.absent(host=host)
    assert await provider.check_password(account.user, account.password) is False
    assert await provider.exists(account.user) is False
    service.insert(account)
    provider.forget(account.user)
    assert await provider.check_password(account.user, account.password) is True
    assert await provider.check_password(account.user, account.password + "!") is False
    assert await provider.exists(account.user) is True
    for hash_name in scram.HASHES:
        keys = await provider.scram_keys(account.user, hash_name)
        assert keys is not None
        assert scram.verify_password(account.password, keys)
    assert await provider_of("elsewhere.example").check_password(account.user, account.password) is False


@pytest.mark.parametrize("host", FORMATS)
@pytest.mark.parametrize("user", ODD_NAMES)
async def test_names_and_passwords_of_any_alphabet(
    provider_of: Callable[..., AuthProvider], host: str, user: str
) -> None:
    provider = provider_of(host)
    await provider.register(user, ODD_PASSWORD)
    assert await provider.check_password(user, ODD_PASSWORD)
    keys = await provider.scram_keys(user, "sha256")
    assert keys is not None
    assert scram.verify_password(ODD_PASSWORD, keys)
    await provider.remove_user(user)
    assert not await provider.check_password(user, ODD_PASSWORD)


@pytest.mark.parametrize("host", FORMATS)
async def test_the_life_of_an_account(
    service: AuthService, provider_of: Callable[..., AuthProvider], host: str
) -> None:
    provider = provider_of(host)
    user = service.absent(host=host).user
    await provider.register(user, "first")
    with pytest.raises(AccountExists):
        await provider.register(user, "other")
    assert await provider.check_password(user, "first")
    await provider.set_password(user, "second")
    assert not await provider.check_password(user, "first")
    assert await provider.check_password(user, "second")
    with pytest.raises(NotAllowed):
        await provider.set_password(user, "")
    await provider.remove_user(user)
    assert not await provider.check_password(user, "second")
    with pytest.raises(AccountMissing):
        await provider.set_password(user, "third")
    with pytest.raises(AccountMissing):
        await provider.remove_user(user)


async def test_a_broken_domain_is_unavailable_and_the_others_are_not(
    service: AuthService, provider_of: Callable[..., AuthProvider]
) -> None:
    account = service.account()
    broken, healthy = provider_of(BROKEN_HOST), provider_of()
    await unavailable_until_the_breaker_opens(broken, account)
    assert await healthy.check_password(account.user, account.password)
    assert healthy.available


async def test_wrong_credentials_of_the_server_let_nobody_in_and_are_reported(
    service: AuthService, provider_of: Callable[..., AuthProvider]
) -> None:
    account = service.account()
    provider = provider_of(password="not the password")
    with captured_log() as log:
        assert await provider.check_password(account.user, account.password) is False
        assert await provider.scram_keys(account.user, "sha256") is None
        assert await provider.exists(account.user) is False
    assert log.getvalue().count("service_refuses_server") == 1
    assert "not the password" not in log.getvalue()


@pytest.mark.parametrize("host", FORMATS)
async def test_a_killed_service_is_unavailable_and_its_return_is_noticed(
    service: AuthService, provider_of: Callable[..., AuthProvider], host: str
) -> None:
    provider = provider_of(host)
    account = service.account(host=host)
    seen = service.account(host=host)
    assert await provider.check_password(seen.user, seen.password)
    service.program.kill()
    try:
        await unavailable_until_the_breaker_opens(provider, account)
        assert await provider.check_password(seen.user, seen.password), "remembered"
        begun = time.perf_counter()
        with pytest.raises(AuthUnavailable):
            await provider.check_password(account.user, account.password)
        assert time.perf_counter() - begun < 0.1, "nobody waits for what is known to be down"
    finally:
        service.start()
    await eventually_right(provider, account)
    assert provider.available


async def test_a_service_that_hangs_is_unavailable_and_its_return_is_noticed(
    service: AuthService, provider_of: Callable[..., AuthProvider]
) -> None:
    provider = provider_of(timeout=0.3)
    account = service.account()
    assert await provider.exists(account.user)
    group = os.getpgid(service.program.pid)
    os.killpg(group, signal.SIGSTOP)
    try:
        await unavailable_until_the_breaker_opens(provider, account)
    finally:
        os.killpg(group, signal.SIGCONT)
    await eventually_right(provider, account)


async def test_a_restart_of_the_service_under_load_lets_nobody_in_wrongly_and_heals(
    service: AuthService, provider_of: Callable[..., AuthProvider]
) -> None:
    provider = provider_of(cache_time=0, breaker_reset=0.1)
    account = service.account()
    verdicts: dict[str, set[bool]] = {"right": set(), "wrong": set()}
    restarted = asyncio.Event()

    async def log_in(kind: str, password: str) -> None:
        while not restarted.is_set():
            try:
                verdicts[kind].add(await provider.check_password(account.user, password))
            except AuthUnavailable:
                await asyncio.sleep(0.02)

    logins = [asyncio.create_task(log_in("right", account.password)) for _ in range(4)]
    logins += [asyncio.create_task(log_in("wrong", "wrong")) for _ in range(4)]
    await asyncio.to_thread(service.program.kill)
    await asyncio.to_thread(service.start)
    await eventually_right(provider, account)
    restarted.set()
    await asyncio.gather(*logins)
    assert verdicts == {"right": {True}, "wrong": {False}}

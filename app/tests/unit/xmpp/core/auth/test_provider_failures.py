"""What an `AuthProvider` does when the service fails, hangs or is away."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.core.auth.errors import AccountExists, AuthUnavailable
from tests.unit.xmpp.core.auth.service import Accounts, captured_log, reply

HOST = "example.org"


EVERYTHING = {
    "check_password": lambda provider: provider.check_password("alice", "secret"),
    "scram_keys": lambda provider: provider.scram_keys("alice", "sha1"),
    "exists": lambda provider: provider.exists("alice"),
    "register": lambda provider: provider.register("alice", "secret"),
    "set_password": lambda provider: provider.set_password("alice", "secret"),
    "remove_user": lambda provider: provider.remove_user("alice"),
}


@pytest.mark.parametrize("call", EVERYTHING)
@pytest.mark.parametrize("answer", [reply(500, "true"), reply(503, "alice"), b"garbage\r\n\r\n"])
async def test_no_answer_is_neither_yes_nor_no(provider, service, call, answer):
    async def bad(_, writer):
        writer.write(answer)

    service.responder = bad
    with captured_log() as log, pytest.raises(AuthUnavailable):
        await EVERYTHING[call](provider)
    assert "auth_service_failed" in log.getvalue()
    assert "secret" not in log.getvalue()
    assert provider.known("alice") is None


async def test_the_breaker_opens_and_closes(make, accounts, service, clock, metrics):
    provider = make(password_format=accounts.form, breaker_failures=3, breaker_reset=2)
    gauge = f'monktalk_auth_breaker_open{{host="{HOST}"}}'
    await service.stop()
    for number in range(3):
        assert provider.available
        with pytest.raises(AuthUnavailable, match="cannot be reached"):
            await provider.check_password(f"user{number}", "secret")
    assert not provider.available
    assert metrics.snapshot()[gauge] == 1
    with pytest.raises(AuthUnavailable, match="tried again in"):
        await provider.check_password("alice", "secret")

    await service.start()
    with pytest.raises(AuthUnavailable):
        await provider.check_password("alice", "secret")
    assert service.requests == [], "it is too early"
    clock.advance(2)
    assert await provider.check_password("alice", "secret")
    assert provider.available
    assert metrics.snapshot()[gauge] == 0


async def test_what_is_remembered_serves_while_the_service_is_away(provider, service):
    assert await provider.check_password("alice", "secret")
    await service.stop()
    assert await provider.check_password("alice", "secret")
    with pytest.raises(AuthUnavailable):
        await provider.check_password("bob", "secret")


async def test_a_closed_provider_asks_nobody_while_another_host_goes_on(make, service):
    Accounts(service, "scram").set("alice", "secret")
    one, other = make("one.example"), make("other.example")
    await one.close()
    with pytest.raises(AuthUnavailable):
        await one.check_password("alice", "secret")
    assert await other.check_password("alice", "secret")


async def test_one_host_that_fails_does_not_keep_others_out(make, service):
    accounts = Accounts(service, "scram")
    accounts.set("alice", "secret")

    async def broken_for_one(request, writer):
        if request.form["server"] == "broken.example":
            writer.write(reply(500))
        else:
            await accounts.respond(request, writer)

    service.responder = broken_for_one
    broken, healthy = make("broken.example"), make()
    for number in range(10):
        with pytest.raises(AuthUnavailable):
            await broken.check_password(f"user{number}", "secret")
    assert not broken.available
    assert await healthy.check_password("alice", "secret")
    assert len(service.calls()) == 5 + 1


async def test_calls_are_counted_by_outcome(make, accounts, service, metrics):
    provider = make(password_format=accounts.form, breaker_failures=2)
    await provider.check_password("alice", "secret")
    await provider.check_password("alice", "secret")
    with pytest.raises(AccountExists):
        await provider.register("alice", "secret")
    await service.stop()
    for number in range(3):
        with pytest.raises(AuthUnavailable):
            await provider.exists(f"user{number}")
    counted = metrics.snapshot()

    def calls(call, outcome):
        labels = f'host="{HOST}",call="{call}",outcome="{outcome}"'
        return counted[f"monktalk_auth_calls_total{{{labels}}}"]

    checking = "get_password" if accounts.form == "scram" else "check_password"
    assert calls(checking, "answered") == 1
    assert calls("register", "refused") == 1
    assert calls("user_exists", "unavailable") == 2
    assert calls("user_exists", "breaker_open") == 1
    assert counted[f'monktalk_auth_breaker_opened_total{{host="{HOST}"}}'] == 1
    assert counted[f'monktalk_auth_cache_hits_total{{host="{HOST}"}}'] >= 1
    assert counted[f'monktalk_auth_call_seconds{{host="{HOST}"}}']["count"] == 4


async def test_a_provider_that_replaces_another_goes_on_with_its_metrics(make, service, metrics):
    Accounts(service, "scram").set("alice", "secret")
    old = make()
    await old.check_password("alice", "secret")
    new = make(cache_time=10)
    await old.close()
    await new.check_password("alice", "secret")
    counted = metrics.snapshot()
    assert counted[f'monktalk_auth_calls_total{{host="{HOST}",call="get_password",outcome="answered"}}'] == 2
    assert counted[f'monktalk_auth_breaker_open{{host="{HOST}"}}'] == 0


async def test_closing_ends_what_waits(make, service, metrics):
    asked, hanging = asyncio.Event(), asyncio.Event()

    async def hang(_, writer):
        asked.set()
        await hanging.wait()

    service.responder = hang
    provider = make()
    login = asyncio.create_task(provider.check_password("alice", "secret"))
    await asked.wait()
    await provider.close()
    with pytest.raises(AuthUnavailable):
        await login
    hanging.set()
    assert "monktalk_auth_breaker_open{" not in metrics.exposition()
    with pytest.raises(AuthUnavailable):
        await provider.check_password("alice", "secret")

from __future__ import annotations

import asyncio
import threading

import pytest
from scramp import ScramClient

from monktalk.common import scram
from monktalk.xmpp.core.auth import provider as provider_module
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.protocol import sasl
from tests.unit.xmpp.core.auth.service import Accounts, captured_log, reply

HOST = "example.org"


@pytest.fixture
def work(monkeypatch):
    """The threads in which PBKDF2 ran."""
    threads = []

    def counting(function):
        def count(*arguments, **keywords):
            result = function(*arguments, **keywords)
            threads.append(threading.get_ident())  # not where an exception came instead of the work
            return result

        return count

    for name in ("verify_password", "derive"):
        monkeypatch.setattr(scram, name, counting(getattr(scram, name)))
    return threads


# ----------------------------------------------------------------------------------------------- passwords


async def test_the_right_password_and_no_other(provider):
    assert await provider.check_password("alice", "secret") is True
    for wrong in ("", "Secret", "secret ", "secre", "secret\0", "true"):
        assert await provider.check_password("alice", wrong) is False
    assert await provider.check_password("bob", "secret") is False


async def test_answers_come_from_memory_for_a_while(provider, service, clock):
    for _ in range(3):
        assert await provider.check_password("alice", "secret")
    assert len(service.requests) == 1
    clock.advance(30)
    assert await provider.check_password("alice", "secret")
    assert len(service.requests) == 2


async def test_many_at_once_are_one_call(provider, service):
    results = await asyncio.gather(*(provider.check_password("alice", "secret") for _ in range(50)))
    assert results == [True] * 50
    assert len(service.requests) == 1


async def test_without_cache_time_nothing_is_remembered(make, accounts, service):
    provider = make(password_format=accounts.form, cache_time=0)
    for _ in range(3):
        assert await provider.check_password("alice", "secret")
        assert not await provider.check_password("alice", "wrong")
    assert len(service.requests) == 6


@pytest.mark.parametrize("seconds", [2, 20])
async def test_a_password_changed_elsewhere_works_at_once(provider, accounts, clock, seconds):
    assert await provider.check_password("alice", "secret")
    accounts.set("alice", "new secret")
    clock.advance(seconds)
    assert await provider.check_password("alice", "new secret")


async def test_with_new_keys_the_old_password_is_refused_also_where_it_was_remembered(make, service, clock):
    accounts = Accounts(service, "scram")
    accounts.set("alice", "secret")
    provider = make()
    assert await provider.check_password("alice", "secret")
    accounts.set("alice", "new secret")
    clock.advance(20)
    assert await provider.check_password("alice", "new secret")
    assert not await provider.check_password("alice", "secret")


async def test_a_password_changed_after_a_failure_works_at_once(provider, accounts, clock):
    assert await provider.check_password("alice", "secret")
    assert not await provider.check_password("alice", "new secret")
    accounts.set("alice", "new secret")
    clock.advance(2)
    assert await provider.check_password("alice", "new secret")


async def test_an_account_made_elsewhere_works_at_once(provider, accounts, clock):
    assert not await provider.check_password("bob", "hush")
    accounts.set("bob", "hush")
    clock.advance(2)
    assert await provider.check_password("bob", "hush")


async def test_guesses_do_not_reach_the_service_more_than_every_other_second(make, service):
    accounts = Accounts(service, "scram")
    accounts.set("alice", "secret")
    provider = make()
    for guess in range(50):
        assert not await provider.check_password("alice", f"guess {guess}")
    assert len(service.requests) == 1


async def test_names_with_and_without_an_account_cost_the_same(provider, accounts, service, clock, work):
    """Calls of the service and runs of PBKDF2, which are what takes time."""

    async def traces(user):
        before, done = len(service.requests), len(work)
        trace = []
        for steps in (0, 0, 1, 1.5, 29, 31):
            clock.advance(steps)
            assert not await provider.check_password(user, "guess")
            keys = await provider.scram_keys(user, "sha256") or provider.decoy(user, "sha256")
            trace.append((len(service.requests) - before, len(work) - done, keys.iterations, len(keys.salt)))
            provider.refused(user)
        return trace

    known = await traces("alice")
    assert await traces("nobody") == known
    assert known[-1][0] > known[0][0]


async def test_the_loop_is_not_held_up(provider, work):
    await provider.check_password("alice", "secret")
    await provider.scram_keys("alice", "sha1")
    await provider.check_password("nobody", "secret")
    assert work
    assert threading.get_ident() not in work


async def test_an_authentication_storm_is_refused_for_the_moment(make, service, monkeypatch):
    monkeypatch.setattr(provider_module, "MAX_VERIFYING", 3)
    Accounts(service, "scram").set("alice", "secret")
    provider = make()
    await provider.scram_keys("alice", "sha1")
    logins = (provider.check_password("alice", f"guess {number}") for number in range(10))
    results = await asyncio.gather(*logins, return_exceptions=True)
    assert sorted(map(repr, map(type, results)))[:3] == [repr(bool)] * 3
    assert sum(isinstance(result, AuthUnavailable) for result in results) == 7
    assert provider.available, "the service is not to blame"
    assert await provider.check_password("alice", "secret")


async def test_neither_names_nor_passwords_stay_in_memory(provider):
    await provider.check_password("alice", "a wrong one")
    await provider.check_password("alice", "secret")
    await provider.exists("alice")
    shown = repr(vars(provider._cache))
    for text in ("alice", "secret", "a wrong one"):
        assert text not in shown
        assert text.encode().hex() not in shown


# --------------------------------------------------------------------------------------------- SCRAM keys


@pytest.mark.parametrize("hash_name", scram.HASHES)
async def test_keys_fit_the_password(provider, hash_name):
    keys = await provider.scram_keys("alice", hash_name)
    assert keys.hash_name == hash_name
    assert scram.verify_password("secret", keys)
    assert await provider.scram_keys("nobody", hash_name) is None


async def test_keys_are_fetched_once_for_all_hashes(make, service):
    Accounts(service, "scram").set("alice", "secret")
    provider = make()
    for hash_name in scram.HASHES:
        assert await provider.scram_keys("alice", hash_name)
    assert await provider.check_password("alice", "secret")
    assert len(service.requests) == 1


async def test_the_string_of_the_contract(make, service):
    stored = "==SCRAM==,tmi5IE+9pceRV/jkPLFHEaVY33c=,MiWNa8T3dniVDwmh77ufJ41fpAQ=,inKXODlSY5y5SCsLxibi0w==,4096"
    for form in ("scram", "plain"):
        provider = make(f"{form}.example.org", password_format=form)
        service.answers["get_password"] = reply(200, stored)
        keys = await provider.scram_keys("alice", "sha1")
        assert scram.verify_password("misio", keys)
        assert await provider.scram_keys("alice", "sha256") is None
    assert await make().check_password("alice", "misio")


async def test_a_new_password_works_for_the_next_try_with_scram(provider, accounts, clock):
    old = await provider.scram_keys("alice", "sha256")
    assert await provider.scram_keys("bob", "sha256") is None
    accounts.set("alice", "new secret")
    accounts.set("bob", "hush")
    clock.advance(0.5)
    provider.refused("alice")
    provider.refused("bob")
    assert await provider.scram_keys("alice", "sha256") == old, "fetched a moment ago"
    clock.advance(1.5)
    assert scram.verify_password("new secret", await provider.scram_keys("alice", "sha256"))
    assert scram.verify_password("hush", await provider.scram_keys("bob", "sha256"))


async def test_salts_are_the_same_everywhere_with_and_without_an_account(make, service):
    accounts = Accounts(service, "plain")
    accounts.set("alice", "secret")
    one, other = (make(password_format="plain") for _ in range(2))
    assert await one.scram_keys("alice", "sha1") == await other.scram_keys("alice", "sha1")
    before = one.decoy("bob", "sha1").salt
    accounts.set("bob", "hush")
    assert (await one.scram_keys("bob", "sha1")).salt == before, "a new account does not show"
    assert make(password="another").decoy("bob", "sha1").salt != before


async def test_a_decoy_fits_no_password(make):
    provider = make()
    for hash_name in scram.HASHES:
        assert not scram.verify_password("secret", provider.decoy("alice", hash_name))
    assert make(password="").decoy("alice", "sha1").salt


async def test_a_whole_scram_login(provider):
    exchange = sasl.start("SCRAM-SHA-256", HOST, bindings={}, plus_offered=False)
    client = ScramClient(["SCRAM-SHA-256"], "alice", "secret")
    need = exchange.respond(client.get_client_first().encode())
    assert isinstance(need, sasl.NeedKeys)
    keys = await provider.scram_keys(need.username, need.hash_name)
    challenge = exchange.supply(keys)
    assert isinstance(challenge, sasl.Challenge)
    client.set_server_first(challenge.data.decode())
    success = exchange.respond(client.get_client_final().encode())
    assert isinstance(success, sasl.Success)
    assert success.data is not None
    client.set_server_final(success.data.decode())  # raises unless the server has proven itself
    assert success.username == "alice"


# ------------------------------------------------------------------------------------ what is not an account


@pytest.mark.parametrize("user", ["true", "false"])
async def test_accounts_that_are_named_like_a_verdict(provider, accounts, service, user):
    accounts.set(user, "secret")
    assert await provider.check_password(user, "secret") is False
    assert await provider.exists(user) is False
    assert provider.known(user) is False
    assert await provider.scram_keys(user, "sha1") is None
    with pytest.raises(NotAllowed):
        await provider.register(user, "secret")
    assert service.requests == []


@pytest.mark.parametrize("stored", ["plain secret", "==SCRAM==,broken", "==MULTI_SCRAM==,4096", "{}"])
async def test_credentials_that_cannot_be_read_let_nobody_in_and_are_reported(make, service, stored):
    provider = make()
    service.answers["get_password"] = reply(200, stored)
    with captured_log() as log:
        assert await provider.check_password("alice", stored) is False
        assert await provider.scram_keys("alice", "sha1") is None
    assert log.getvalue().count("unusable_credentials") == 1
    assert "password_format" in log.getvalue()
    assert stored not in log.getvalue()
    assert provider.available


async def test_a_stored_password_that_no_client_could_send(make, service):
    service.answers["get_password"] = reply(200, "a\u0007b")
    assert await make(password_format="plain").scram_keys("alice", "sha1") is None


# ------------------------------------------------------------------------------------------------ existence


async def test_existence(provider, service, clock):
    assert provider.known("alice") is None
    assert await provider.exists("alice") is True
    assert await provider.exists("nobody") is False
    assert (provider.known("alice"), provider.known("nobody")) == (True, False)
    await provider.exists("alice")
    assert len(service.requests) == 2
    clock.advance(30)
    assert (provider.known("alice"), provider.known("nobody")) == (None, None)


async def test_a_login_tells_that_the_account_exists(provider, service):
    await provider.check_password("alice", "secret")
    assert provider.known("alice") is True
    await provider.check_password("nobody", "secret")
    assert provider.known("nobody") is None
    assert service.calls("user_exists") == []


# -------------------------------------------------------------------------------------------------- changes


async def test_changes_count_at_once(provider):
    assert not await provider.exists("bob")
    assert not await provider.check_password("bob", "hush")
    await provider.register("bob", "hush")
    assert provider.known("bob") is True
    assert await provider.check_password("bob", "hush")
    await provider.set_password("bob", "hushhush")
    assert not await provider.check_password("bob", "hush")
    assert await provider.check_password("bob", "hushhush")
    await provider.remove_user("bob")
    assert provider.known("bob") is False
    assert not await provider.check_password("bob", "hushhush")
    assert await provider.scram_keys("bob", "sha1") is None


async def test_changes_that_are_refused(provider, service):
    with pytest.raises(AccountExists):
        await provider.register("alice", "secret")
    with pytest.raises(AccountMissing):
        await provider.set_password("nobody", "secret")
    with pytest.raises(AccountMissing):
        await provider.remove_user("nobody")
    service.answers["register"] = reply(403)
    with pytest.raises(NotAllowed):
        await provider.register("carol", "secret")
    assert provider.available


async def test_a_change_that_may_have_happened_is_not_answered_from_memory(provider, service, accounts):
    assert await provider.check_password("alice", "secret")

    async def change_and_vanish(request, writer):
        if request.call == "set_password":
            accounts.set("alice", request.form["pass"])
            writer.close()
        else:
            await accounts.respond(request, writer)

    service.responder = change_and_vanish
    with pytest.raises(AuthUnavailable):
        await provider.set_password("alice", "new secret")
    assert not await provider.check_password("alice", "secret")
    assert await provider.check_password("alice", "new secret")


async def test_what_another_process_has_changed_is_forgotten(provider, accounts):
    assert await provider.check_password("alice", "secret")
    accounts.set("alice", "new secret")
    provider.forget("alice")
    assert not await provider.check_password("alice", "secret")


@pytest.mark.parametrize("status", [401, 403])
async def test_what_the_service_refuses_to_a_stranger_does_not_keep_the_owner_out(provider, service, accounts, status):
    async def refusing_one(request, writer):
        if request.headers.get("x-client-address") == "192.0.2.66":
            writer.write(reply(status, "true"))
        else:
            await accounts.respond(request, writer)

    service.responder = refusing_one

    async def stranger():
        return await provider.check_password("alice", "secret", "192.0.2.66")

    async def owner():
        return await provider.check_password("alice", "secret", "192.0.2.1")

    assert await stranger() is False
    assert await provider.scram_keys("alice", "sha256", "192.0.2.66") is None
    at_once = await asyncio.gather(stranger(), owner(), stranger(), owner())
    assert list(at_once) == [False, True, False, True]
    provider.forget("alice")
    theirs, keys = await asyncio.gather(
        *(provider.scram_keys("alice", "sha256", address) for address in ("192.0.2.66", "192.0.2.1"))
    )
    assert theirs is None
    assert keys is not None
    assert provider.available


async def test_an_existence_that_the_service_refuses_to_tell_is_asked_for_again(provider, service):
    service.answers["user_exists"] = reply(403)
    assert await provider.exists("alice") is False
    del service.answers["user_exists"]
    assert await provider.exists("alice") is True


async def test_the_address_of_the_client_is_passed_on(provider, service):
    await provider.check_password("alice", "secret", "192.0.2.1")
    await provider.scram_keys("bob", "sha1", "192.0.2.2")
    await provider.register("carol", "secret", "192.0.2.3")
    await provider.set_password("carol", "secret2", "192.0.2.4")
    await provider.remove_user("carol", "192.0.2.5")
    addresses = [request.headers.get("x-client-address") for request in service.requests]
    assert addresses == [f"192.0.2.{number}" for number in range(1, 6)]

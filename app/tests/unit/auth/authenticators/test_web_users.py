from __future__ import annotations

import dataclasses

import pytest

from monktalk.auth.authenticators import AccountExists, AccountMissing, InvalidCall, NotAllowed, Unavailable, WebUsers
from monktalk.auth.web_users import WebUsersTable
from monktalk.common import scram

SINGLE = "==SCRAM==,tmi5IE+9pceRV/jkPLFHEaVY33c=,MiWNa8T3dniVDwmh77ufJ41fpAQ=,inKXODlSY5y5SCsLxibi0w==,4096"


@pytest.fixture
def start(resources):
    def start(**options) -> WebUsers:
        authenticator = WebUsers(**options)
        authenticator.start("example.org", resources)
        return authenticator

    return start


def is_upgraded(token: str | None, password: str) -> bool:
    assert token is not None
    credentials = scram.parse(token)
    assert list(credentials) == ["sha1", "sha256", "sha512"]
    return all(scram.verify_password(password, keys) for keys in credentials.values())


def test_a_password_inserted_by_hand_works_at_once_and_is_replaced_by_keys(start, database):
    database.insert("alice", "secret")
    accounts = start()
    assert accounts.user_exists("alice")
    assert not accounts.check_password("alice", "Secret")
    assert database.token("alice") == "secret"
    assert accounts.check_password("alice", "secret")
    assert is_upgraded(database.token("alice"), "secret")
    assert accounts.check_password("alice", "secret")
    assert not accounts.check_password("alice", "Secret")


def test_a_password_stays_where_the_domain_does_not_allow_its_upgrade(start, database):
    database.insert("alice", "secret")
    accounts = start(upgrade=False)
    assert accounts.check_password("alice", "secret")
    assert accounts.get_password("alice")
    assert database.token("alice") == "secret"


def test_the_default_of_upgrade_is_the_service_s(database, resources):
    database.insert("alice", "secret")
    accounts = WebUsers()
    accounts.start("example.org", dataclasses.replace(resources, upgrade=False))
    assert accounts.check_password("alice", "secret")
    assert database.token("alice") == "secret"


def test_keys_of_the_contract_s_check_vector_let_its_password_in(start, database):
    database.insert("alice", SINGLE)
    accounts = start(upgrade=False)
    assert accounts.get_password("alice") == SINGLE
    assert accounts.check_password("alice", "misio")
    assert not accounts.check_password("alice", "misiu")
    assert not accounts.check_password("alice", SINGLE)
    assert database.token("alice") == SINGLE


def test_sha1_keys_get_company_when_their_password_is_checked(start, database):
    database.insert("alice", SINGLE)
    assert not start().check_password("alice", "wrong")
    assert database.token("alice") == SINGLE
    assert start().check_password("alice", "misio")
    assert is_upgraded(database.token("alice"), "misio")


def test_keys_with_fewer_iterations_than_wanted_are_made_anew(start, database):
    database.insert("alice", scram.format_multi(scram.derive_all("secret", iterations=4096)))
    assert start(scram_iterations=5000).check_password("alice", "secret")
    token = database.token("alice")
    assert {keys.iterations for keys in scram.parse(token).values()} == {5000}
    assert start(scram_iterations=4096).check_password("alice", "secret")
    assert database.token("alice") == token


def test_asking_for_keys_upgrades_a_password_because_the_login_is_not_seen(start, database):
    database.insert("alice", "secret")
    keys = start().get_password("alice")
    assert database.token("alice") == keys
    assert is_upgraded(keys, "secret")


def test_keys_of_a_password_that_stays_are_computed_once(start, database, hashing):
    database.insert("alice", "secret")
    accounts = start(upgrade=False)
    keys = accounts.get_password("alice")
    assert is_upgraded(keys, "secret")
    computed = len(hashing)
    assert accounts.get_password("alice") == keys
    assert len(hashing) == computed
    database.execute("update web_users set token = 'changed'")
    assert accounts.get_password("alice") != keys
    assert is_upgraded(accounts.get_password("alice"), "changed")


def test_a_check_that_succeeded_is_not_computed_again_until_the_token_changes(start, database, hashing):
    database.insert("alice", SINGLE)
    accounts = start(upgrade=False)
    assert accounts.check_password("alice", "misio")
    computed = len(hashing)
    assert accounts.check_password("alice", "misio")
    assert len(hashing) == computed
    assert not accounts.check_password("alice", "wrong")
    assert len(hashing) == computed + 1
    database.execute("update web_users set token = :token", token=scram.format_single(scram.derive("other", "sha1")))
    assert not accounts.check_password("alice", "misio")


def test_an_upgrade_does_not_undo_a_change_made_meanwhile(start, database, resources, monkeypatch):
    database.insert("alice", "secret")
    replace = WebUsersTable.replace

    def change_first(self, domain, node, old, new):
        database.execute("update web_users set token = 'changed'")
        return replace(self, domain, node, old, new)

    monkeypatch.setattr(WebUsersTable, "replace", change_first)
    assert start().check_password("alice", "secret")
    assert database.token("alice") == "changed"
    keys = scram.format_multi(scram.derive_all("changed"))

    def upgrade_first(self, domain, node, old, new):
        database.execute("update web_users set token = :token", token=keys)
        return replace(self, domain, node, old, new)

    monkeypatch.setattr(WebUsersTable, "replace", upgrade_first)
    assert start().get_password("alice") == keys


def test_a_database_that_takes_no_writes_keeps_nobody_out(start, database, monkeypatch):
    database.insert("alice", "secret")

    def refuse(*arguments):
        raise Unavailable

    monkeypatch.setattr(WebUsersTable, "replace", refuse)
    accounts = start()
    assert accounts.check_password("alice", "secret")
    assert is_upgraded(accounts.get_password("alice"), "secret")
    assert accounts.get_password("alice") == accounts.get_password("alice")
    assert database.token("alice") == "secret"


def test_in_plain_format_passwords_are_given_and_keys_are_not(start, database):
    database.insert("alice", "secret")
    database.insert("bob", SINGLE)
    accounts = start(password_format="plain")
    assert accounts.get_password("alice") == "secret"
    assert accounts.get_password("bob") is None
    assert accounts.check_password("bob", "misio")
    assert accounts.check_password("alice", "secret")
    accounts.register("carol", "pass wörd")
    assert (database.token("alice"), database.token("bob"), database.token("carol")) == ("secret", SINGLE, "pass wörd")


@pytest.mark.parametrize("token", ["==SCRAM==,", "==SCRAM==,a,b,c,d", "==MULTI_SCRAM==,4096,===SHA1===x"])
def test_damaged_keys_are_no_password(start, database, token, caplog):
    database.insert("alice", token)
    assert not start().check_password("alice", token)
    assert not start().check_password("alice", "")
    assert "unusable_credentials" in caplog.messages


def test_a_password_that_saslprep_refuses_works_as_it_is_but_not_by_scram(start, database, caplog):
    database.insert("alice", "\U0001f600")
    accounts = start()
    assert accounts.check_password("alice", "\U0001f600")
    assert not accounts.check_password("alice", "\U0001f601")
    assert database.token("alice") == "\U0001f600"
    assert accounts.get_password("alice") is None
    assert {"not_upgraded", "unusable_password"} <= set(caplog.messages)


def test_a_stored_password_and_a_given_one_are_the_same_when_prepared(start, database):
    database.insert("alice", "a\u00a0b")
    assert start(upgrade=False).check_password("alice", "a b")


def test_accounts_are_made_and_changed_with_keys(start, database):
    accounts = start()
    accounts.register("alice", "first")
    assert is_upgraded(database.token("alice"), "first")
    with pytest.raises(AccountExists):
        accounts.register("alice", "second")
    accounts.set_password("alice", "second")
    assert is_upgraded(database.token("alice"), "second")
    assert not accounts.check_password("alice", "first")
    accounts.remove_user("alice")
    assert database.token("alice") is None
    for action in (lambda: accounts.set_password("alice", "x"), lambda: accounts.remove_user("alice")):
        with pytest.raises(AccountMissing):
            action()
    assert not accounts.user_exists("alice")
    assert accounts.get_password("alice") is None


@pytest.mark.parametrize("password", ["", "\u0627\u0031", "\U0001f600", "x" * 1024])
def test_what_cannot_be_a_password_does_not_become_one(start, database, password):
    with pytest.raises(InvalidCall):
        start().register("alice", password)
    assert database.token("alice") is None


def test_keys_cannot_be_planted_as_a_password(start, database):
    with pytest.raises(InvalidCall):
        start(password_format="plain").register("alice", SINGLE)
    start().register("alice", SINGLE)
    assert not start().check_password("alice", "misio")
    assert start().check_password("alice", SINGLE)


def test_registration_can_be_closed(start, database):
    with pytest.raises(NotAllowed):
        start(registration=False).register("alice", "secret")
    assert database.token("alice") is None


def test_options_that_contradict_are_refused():
    for options in (
        {"password_format": "plain", "upgrade": True},
        {"password_format": "md5"},
        {"answer": "yes"},
        {"scram_iterations": 1000},
    ):
        with pytest.raises(ValueError, match=r"must be|contradicts"):
            WebUsers(**options)


@pytest.mark.parametrize(
    "stored", [None, "secret", SINGLE, "==SCRAM==,damaged"], ids=["none", "plain", "keys", "damaged"]
)
@pytest.mark.parametrize("password", ["wrong", "", "\U0001f600"])
def test_a_refusal_costs_the_same_work_whatever_is_stored(start, database, hashing, stored, password):
    if stored is not None:
        database.insert("alice", stored)
    assert not start().check_password("alice", password)
    assert hashing == [("sha1", 4096)]

from __future__ import annotations

import pytest

from monktalk.auth.authenticators import (
    AccountExists,
    AccountMissing,
    Authenticator,
    Buddies,
    NotAllowed,
    WebUsers,
    WrongPassword,
)


class BackEnd(Authenticator):
    """Lets everybody in, and remembers who was asked for."""

    answer = "true"
    concurrency = 3

    def __init__(self):
        self.asked = []

    def user_exists(self, user):
        self.asked.append(user)
        return True

    def check_password(self, user, password):
        self.asked.append(user)
        return True

    def get_password(self, user):
        self.asked.append(user)
        return "from the back end"

    def register(self, user, password):
        self.asked.append(user)

    def set_password(self, user, password):
        self.asked.append(user)

    def remove_user(self, user):
        self.asked.append(user)

    def get_certs(self, user):
        self.asked.append(user)
        return "PEM"


@pytest.fixture
def back_end():
    return BackEnd()


@pytest.fixture
def accounts(back_end, resources):
    accounts = Buddies(back_end, ["echo", "help"])
    accounts.start("example.org", resources)
    return accounts


def test_a_buddy_gets_in_with_its_password_in_web_users_and_with_no_other(accounts, back_end, database):
    database.insert("echo", "beep")
    assert accounts.check_password("echo", "beep")
    assert not accounts.check_password("echo", "boop")
    assert accounts.user_exists("echo")
    assert accounts.get_password("echo").startswith("==MULTI_SCRAM==,")
    assert back_end.asked == []


def test_a_buddy_without_credentials_is_not_waved_through_and_not_sent_to_the_back_end(accounts, back_end):
    assert not accounts.check_password("help", "anything")
    assert not accounts.user_exists("help")
    assert accounts.get_password("help") is None
    assert accounts.get_certs("help") is None
    for action in (
        lambda: accounts.set_password("help", "x"),
        lambda: accounts.remove_user("help"),
        lambda: accounts.remove_user_validate("help", "x"),
    ):
        with pytest.raises(AccountMissing):
            action()
    assert back_end.asked == []


def test_another_spelling_of_a_buddy_s_name_does_not_reach_the_back_end(accounts, back_end):
    assert not accounts.check_password("Echo", "anything")
    assert not accounts.user_exists("ｅｃｈｏ")
    assert back_end.asked == []


def test_everybody_else_is_the_back_end_s_business(accounts, back_end, database):
    database.insert("alice", "secret")
    assert accounts.check_password("alice", "whatever")
    assert accounts.user_exists("alice")
    assert accounts.get_password("alice") == "from the back end"
    assert accounts.get_certs("alice") == "PEM"
    accounts.register("alice", "x")
    accounts.set_password("alice", "x")
    accounts.remove_user("alice")
    assert back_end.asked == ["alice"] * 7
    assert accounts.check_password("echo\u0000", "a name that cannot be one")


def test_a_stranger_cannot_register_a_buddy_that_has_no_credentials_yet(accounts, back_end, database):
    with pytest.raises(NotAllowed):
        accounts.register("help", "mine")
    assert database.token("help") is None
    assert back_end.asked == []


def test_a_buddy_may_change_its_password(accounts, database):
    database.insert("echo", "beep")
    accounts.set_password("echo", "boop")
    assert accounts.check_password("echo", "boop")
    with pytest.raises(WrongPassword):
        accounts.remove_user_validate("echo", "beep")
    accounts.remove_user_validate("echo", "boop")
    assert database.token("echo") is None


def test_answers_and_limits_are_those_of_the_wrapped_authenticator(accounts):
    assert (accounts.answer, accounts.concurrency) == ("true", 3)


def test_buddies_may_be_beside_accounts_in_web_users(resources, database):
    accounts = Buddies(WebUsers(upgrade=False), ["echo"], web_users=WebUsers(password_format="plain"))
    accounts.start("example.org", resources)
    database.insert("alice", "secret")
    database.insert("echo", "beep")
    assert accounts.check_password("alice", "secret")
    assert accounts.get_password("echo") == "beep"
    with pytest.raises(AccountExists):
        accounts.register("alice", "x")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((WebUsers(), "echo"), "list of names"),
        ((WebUsers(), ["a@b"]), "cannot be the name"),
        ((WebUsers(), [""]), "cannot be the name"),
        ((object(), ["echo"]), "wraps an authenticator"),
        ((WebUsers, ["echo"]), "wraps an authenticator"),
    ],
)
def test_mistakes_are_named(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Buddies(*arguments)

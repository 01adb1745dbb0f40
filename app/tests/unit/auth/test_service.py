"""What holds for all domains: broken ones, failures, back-off, equal work."""

from __future__ import annotations

import threading

import pytest

from tests.unit.auth.conftest import outcome

MINE = """
from monktalk.auth.authenticators import *

class Mine(Authenticator):
    concurrency = 1

    def user_exists(self, user):
        return {"yes": True, "one": 1}.get(user, False)

    def check_password(self, user, password):
        if user == "raises":
            raise ValueError(f"what a silly password: {password}")
        if user == "unavailable":
            raise Unavailable("Come back later.")
        if user == "odd":
            return "no"
        return password == "secret"

authenticator = Mine()
"""

HERE = "192.0.2.1"


def test_a_broken_file_is_503_for_its_domain_and_nothing_for_others(service, database):
    database.insert("alice", "secret")
    service.domain("broken.example", "authenticator = ")
    for call in (
        "user_exists",
        "check_password",
        "get_password",
        "get_certs",
        "register",
        "set_password",
        "remove_user",
    ):
        assert service.call(call, "alice", "secret", "broken.example").status_code == 503
    assert service.call("remove_user_validate", "alice", "secret", "broken.example").status_code == 503
    assert outcome(service.call("check_password", "alice", "secret")) == (200, "alice")


def test_an_exception_in_a_domain_s_own_code_is_503_and_logged_with_its_place_only(service, caplog):
    path = service.domain("mine.example", MINE)
    assert service.call("check_password", "raises", "s3cret", "mine.example").status_code == 503
    record = next(record for record in caplog.records if record.message == "authenticator_failed")
    assert record.fields["exception"] == "ValueError"
    assert record.fields["places"][-1] == f"{path}:12 in check_password"
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])
    assert outcome(service.call("check_password", "alice", "secret", "mine.example")) == (200, "alice")


def test_an_authenticator_may_say_that_it_cannot_tell(service):
    service.domain("mine.example", MINE)
    assert outcome(service.call("check_password", "unavailable", "x", "mine.example")) == (503, "Come back later.")


def test_something_else_than_a_verdict_lets_nobody_in(service):
    service.domain("mine.example", MINE)
    assert outcome(service.call("check_password", "odd", "x", "mine.example")) == (200, "false")


def test_what_an_authenticator_does_not_offer_is_not_there(service):
    service.domain("mine.example", MINE)
    assert service.call("get_password", "yes", "", "mine.example").status_code == 404
    assert service.call("get_certs", "yes", "", "mine.example").status_code == 404
    for call in ("register", "set_password", "remove_user"):
        assert service.call(call, "yes", "x", "mine.example").status_code == 403


def test_remove_user_validate_of_an_authenticator_that_only_checks(service):
    service.domain("mine.example", MINE)
    assert outcome(service.call("remove_user_validate", "yes", "x", "mine.example")) == (403, "The password is wrong.")
    assert service.call("remove_user_validate", "no", "x", "mine.example").status_code == 404
    assert "not deleted here" in outcome(service.call("remove_user_validate", "yes", "secret", "mine.example"))[1]


BLOCKING = """
import threading
from monktalk.auth.authenticators import *

class Blocking(WebUsers):
    concurrency = 1
    entered = threading.Event()
    released = threading.Event()

    def user_exists(self, user):
        self.entered.set()
        self.released.wait(10)
        return True

authenticator = Blocking()
"""


def test_a_domain_whose_calls_do_not_come_back_does_not_take_all_threads(service, monkeypatch):
    monkeypatch.setattr("monktalk.auth.service.SLOT_TIME", 0.05)
    service.domain("blocking.example", BLOCKING)
    app = service.app
    blocking = app.extensions["monktalk-auth"].domains["blocking.example"].authenticator
    first = threading.Thread(target=service.call, args=("user_exists", "alice", "", "blocking.example"))
    first.start()
    assert blocking.entered.wait(10)
    assert service.call("user_exists", "bob", "", "blocking.example").status_code == 503
    assert outcome(service.call("user_exists", "bob")) == (200, "false")
    blocking.released.set()
    first.join()
    assert outcome(service.call("user_exists", "bob", "", "blocking.example")) == (200, "bob")


class TestBackOff:
    @pytest.fixture(autouse=True)
    def alice(self, database):
        database.insert("alice", "secret")

    def fail(self, service, times, user="alice", address=HERE):
        for _ in range(times):
            assert outcome(service.call("check_password", user, "wrong", address=address)) == (200, "false")

    def test_after_some_wrong_passwords_not_even_the_right_one_is_checked_for_a_while(self, service, hashing):
        self.fail(service, 6)
        computed = len(hashing)
        response = service.call("check_password", "alice", "secret", address=HERE)
        assert response.status_code == 403
        assert int(response.headers["Retry-After"]) >= 1
        assert len(hashing) == computed
        assert outcome(service.call("check_password", "alice", "secret", address="192.0.2.2")) == (200, "alice")
        service.clock.advance(1.3)
        assert outcome(service.call("check_password", "alice", "secret", address=HERE)) == (200, "alice")

    def test_it_tells_nothing_about_which_accounts_exist(self, service):
        self.fail(service, 6)
        self.fail(service, 6, user="nobody")
        known = service.call("check_password", "alice", "x", address=HERE)
        unknown = service.call("check_password", "nobody", "x", address=HERE)
        assert outcome(known) == outcome(unknown)
        assert known.status_code == 403

    def test_other_spellings_of_the_domain_are_the_same_account(self, service):
        for spelling in ("example.org", "EXAMPLE.ORG", "example.org.", "Example.org", "eXample.org", "exAmple.org"):
            service.call("check_password", "alice", "wrong", spelling, HERE)
        assert service.call("check_password", "alice", "secret", address=HERE).status_code == 403

    def test_it_holds_for_remove_user_validate(self, service, database):
        for _ in range(6):
            assert service.call("remove_user_validate", "alice", "wrong", address=HERE).status_code == 403
        response = service.call("remove_user_validate", "alice", "secret", address=HERE)
        assert (response.status_code, "Retry-After" in response.headers) == (403, True)
        assert database.token("alice") is not None

    def test_it_is_about_passwords_and_not_about_questions(self, service):
        for number in range(50):
            assert service.call("get_password", f"user{number}", address=HERE).status_code == 404
            assert service.call("user_exists", f"user{number}", address=HERE).status_code == 200
        assert service.call("check_password", "alice", "secret", address=HERE).status_code == 200

    def test_failures_of_the_back_end_are_nobody_s_failures(self, service):
        service.domain("mine.example", MINE)
        for _ in range(50):
            assert service.call("check_password", "raises", "x", "mine.example", HERE).status_code == 503

    def test_it_is_logged_when_it_begins(self, service, caplog):
        self.fail(service, 6)
        records = [record for record in caplog.records if record.message == "back_off"]
        assert [record.fields["scope"] for record in records] == ["pair"]
        assert records[0].fields["address"] == HERE

    def test_it_is_configured(self, service):
        service.start(back_off={"pair_failures": 1, "delay": "10 s"})
        self.fail(service, 2)
        assert service.call("check_password", "alice", "secret", address=HERE).status_code == 403
        service.clock.advance(12.6)
        assert service.call("check_password", "alice", "secret", address=HERE).status_code == 200


SHA1_KEYS = "==SCRAM==,tmi5IE+9pceRV/jkPLFHEaVY33c=,MiWNa8T3dniVDwmh77ufJ41fpAQ=,inKXODlSY5y5SCsLxibi0w==,4096"


@pytest.mark.parametrize(
    "names",
    [
        ("alice", "example.org"),
        ("carol", "example.org"),
        ("nobody", "example.org"),
        ("true", "example.org"),
        ("alice", "unknown.example"),
        ("alice", "not a domain"),
    ],
)
@pytest.mark.parametrize("call", ["check_password", "remove_user_validate"])
def test_a_refusal_costs_the_same_work_whoever_is_asked_for(service, database, hashing, call, names):
    database.insert("alice", "secret")
    database.insert("carol", SHA1_KEYS)
    user, server = names
    service.call(call, user, "wrong", server)
    assert hashing == [("sha1", 4096)]

"""A database that goes away: nobody gets in, nobody is told a lie, and it is over when the database is back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from monktalk.db import migrate
from tests.integration.auth.conftest import Service
from tests.support.program import wait_until

CALLS = ("user_exists", "check_password", "get_password", "register", "set_password", "remove_user")


@pytest.fixture
def service(postgres_victim, tmp_path):
    url = postgres_victim.create_database()
    migrate.upgrade(url)
    service = Service(tmp_path, url)
    service.insert("alice", "secret")
    service.start()
    yield service
    service.close()


def test_while_the_database_is_away_every_answer_is_503(service, postgres_victim):
    assert service.call("check_password", "alice", "secret") == (200, "alice")
    postgres_victim.kill()
    try:
        for call in CALLS:
            assert service.call(call, "alice", "secret").status == 503
        assert service.call("check_password", "nobody", "secret").status == 503
    finally:
        postgres_victim.start()
    # PostgreSQL recovers from the crash before it lets anybody in.
    wait_until(lambda: service.call("check_password", "alice", "secret") == (200, "alice"), "logins work again")
    assert service.call("set_password", "alice", "new") == (200, "alice")
    assert "secret" not in service.log


def test_a_restart_of_the_database_between_two_calls_is_not_noticed(service, postgres_victim):
    assert service.call("check_password", "alice", "secret") == (200, "alice")
    assert service.call("set_password", "alice", "new") == (200, "alice")
    postgres_victim.restart()
    assert service.call("check_password", "alice", "new") == (200, "alice")
    postgres_victim.restart()
    assert service.call("set_password", "alice", "newer") == (200, "alice")


def test_a_database_that_hangs_is_given_up_in_time_for_an_answer(service, postgres_victim):
    assert service.call("user_exists", "alice") == (200, "alice")
    with postgres_victim.frozen():
        for call in ("user_exists", "set_password"):
            began = time.monotonic()
            assert service.call(call, "alice", "new").status == 503
            assert time.monotonic() - began < 8
    wait_until(lambda: service.call("user_exists", "alice") == (200, "alice"), "logins work again")
    assert "database_hangs" in service.log


def test_a_database_that_hangs_takes_no_threads_from_other_domains_for_good(service, postgres_victim):
    assert service.call("user_exists", "alice") == (200, "alice")
    with postgres_victim.frozen(), ThreadPoolExecutor(64) as pool:
        hanging = [pool.submit(service.call, "user_exists", "alice") for _ in range(48)]
        assert {answer.result().status for answer in hanging} == {503}
        assert service.call("user_exists", "alice", server="unknown.example") == (200, "false")

"""SIGHUP: authenticators and configuration are read anew, and nobody who calls meanwhile notices."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from tests.integration.auth.conftest import WEB_USERS
from tests.support.program import wait_until


@pytest.fixture
def service(own_service):
    own_service.insert("alice", "secret")
    own_service.insert("alice", "secret", "new.example")
    own_service.start()
    return own_service


def test_a_new_domain_is_served_and_a_removed_one_is_not(service):
    assert service.call("check_password", "alice", "secret", server="new.example") == (200, "false")
    service.domain("new.example")
    service.reload()
    assert service.call("check_password", "alice", "secret", server="new.example") == (200, "alice")
    (service.authenticators / "new.example.py").unlink()
    service.reload()
    assert service.call("check_password", "alice", "secret", server="new.example") == (200, "false")
    assert service.call("check_password", "alice", "secret") == (200, "alice")


def test_a_changed_file_is_run_as_it_is_now(service):
    service.domain("example.org", WEB_USERS.replace("WebUsers()", 'WebUsers(answer="true")'))
    assert service.call("check_password", "alice", "secret") == (200, "alice")
    service.reload()
    assert service.call("check_password", "alice", "secret") == (200, "true")


def test_a_file_that_is_broken_now_disables_its_domain_only_until_it_is_mended(service):
    service.domain("new.example", "authenticator = WebUsers(\n")
    service.reload()
    assert service.call("check_password", "alice", "secret", server="new.example").status == 503
    assert service.call("check_password", "alice", "secret") == (200, "alice")
    assert "authenticator_broken domain=new.example" in service.log
    assert "new.example.py line=1" in service.log
    service.domain("new.example")
    service.reload()
    assert service.call("check_password", "alice", "secret", server="new.example") == (200, "alice")


def test_a_changed_configuration_is_taken(service):
    service.configure({"authenticators": {"answer": "true"}})
    service.reload()
    assert service.call("check_password", "alice", "secret") == (200, "true")


def test_a_bad_configuration_is_named_with_its_line_and_the_former_one_stays(service):
    good = service.config.read_text()
    for bad in (good + "[authenticators\n", good.replace('"postgres', '"mysql').replace('"sqlite', '"mysql')):
        service.config.write_text(bad)
        before = service.program.log_size()
        service.reload()
        assert "reload_refused" in service.program.log_text(before)
        assert f"invalid_configuration file={service.config} line=" in service.program.log_text(before)
        assert service.call("check_password", "alice", "secret") == (200, "alice")
        assert service.password not in service.program.log_text(before)
    service.config.unlink()
    service.reload()
    assert service.call("check_password", "alice", "secret") == (200, "alice")


def test_calls_during_reloads_are_all_answered(service):
    stop = threading.Event()
    failures = []
    count = 0

    def call_all_the_time():
        nonlocal count
        while not stop.is_set():
            # A connection for each call, as after a reload: kept ones are closed by the worker that ends.
            try:
                answer = service.call("user_exists", "alice")
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
            else:
                count += 1
                if answer != (200, "alice"):
                    failures.append(answer)

    caller = threading.Thread(target=call_all_the_time)
    caller.start()
    for _ in range(3):
        service.reload()
    stop.set()
    caller.join()
    assert failures == []
    assert count > 20


def test_a_kept_connection_is_answered_or_closed_in_good_order(service):
    with closing(service.connect()) as connection:
        assert service.call_on(connection, "user_exists", "alice") == (200, "alice")
        service.reload()
        try:
            answer = service.call_on(connection, "user_exists", "alice")
        except (ConnectionError, http.client.RemoteDisconnected):
            connection.close()
            answer = service.call_on(connection, "user_exists", "alice")
        assert answer == (200, "alice")


def test_a_worker_that_dies_is_replaced(service):
    before = service.program.log_size()
    pid = int(service.log.split("Booting worker with pid: ")[1].split('"')[0])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "auth.app ready" in service.program.log_text(before), "a new worker is ready")
    assert service.call("check_password", "alice", "secret") == (200, "alice")


def reload_and_wait(pid: int) -> subprocess.CompletedProcess[str]:
    """What the unit does for `systemctl reload`."""
    command = [sys.executable, "-m", "monktalk.auth", "--reload", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_a_reload_is_over_when_nobody_answers_by_the_former_files_any_more(service):
    with closing(service.connect()) as kept:
        assert service.call_on(kept, "check_password", "alice", "secret", server="new.example") == (200, "false")
        service.domain("new.example")
        assert reload_and_wait(service.program.pid).returncode == 0
        with pytest.raises(http.client.RemoteDisconnected):
            service.call_on(kept, "check_password", "alice", "secret", server="new.example")
    assert service.call("check_password", "alice", "secret", server="new.example") == (200, "alice")


def test_there_is_nobody_to_reload():
    ended = reload_and_wait(2**22 + 1)  # more than Linux has
    assert ended.returncode == 1
    assert "can't be told to reload: No such file or directory" in ended.stderr

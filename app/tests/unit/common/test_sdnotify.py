from __future__ import annotations

import os
import socket

import pytest

from monktalk.common.sdnotify import inherited_sockets, notify, tell, watchdog_interval


@pytest.fixture(autouse=True)
def no_manager(monkeypatch):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["path", "abstract"])
def manager(request, monkeypatch, tmp_path):
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        if request.param == "path":
            receiver.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            receiver.bind(f"\0monktalk-test-{os.getpid()}")
            monkeypatch.setenv("NOTIFY_SOCKET", f"@monktalk-test-{os.getpid()}")
        receiver.settimeout(5)
        yield receiver


def test_the_manager_is_told(manager):
    assert notify("READY=1", "STATUS=3 sessions") is True
    assert manager.recv(1024) == b"READY=1\nSTATUS=3 sessions"


def test_without_a_manager_nothing_happens():
    assert notify("READY=1") is False


def test_a_manager_that_does_not_answer_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="No such file"):
        notify("READY=1")


def test_the_watchdog_is_fed_at_half_of_its_time(monkeypatch):
    assert watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_interval() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_interval() == 15.0


def test_a_watchdog_for_another_process_is_none_of_ours(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert watchdog_interval() is None


@pytest.mark.parametrize("value", ["soon", "-1", "0", "1.5"])
def test_a_nonsensical_watchdog_time_is_an_error(monkeypatch, value):
    monkeypatch.setenv("WATCHDOG_USEC", value)
    with pytest.raises(ValueError, match="WATCHDOG_USEC"):
        watchdog_interval()


def test_a_manager_that_is_told_in_vain_is_no_reason_to_stop(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    tell("READY=1")
    assert [record.getMessage() for record in caplog.records] == ["manager_not_told"]


def test_sockets_for_another_process_are_none_of_ours(monkeypatch):
    assert inherited_sockets() == []
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert inherited_sockets() == []

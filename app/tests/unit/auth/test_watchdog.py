from __future__ import annotations

import socket
import threading
import time

from monktalk.auth.watchdog import Watchdog
from monktalk.common.clock import SystemClock


def test_a_call_that_hangs_fails_and_others_go_on():
    watchdog = Watchdog(0.2, SystemClock())
    ours, theirs = socket.socketpair()
    quick, other = socket.socketpair()
    with ours, theirs, quick, other:
        began = time.monotonic()
        with watchdog.watch(ours.fileno()):
            with watchdog.watch(quick.fileno()):
                other.sendall(b"answer")
                assert quick.recv(10) == b"answer"
            assert ours.recv(10) == b""
        assert 0.2 <= time.monotonic() - began < 2
        other.sendall(b"again")
        assert quick.recv(10) == b"again"


def test_a_call_that_ends_in_time_leaves_its_connection_alone():
    watchdog = Watchdog(0.05, SystemClock())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with watchdog.watch(ours.fileno()):
            pass
        ours.settimeout(0.3)
        try:
            ours.recv(10)
        except TimeoutError:
            still_open = True
        else:
            still_open = False
        assert still_open


def test_its_thread_ends_when_there_is_nothing_to_watch():
    watchdog = Watchdog(0.01, SystemClock())
    ours, theirs = socket.socketpair()
    with ours, theirs, watchdog.watch(ours.fileno()):
        assert any(thread.name == "database watchdog" for thread in threading.enumerate())
    deadline = time.monotonic() + 10
    while watchdog._running:
        assert time.monotonic() < deadline
        time.sleep(0.01)

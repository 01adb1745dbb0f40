"""Child processes: started, watched, stopped."""

from __future__ import annotations

import base64
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from monktalk.embedded import environment, supervisor
from monktalk.embedded.files import Files
from monktalk.embedded.supervisor import Child, ChildFailed, Interrupted, Supervisor
from tests.support.program import wait_until

SLEEP = "import time; print('awake', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('awake', flush=True); time.sleep(60)"
)


@pytest.fixture
def child(tmp_path) -> Iterator[Callable[..., Child]]:
    """``child(script)``: a process that runs it, awake if it says so."""
    started: list[Child] = []

    def start(script: str, name: str = "the sleeper") -> Child:
        found = Child(name, [sys.executable, "-c", script], tmp_path / f"log{len(started)}", {"GREETING": "hello"})
        started.append(found)
        if "awake" in script:
            wait_until(lambda: "awake" in found.log.read_text(), "the child is awake")
        return found

    yield start
    for each in started:
        if alive(each.pid):
            os.killpg(each.pid, signal.SIGKILL)
        each.wait()


@pytest.fixture
def made(variables) -> Callable[..., Supervisor]:
    """A supervisor that has started nothing."""

    def make(stop_requested: Callable[[], bool] = lambda: False) -> Supervisor:
        settings = environment.read(variables)
        files = Files(settings)
        files.prepare()
        return Supervisor(settings, files, stop_requested)

    return make


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ended(child: Child) -> bool:
    """Whether the process has ended and was waited for."""
    try:
        child.check()
    except ChildFailed:
        return True
    return False


# -- one child ---------------------------------------------------------------------------------------------------------


def test_a_child_has_its_variables_and_its_log(child):
    found = child("import os, sys; print(os.environ['GREETING']); print('oops', file=sys.stderr)")
    wait_until(lambda: ended(found), "the child has ended")
    assert sorted(found.log.read_text().split()) == ["hello", "oops"]


def test_a_child_is_out_of_reach_of_the_terminal(child):
    found = child(SLEEP)
    assert os.getpgid(found.pid) == found.pid != os.getpgid(0)


def test_the_log_of_an_earlier_run_is_kept(child, tmp_path):
    (tmp_path / "log0").write_text("before\n")
    found = child("print('now')")
    wait_until(lambda: ended(found), "the child has ended")
    assert found.log.read_text().split() == ["before", "now"]


def test_a_child_that_ends_is_told_with_the_end_of_its_log(child):
    found = child("for number in range(40): print('line', number)\nraise SystemExit(3)")
    wait_until(lambda: ended(found), "the child has ended")
    with pytest.raises(ChildFailed) as caught:
        found.check()
    first, *lines = str(caught.value).splitlines()
    assert first == f"the sleeper has ended with code 3. The end of {found.log}:"
    assert lines == [f"  line {number}" for number in range(25, 40)]


def test_a_child_is_asked_to_end(child):
    found = child(SLEEP)
    found.check()
    found.terminate()
    found.wait()
    assert not alive(found.pid)
    found.terminate()


def test_one_that_does_not_listen_is_killed_with_its_children(child, monkeypatch):
    monkeypatch.setattr(supervisor, "_STOP_SECONDS", 0.2)
    script = f"import subprocess, sys; inner = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]);"
    found = child(f"{script} print('inner', inner.pid, flush=True); {STUBBORN}")
    inner = int(found.log.read_text().split("inner ")[1].split()[0])
    found.terminate()
    found.wait()
    assert not alive(found.pid)
    wait_until(lambda: not running(inner), "the inner process has ended")


def test_what_a_child_leaves_behind_when_it_dies_is_killed(child):
    script = f"import subprocess, sys; inner = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]);"
    found = child(f"{script} print('inner', inner.pid, flush=True)")
    wait_until(lambda: ended(found), "the child has ended")
    inner = int(found.log.read_text().split("inner ")[1].split()[0])
    assert running(inner)
    found.wait()
    wait_until(lambda: not running(inner), "the inner process has ended")


def running(pid: int) -> bool:
    """Whether the process is there and no zombie, which somebody else has to wait for."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a file of the kernel
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- both --------------------------------------------------------------------------------------------------------------


def test_waiting_ends_with_the_answer(made, child):
    answers = iter([False, False, True])
    made()._wait_for(child(SLEEP), lambda: next(answers))


def test_waiting_ends_with_a_child_that_ends(made, child):
    waiting = made()
    waiting._children = [child(SLEEP), child("raise SystemExit(4)", "the other")]
    with pytest.raises(ChildFailed, match="the other has ended with code 4"):
        waiting._wait_for(waiting._children[0], lambda: False)


def test_waiting_ends_when_it_takes_too_long(made, child, monkeypatch):
    monkeypatch.setattr(supervisor, "_START_SECONDS", 0.1)
    with pytest.raises(ChildFailed, match=r"the sleeper does not answer\. The end of .*\n  awake"):
        made()._wait_for(child(SLEEP), lambda: False)


def test_waiting_ends_when_the_user_wants_to_stop(made, child):
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        made(lambda: next(asked))._wait_for(child(SLEEP), lambda: False)


def test_watching_ends_when_the_user_wants_to_stop(made, child):
    asked = iter([False, True])
    watching = made(lambda: next(asked))
    watching._children = [child(SLEEP)]
    watching.watch()


def test_watching_ends_with_a_child_that_ends(made, child):
    watching = made()
    watching._children = [child(SLEEP), child("raise SystemExit(4)", "the other")]
    with pytest.raises(ChildFailed, match="the other has ended with code 4"):
        watching.watch()


def test_stopping_ends_the_last_one_first(made, child, monkeypatch):
    stopping = made()
    stopping._children = [child(SLEEP), child(SLEEP)]
    pids = [each.pid for each in stopping._children]
    order: list[int] = []
    wait = Child.wait

    def noted(self: Child) -> None:
        order.append(self.pid)
        assert alive(pids[0])
        wait(self)

    monkeypatch.setattr(Child, "wait", noted)
    stopping.stop()
    stopping.stop()
    assert order == [pids[1], pids[0]]
    assert not any(map(alive, pids))


# -- the authentication service ----------------------------------------------------------------------------------------


@pytest.fixture
def service() -> Iterator[Callable[[int, int], list[str]]]:
    """``service(port, status)``: something that answers so on that port; returns the credentials that it is shown."""
    servers: list[HTTPServer] = []

    def serve(port: int, status: int) -> list[str]:
        shown: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown.append(self.headers["Authorization"])
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", port), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return shown

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "answers"), [(200, True), (404, True), (401, False), (500, False)])
def test_the_authentication_service_answers_when_it_knows_the_password(made, variables, service, status, answers):
    supervising = made()
    assert supervising._auth_answers() is False
    shown = service(int(variables["MONKTALK_PORT_AUTH"]), status)
    assert supervising._auth_answers() is answers
    password = supervising._files.auth_password.read_text()
    assert shown == ["Basic " + base64.b64encode(f"xmpp:{password}".encode()).decode()]

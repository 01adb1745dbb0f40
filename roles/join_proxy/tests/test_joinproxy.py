"""The program joinproxy, against a socket that answers as HAProxy does."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
from pathlib import Path

import pytest

_FILE = Path(__file__).resolve().parents[1] / "files/joinproxy.py"
_SPEC = importlib.util.spec_from_file_location("joinproxy", _FILE)
joinproxy = importlib.util.module_from_spec(_SPEC)
sys.modules["joinproxy"] = joinproxy
_SPEC.loader.exec_module(joinproxy)

HEADER = "# pxname,svname,scur,status,check_status,\n"
OLD = """#<PID>          <type>          <reloads>       <uptime>        <version>
100             master          2 [failed: 0]   0d00h02m22s     3.0.11
# workers
103             worker          0               0d00h01m28s     3.0.11
# old workers
101             worker          2               0d00h01m50s     3.0.11
102             worker          1               0d00h01m40s     3.0.11
# programs

"""
NEW = "#<PID> <type> <reloads>\n100 master 0\n# workers\n103 worker 0\n# programs\n\n"


class Proxy:
    """Two sockets that answer by a table; a changed state shows in the next answer."""

    def __init__(self, folder):
        self.states = {"a": "UP", "b": "UP 1/2", "c": "DOWN"}
        self.clients = {"a": 3, "b": 0, "c": 2}
        self.old = {"101": {"a": 4, "c": 1}, "102": {}}
        self.processes = OLD
        self.reload = "Success=1\n--\n"
        self.asked = []
        self.admin, self.master = folder / "admin", folder / "master"
        self._listeners = [self._listen(self.admin), self._listen(self.master)]

    def _listen(self, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=self._serve, args=(listener, path.name), daemon=True).start()
        return listener

    def _serve(self, listener, name):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rw") as file:
                command = file.readline().strip()
                self.asked.append((name, command))
                file.write(self.answer(command))
                file.flush()

    def answer(self, command):
        match command.split():
            case ["show", "stat"]:
                return self.table(self.clients)
            case [worker, "show", "stat"]:
                return self.table(self.old[worker.removeprefix("@!")])
            case ["show", "proc"]:
                return self.processes
            case ["show", "servers", "state"]:
                return "1\n# be_id\n3 xmpp\n\n"
            case ["set", "server", name, "state", state]:
                self.states[name.split("/")[1]] = "DRAIN" if state == "drain" else "UP"
                return "\n"
            case ["reload"]:
                return self.reload
            case _:
                return "\n"

    def table(self, clients):
        rows = [f"xmpp,{node},{clients.get(node, 0)},{state},* L7OK,\n" for node, state in self.states.items()]
        return HEADER + "xmpp,FRONTEND,9,OPEN,,\n" + "".join(rows) + "xmpp,BACKEND,9,UP,,\n\n"

    def close(self):
        for listener in self._listeners:
            listener.close()


@pytest.fixture
def proxy(tmp_path, monkeypatch):
    made = Proxy(tmp_path)
    monkeypatch.setattr(joinproxy, "ADMIN", made.admin)
    monkeypatch.setattr(joinproxy, "MASTER", made.master)
    monkeypatch.setattr(joinproxy, "STATE", tmp_path / "state")
    yield made
    made.close()


def test_the_list_counts_clients_of_former_processes_too(proxy, capsys):
    assert joinproxy.main(["status"]) == 0
    assert [line.split()[:4] for line in capsys.readouterr().out.splitlines()] == [
        ["a", "xmpp", "UP", "7"],
        ["b", "xmpp", "UP", "1/2"],
        ["c", "xmpp", "DOWN", "3"],
    ]


def test_a_node_is_drained_and_what_was_said_is_kept_for_a_reload(proxy, capsys):
    assert joinproxy.main(["drain", "a"]) == 0
    assert proxy.states["a"] == "DRAIN"
    assert capsys.readouterr().out.startswith("drained: a")
    assert joinproxy.STATE.read_text() == "1\n# be_id\n3 xmpp\n"
    assert joinproxy.main(["drain", "a"]) == 0
    assert capsys.readouterr().out.startswith("unchanged: a")


def test_a_node_is_put_back(proxy, capsys):
    proxy.states["a"] = "MAINT"
    assert joinproxy.main(["undrain", "a", "--wait", "5"]) == 0
    assert proxy.states["a"] == "UP"
    assert joinproxy.main(["undrain", "a"]) == 0
    assert "unchanged: a" in capsys.readouterr().out


def test_draining_waits_for_the_clients_of_all_processes(proxy, capsys):
    proxy.clients["a"] = 0
    assert joinproxy.main(["drain", "a", "--wait", "0.1"]) == joinproxy.EXIT_TIME_IS_OVER
    assert "a still has 4 clients" in capsys.readouterr().err
    proxy.old["101"]["a"] = 0
    assert joinproxy.main(["drain", "a", "--wait", "0.1"]) == 0


def test_a_node_that_does_not_come_back_is_told(proxy, capsys):
    assert joinproxy.main(["undrain", "c", "--wait", "0.1"]) == joinproxy.EXIT_TIME_IS_OVER
    assert "c is not ready after 0.1 seconds: xmpp DOWN (L7OK)." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_a_node_that_nobody_knows(proxy, capsys, command):
    assert joinproxy.main([command, "x"]) == 1
    assert "knows no node x. It knows a, b, c." in capsys.readouterr().err


def test_a_reload(proxy, capsys):
    assert joinproxy.main(["reload"]) == 0
    proxy.reload = "Success=0\n--\n[ALERT] unknown keyword\n"
    assert joinproxy.main(["reload"]) == 1
    assert "the former one stays:\n[ALERT] unknown keyword" in capsys.readouterr().err


def test_haproxy_does_not_run(proxy, capsys):
    proxy.close()
    joinproxy.ADMIN = proxy.admin.with_name("nobody")
    assert joinproxy.main(["status"]) == 1
    assert "does not answer" in capsys.readouterr().err


def closed(proxy):
    return [(name, command) for name, command in proxy.asked if "shutdown sessions" in command]


def test_connections_of_a_dead_node_are_closed_after_a_while_and_once(proxy):
    watch = joinproxy.Watch(1.5)
    assert watch.look(100.0) == []
    assert watch.look(101.4) == []
    gone = watch.look(101.5)
    assert gone == [("xmpp", "c")]
    watch.close(gone)
    assert closed(proxy) == [
        ("admin", "shutdown sessions server xmpp/c"),
        ("master", "@!101 shutdown sessions server xmpp/c"),
    ]
    watch.close(gone)
    assert len(closed(proxy)) == 2, "they end by themselves now"


def test_a_node_that_comes_back_is_left_alone(proxy):
    watch = joinproxy.Watch(1.5)
    watch.look(100.0)
    proxy.states["c"] = "UP"
    assert watch.look(102.0) == []
    proxy.states["c"] = "DOWN"
    assert watch.look(103.0) == []
    assert watch.look(104.5) == [("xmpp", "c")]


def test_without_former_processes(proxy):
    proxy.processes = NEW
    assert joinproxy.parse_old_workers(NEW) == []
    assert joinproxy.main(["status"]) == 0

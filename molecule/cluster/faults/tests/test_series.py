"""What is asked of the cluster, and how a series of faults is judged. The cluster itself is not needed for this."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from checks.node import Result
from faults import installation, series
from faults.__main__ import parser
from faults.faults import ALL, Fault
from load.ledger import Findings
from load.round import Report


def result(output, status=0):
    return Result("command", status, output if isinstance(output, str) else json.dumps(output), "")


def members(*names):
    return result({"members": [{"node": name} for name in names]})


@pytest.mark.parametrize(
    ("answer", "problems"),
    [
        (members("a", "b"), []),
        (members("a", "a", "b"), []),  # two workers
        (members("a"), ["does not know of b"]),
        (members("a", "b", "c"), ["knows of c, which is not there"]),
        (result("mongooseimctl: not running", 3), ["mongooseimctl: not running"]),
        (result("", 255), ["status 255"]),
    ],
)
def test_what_a_node_knows(answer, problems):
    assert installation.problems_of_node(["a", "b"], answer) == problems


@pytest.mark.parametrize(
    ("answer", "problems"),
    [
        (result([{"node": "a", "state": "UP", "service": "xmpp"}]), []),
        (result([{"node": "a", "state": "DOWN", "service": "xmpp"}]), ["a is DOWN for xmpp"]),
        (result([]), ["has no nodes"]),
        (result("HAProxy does not answer", 1), ["HAProxy does not answer"]),
    ],
)
def test_what_a_proxy_says(answer, problems):
    assert installation.problems_of_proxy(answer) == problems


def test_what_a_database_says():
    assert installation.problems_of_database(result("", 0)) == []
    assert installation.problems_of_database(result("no leader\n", 2)) == ["no leader"]


class Cluster:
    """Has two nodes with a user each."""

    def __init__(self):
        self.turns = itertools.cycle(["a", "b"])
        self.ghosts = set()
        self.waited = 0

    def wait_whole(self, seconds):
        self.waited += 1

    def busiest(self):
        return next(self.turns)

    def users_of(self, node):
        return {f"user-{node}"}

    def sessions(self):
        return {"user-a@example.org/load", "user-b@example.org/load"} | self.ghosts


class Load:
    """Says what it was told, and reports what it was given."""

    def __init__(self, report):
        self.said = []
        self._report = report

    def start(self):
        self.said.append("start")

    def fault(self, name, touched):
        self.said.append((name, touched))
        self._report.name = name

    def settle(self, seconds):
        self.said.append("settle")
        return self._report.as_json()

    def online(self):
        return ["user-a@example.org/load", "user-b@example.org/load"]


class Trip(Fault):
    """Somebody trips over a cable."""

    name = "trip"
    seconds = 0
    done: list[str] = []  # noqa: RUF012 - tests look at it

    def begin(self):
        self.done.append("begin")

    def heal(self):
        self.done.append("heal")


class Refused(Trip):
    """Cannot even begin."""

    def begin(self):
        raise AssertionError("refused")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(series, "_WARM_UP", 0)
    monkeypatch.setattr(series, "_AFTERWARDS", 0)
    monkeypatch.setattr(series, "until", lambda question, what, **_: _asserted(question(), what))
    Trip.done.clear()


def _asserted(answer, what):
    assert answer, what


def report(**findings):
    return Report("", 10, 2, Findings(sent=3, acknowledged=3, **findings), untouched=0.1, touched=1)


def test_a_fault_that_does_no_harm(tmp_path, capsys):
    cluster, load = Cluster(), Load(report())
    one = series.Series(cluster, load, tmp_path / "results")
    one.run([Trip], 0)
    assert one.complaints == []
    assert load.said == ["start", ("trip", {"user-a"}), "settle"]
    assert Trip.done == ["begin", "heal"]
    assert cluster.waited == 2, "before and after"
    assert capsys.readouterr().out.startswith("trip ")
    written = json.loads((tmp_path / "results").read_text())
    assert (written["run"], written["name"], written["findings"]["acknowledged"]) == (1, "trip", 3)


def test_it_happens_to_the_node_that_is_busiest_then(tmp_path):
    load = Load(report())
    one = series.Series(Cluster(), load, tmp_path / "results")
    for number in range(3):
        one.run([Trip], number)
    assert [words[1] for words in load.said if isinstance(words, tuple)] == [{"user-a"}, {"user-b"}, {"user-a"}]


def test_a_fault_that_nobody_notices_shows_nothing(tmp_path):
    load = Load(replace(report(), touched=0))
    one = series.Series(Cluster(), load, tmp_path / "results")
    one.run([Trip], 0)
    assert one.complaints == ["trip: trip touched no client: it has shown nothing"]


def test_a_fault_that_loses_something(tmp_path, capsys):
    one = series.Series(Cluster(), Load(report(lost=1)), tmp_path / "results")
    one.run([Trip], 0)
    assert one.complaints == ["trip: 1 acknowledged messages were lost"]
    assert "! 1 acknowledged messages were lost" in capsys.readouterr().out


def test_sessions_without_clients(tmp_path):
    cluster = Cluster()
    cluster.ghosts = {"user-a@example.org/former"}
    one = series.Series(cluster, Load(report()), tmp_path / "results")
    one.run([Trip], 0)
    assert one.complaints == ["trip: 1 sessions have no client: user-a@example.org/former"]


def test_what_was_broken_is_healed_when_something_fails(tmp_path):
    with pytest.raises(AssertionError, match="refused"):
        series.Series(Cluster(), Load(report()), tmp_path / "results").run([Refused], 0)
    assert Trip.done == ["heal"]


def test_faults_by_name():
    assert parser().parse_args(["--faults", "nodes-split,nothing"]).faults == ["nodes-split", "nothing"]
    assert parser().parse_args([]).faults == list(ALL)
    with pytest.raises(SystemExit):
        parser().parse_args(["--faults", "meteorite"])

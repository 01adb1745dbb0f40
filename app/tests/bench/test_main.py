from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bench.__main__ import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, main, parse_arguments
from bench.servers import SERVERS


def test_usual_measurement():
    options = parse_arguments([])
    assert options.servers == list(SERVERS)
    assert options.workloads == ["chat", "login", "idle"]
    assert (options.repetitions, options.sessions, options.pairs, options.windows) == (3, 5000, 200, (1, 10))


def test_quick_measurement_gives_way_to_what_is_asked_for():
    options = parse_arguments(["--quick", "--sessions", "50", "--windows", "1,5"])
    assert (options.repetitions, options.sessions, options.windows) == (1, 50, [1, 5])
    assert options.logins < parse_arguments([]).logins


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--servers", "openfire"], "unknown: 'openfire'"),
        (["--workloads", ","], "name at least one of chat, login, idle"),
        (["--windows", "0"], "at least 1"),
        (["--accounts", "6", "--logins", "6"], "6 logins need more than 6 accounts"),
    ],
)
def test_wrong_usage_is_explained(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        parse_arguments(arguments)
    assert end.value.code == EXIT_USAGE
    assert complaint in capsys.readouterr().err


def test_peer_that_is_not_installed_is_named_and_left_out(monkeypatch, capsys):
    monkeypatch.setattr("bench.servers.ejabberd.debian_version", lambda _package: "")
    assert main(["--servers", "ejabberd"]) == EXIT_USAGE
    assert "ejabberd is not installed (Debian package ejabberd). It is left out." in capsys.readouterr().err


SMALL = ["--quick", "--pairs", "3", "--accounts", "12", "--logins", "6", "--sessions", "12", "--tls", "on"]
TIMES = ["--warm-up", "0.1", "--duration", "0.3"]


@pytest.fixture
def folder():
    """A folder that Prosody's user can reach, as he cannot reach those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def bench(folder):
    """Start the benchmark against Prosody, which starts fastest."""
    if reason := SERVERS["prosody"].missing():
        pytest.skip(reason)
    output = folder / "latest.json"
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", "--servers", "prosody", "--output", str(output), *arguments],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def processes_below(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder / "bench-") in command:
            found.append(command)
    return found


@pytest.mark.integration
def test_measures_a_real_server_and_leaves_nothing_behind(bench, folder):
    process = bench(*SMALL, *TIMES)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_OK, text
    records = json.loads((folder / "latest.json").read_text())
    assert [record["workload"] for record in records] == ["chat"] * 4 + ["login", "idle"]
    assert all(record["cpu_us"] > 0 and record["messages"] > 0 for record in records[:4])
    assert all(record["lost"] == record["duplicated"] == 0 for record in records)
    assert [path.name for path in folder.iterdir()] == ["latest.json"]
    assert processes_below(folder) == []


@pytest.mark.integration
def test_interrupt_stops_the_server_and_writes_nothing(bench, folder):
    process = bench("--pairs", "3", "--workloads", "chat")
    deadline = time.monotonic() + 30
    while not processes_below(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED, text
    assert processes_below(folder) == []
    assert list(folder.iterdir()) == []

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import EXIT_OK, EXIT_USAGE
from bench.cluster.__main__ import main, parse_arguments
from bench.cluster.stack import nats_missing


def test_usual_measurement():
    options = parse_arguments([])
    assert options.parts == ["messages", "guarantee", "capacity", "homes", "beats"]
    assert (options.repetitions, options.load.pairs, options.load.windows) == (3, 200, (1, 10))
    assert options.steps[-1] == 100_000


def test_quick_measurement_gives_way_to_what_is_asked_for():
    options = parse_arguments(["--quick", "--repetitions", "2", "--duration", "9"])
    assert (options.repetitions, options.load.duration) == (2, 9.0)
    assert options.steps[-1] < 100_000


def test_unknown_part_is_explained(capsys):
    with pytest.raises(SystemExit) as end:
        parse_arguments(["--parts", "presence"])
    assert end.value.code == EXIT_USAGE
    assert "unknown: 'presence'" in capsys.readouterr().err


def test_without_nats_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr("bench.cluster.stack._nats_command", lambda: None)
    assert main(["--quick"]) == EXIT_USAGE
    assert "nats-server is not installed" in capsys.readouterr().err


@pytest.mark.integration
def test_measures_real_workers_and_homes_and_leaves_nothing_behind(tmp_path):
    if reason := nats_missing():
        pytest.skip(reason)
    output = tmp_path / "records" / "cluster.json"
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = [sys.executable, "-m", "bench.cluster", "--quick", "--parts", "capacity,homes", "--pairs", "4"]
    application = Path(__file__).parents[3]
    done = subprocess.run(
        [*command, "--duration", "0.3", "--output", str(output)],
        env={**os.environ, "PYTHONPATH": str(application), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == EXIT_OK, done.stderr
    records = json.loads(output.read_text())
    assert [record["part"] for record in records] == ["capacity"] * 4 + ["homes"] * 3
    assert all(record["workers_us"] > 0 and not record["faults"] for record in records[:4])
    assert records[1]["gain"] > 0
    assert [record["users"] for record in records[4:6]] == [500, 1000]
    assert list(folder.iterdir()) == []

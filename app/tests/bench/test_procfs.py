from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench import procfs
from bench.child import Child, ServerError

LINE = "4242 (a (strange) name) S 17 4242 4242 0 -1 4194304 1 2 3 4 50 20 7 3 20 0 9 0 123456 1 2 3\n"
PARENT = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)]
print("started", flush=True)
time.sleep(600)
"""


def test_line_of_stat_with_parentheses_in_the_name():
    info = procfs.parse_stat(LINE)
    assert info == procfs.ProcessInfo(pid=4242, state="S", parent=17, session=4242, cpu_ticks=80, started=123456)


def test_other_text_is_no_line_of_stat():
    with pytest.raises(ValueError, match="not a line"):
        procfs.parse_stat("hello")


def test_process_that_is_gone_is_none():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert procfs.read_process(process.pid) is None


def test_cpu_of_a_child_counts_before_and_after_its_end():
    burn = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    before = procfs.cpu_seconds(procfs.tree(os.getpid()))
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert procfs.cpu_seconds(procfs.tree(os.getpid())) - before >= 0.19


def test_memory_of_a_tree_grows_with_what_is_allocated():
    before = procfs.pss_kib(procfs.tree(os.getpid()))
    block = bytearray(os.urandom(1)) * (32 * 1024 * 1024)
    assert procfs.pss_kib(procfs.tree(os.getpid())) - before > 30 * 1024
    assert len(block) == 32 * 1024 * 1024


@pytest.fixture
def child(tmp_path):
    started = Child(
        [sys.executable, "-c", PARENT],
        environment=dict(os.environ),
        folder=tmp_path,
        log=tmp_path / "log",
        cores=os.sched_getaffinity(0),
    )
    yield started
    started.stop()


def test_stop_ends_a_program_with_its_children(child):
    deadline = time.monotonic() + 10
    while child.last_lines() != "    started" and time.monotonic() < deadline:
        time.sleep(0.02)
    members = [process.pid for process in child.tree()]
    assert len(members) == 3
    child.stop()
    assert not child.running()
    # What lost its parent may wait for init to notice its end.
    left = [info for pid in members if (info := procfs.read_process(pid)) is not None and info.state != "Z"]
    assert left == []


def test_program_that_does_not_exist(tmp_path):
    with pytest.raises(ServerError, match="no-such-program cannot be started"):
        Child(
            ["/no-such-program"],
            environment={},
            folder=tmp_path,
            log=tmp_path / "log",
            cores=os.sched_getaffinity(0),
        )

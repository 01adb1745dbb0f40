"""What the supervisor decides by itself. Its life with workers is tested in integration/supervisor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from monktalk.common.config import Schema, parse
from monktalk.xmpp.core.settings import CORE_SECTIONS
from monktalk.xmpp.supervisor.supervisor import Supervisor, _reason, pause, worker_count


@pytest.mark.parametrize(("written", "count"), [(1, 1), (4, 4), (0, len(os.sched_getaffinity(0)))])
def test_how_many_workers(written, count):
    text = f"[general]\nhosts = ['a.example']\n[cluster]\nworkers = {written}\n"
    assert worker_count(parse(text, "test", Schema(CORE_SECTIONS))) == count


def test_one_worker_is_the_default():
    assert worker_count(parse("[general]\nhosts = ['a.example']\n", "test", Schema(CORE_SECTIONS))) == 1


def test_pauses_grow_up_to_ten_seconds():
    assert [pause(deaths) for deaths in range(1, 10)] == [0, 0.25, 0.5, 1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(0, "exit status 0"), (1, "exit status 1"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_why_a_worker_has_ended(status, reason):
    assert _reason(status) == reason


class Worker:
    """A worker as far as the supervisor talks to it."""

    def __init__(self, number: int, *, ready: bool) -> None:
        self.number = self.pid = number
        self.ready = ready
        self.channel = self
        self.told: list[str] = []

    def send(self, kind: str) -> None:
        self.told.append(kind)


def supervisor_of(*workers: Worker) -> Supervisor:
    text = f"[general]\nhosts = ['a.example']\n[cluster]\nworkers = {len(workers)}\n"
    found = Supervisor(Path("/nowhere"), text, parse(text, "test", Schema(CORE_SECTIONS)))
    known: Any = {worker.number: worker for worker in workers}
    found._workers = known
    return found


def test_it_is_starting_while_a_worker_is_missing():
    assert supervisor_of(Worker(1, ready=True), Worker(2, ready=False)).state == "starting"
    assert supervisor_of(Worker(1, ready=True), Worker(2, ready=True)).state == "ready"


def test_draining_reaches_all_workers_once():
    workers = [Worker(1, ready=True), Worker(2, ready=True)]
    supervisor = supervisor_of(*workers)
    supervisor.drain()
    supervisor.drain()
    assert [worker.told for worker in workers] == [["drain"], ["drain"]]
    assert supervisor.state == "draining"


def test_draining_can_be_taken_back():
    worker = Worker(1, ready=True)
    supervisor = supervisor_of(worker)
    supervisor.undrain()
    supervisor.drain()
    supervisor.undrain()
    assert worker.told == ["drain", "undrain"]
    assert supervisor.state == "ready"


def test_stopping_is_more_than_draining():
    supervisor = supervisor_of(Worker(1, ready=True))
    supervisor.drain()
    supervisor.stop()
    assert supervisor.state == "stopping"

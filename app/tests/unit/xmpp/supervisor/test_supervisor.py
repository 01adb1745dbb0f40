"""What the supervisor decides by itself. Its life with workers is tested in integration/supervisor."""

from __future__ import annotations

import os

import pytest

from monktalk.common.config import Schema, parse
from monktalk.xmpp.core.settings import CORE_SECTIONS
from monktalk.xmpp.supervisor.supervisor import _reason, pause, worker_count


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

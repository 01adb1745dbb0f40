"""What a worker does when the supervisor says something, and what it asks for. Its life is in integration/supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from monktalk.xmpp import configuration
from monktalk.xmpp.admin.registry import CommandError
from monktalk.xmpp.supervisor.channel import Message, as_file
from monktalk.xmpp.supervisor.worker import Link, Worker
from tests.support.certificates import make_certificate

TEXT = """
[general]
hosts = ["one.example"]
[database]
url = "memory:"
[[listen.c2s]]
address = "127.0.0.1"
port = 0
"""


class Supervisor:
    """The other end of a worker's channel: keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Message] = []

    def send(self, kind: str, descriptors: tuple[int, ...] = (), **fields: Any) -> None:
        self.told.append({"type": kind, **fields})


@pytest.fixture
def text(tmp_path) -> str:
    certificate, key = make_certificate(tmp_path, "server", ["one.example"])
    return f"{TEXT}[tls]\ncertificate = '{certificate}'\nkey = '{key}'\n"


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


@pytest.fixture
async def worker(tmp_path, supervisor, text) -> Worker:
    path = tmp_path / "mongooseim.toml"
    channel: Any = supervisor
    return Worker(path, configuration.parse(text, path), 2, channel, [])


def listening() -> int:
    """The descriptor of a listening socket, as a message brings it."""
    return socket.create_server(("127.0.0.1", 0)).detach()


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


async def test_a_configuration_that_can_be_used_is_kept_until_it_is_forgotten(worker, supervisor, text):
    descriptor = listening()
    worker.received({"type": "check", "id": 7}, [as_file(text), descriptor])
    assert supervisor.told == [{"type": "done", "id": 7, "error": ""}]
    assert is_open(descriptor)
    worker.received({"type": "forget"}, [])
    assert not is_open(descriptor)


async def test_a_second_check_replaces_the_first(worker, text):
    first, second = listening(), listening()
    worker.received({"type": "check", "id": 1}, [as_file(text), first])
    worker.received({"type": "check", "id": 2}, [as_file(text), second])
    assert (is_open(first), is_open(second)) == (False, True)
    worker.received({"type": "forget"}, [])


async def test_a_configuration_that_can_not_be_used_is_refused_with_the_reason(worker, supervisor, text):
    descriptor = listening()
    worker.received({"type": "check", "id": 7}, [as_file(f"{text}[limits]\nrat = 1\n"), descriptor])
    [answer] = supervisor.told
    assert answer["id"] == 7
    assert "limits.rat: unknown option" in answer["error"]
    assert not is_open(descriptor)


async def test_nothing_can_be_taken_over_that_was_not_checked(worker, supervisor, caplog):
    worker.received({"type": "apply", "id": 8}, [])
    await worker._taking_over
    [answer] = supervisor.told
    assert answer["id"] == 8
    assert answer["error"]
    assert "reload_failed" in caplog.text


async def test_draining_is_for_the_whole_node(worker, supervisor):
    await worker.drain()
    assert supervisor.told == [{"type": "drain"}]
    assert not worker.draining, "until the supervisor says so"
    worker.received({"type": "drain"}, [])
    assert worker.draining
    await worker.undrain()
    assert supervisor.told[1:] == [{"type": "undrain"}]
    worker.received({"type": "undrain"}, [])
    assert not worker.draining


async def reloading(worker: Worker, supervisor: Supervisor) -> tuple[asyncio.Task[Any], int]:
    """A reload that waits for the supervisor, and its number."""
    task = asyncio.get_running_loop().create_task(worker.reload())
    await asyncio.sleep(0)
    [question] = supervisor.told
    assert question["type"] == "reload"
    return task, question["id"]


async def test_a_reload_is_asked_for_and_reported(worker, supervisor):
    task, number = await reloading(worker, supervisor)
    worker.received({"type": "reloaded", "id": number + 1, "error": "of another one"}, [])
    worker.received({"type": "reloaded", "id": number, "error": "", "applied": ["a.b"], "restart_needed": ["c.d"]}, [])
    report = await task
    assert (report.applied, report.restart_needed) == (["a.b"], ["c.d"])


async def test_a_refused_reload_is_an_error_of_the_command(worker, supervisor):
    task, number = await reloading(worker, supervisor)
    worker.received({"type": "reloaded", "id": number, "error": "mongooseim.toml:3: wrong"}, [])
    with pytest.raises(CommandError, match=r"mongooseim\.toml:3: wrong"):
        await task


async def test_what_comes_before_there_is_a_worker_is_not_lost(worker):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(theirs.detach())
    ours.send(b'{"type": "start"}\n')
    ours.send(b'{"type": "drain"}\n')
    assert await link.start == ({"type": "start"}, [])
    ours.close()
    async with asyncio.timeout(10):
        while not link.gone:
            await asyncio.sleep(0.001)
    link.serve(worker)
    assert worker.draining
    assert worker._stopping.is_set(), "the supervisor has ended"


async def test_without_a_supervisor_there_is_no_start():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(theirs.detach())
    ours.close()
    with pytest.raises(ConnectionResetError, match="the supervisor has ended"):
        await link.start

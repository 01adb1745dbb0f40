from __future__ import annotations

import tomllib
from typing import Any

import pytest

from bench.cluster.stack import NatsServer, Stack, nats_missing

USUAL = """\
[general]
hosts = ["localhost"]
control_socket = "/x/control.sock"

[[listen.c2s]]
port = {port}

[database]
url = "sqlite:////x/monktalk.db"
"""


def configuration(stack: Stack, number: int) -> dict[str, Any]:
    return tomllib.loads(stack.configuration(USUAL.format(port=stack.port_plain), number))


def test_workers_have_ports_and_sockets_of_their_own(tmp_path):
    stack = Stack(tmp_path, {0}, 10, workers=2, guarantee="durable")
    first, second = configuration(stack, 0), configuration(stack, 1)
    assert first["listen"]["c2s"][0]["port"] == stack.port_plain
    assert second["listen"]["c2s"][0]["port"] == stack.endpoint_of(1, tls=False).address[1] != stack.port_plain
    assert first["general"]["control_socket"] != second["general"]["control_socket"]
    assert first["messages"] == {"guarantee": "durable"}
    assert first["database"] == second["database"] == {"url": "sqlite:////x/monktalk.db"}


def test_database_can_be_another_one(tmp_path):
    stack = Stack(tmp_path, {0}, 10, database=r"postgresql://user:pass\1@127.0.0.1/bench")
    assert stack.configuration(USUAL, 0).count(r"postgresql://user:pass\1@127.0.0.1/bench") == 1


@pytest.mark.integration
def test_nats_server_starts_on_ports_of_its_own_and_ends(tmp_path):
    if reason := nats_missing():
        pytest.skip(reason)
    near = NatsServer(tmp_path, {0}, "near")
    far = NatsServer(tmp_path, {0}, "far", [near])
    assert len({near.port, near.route, far.port, far.route}) == 4
    far.stop()
    near.stop()
    assert not near.child.running()

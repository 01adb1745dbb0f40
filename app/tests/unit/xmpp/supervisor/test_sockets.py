"""The sockets of a node: bound at the start, changed by a reload as a whole or not at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from monktalk.common.config import Schema, Settings, parse
from monktalk.xmpp.core.settings import LISTEN_C2S
from monktalk.xmpp.supervisor.sockets import NodeSockets
from tests.support.stack import free_port

LOOPBACK = "127.0.0.1"


def wanted(*places: tuple[str, int]) -> tuple[Settings, ...]:
    text = "".join(f"[[listen.c2s]]\naddress = '{address}'\nport = {port}\n" for address, port in places)
    return parse(text, "test", Schema([LISTEN_C2S])).sections("listen", "c2s")


def answers(port: int, address: str = LOOPBACK) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        return probe.connect_ex((address, port)) == 0


@pytest.fixture
def sockets() -> Iterator[NodeSockets]:
    opened = NodeSockets()
    yield opened
    opened.close()


def test_every_listener_has_its_socket(sockets):
    port = free_port()
    sockets.open(wanted((LOOPBACK, 0), (LOOPBACK, port)))
    [(_, free), second] = sockets.places
    assert second == (LOOPBACK, port)
    assert answers(free)
    assert answers(port)
    assert len(set(sockets.descriptors)) == 2


def test_ipv6_leaves_ipv4_alone(sockets):
    port = free_port()
    sockets.open(wanted(("::", port), ("0.0.0.0", port)))  # noqa: S104 - what happens with all addresses is tested
    assert answers(port)
    assert answers(port, "::1")


def test_sockets_of_the_service_manager_are_used(sockets):
    handed = socket.create_server((LOOPBACK, 0))
    port = handed.getsockname()[1]
    sockets.open(wanted((LOOPBACK, port)), [handed])
    assert sockets.descriptors == [handed.fileno()]


@pytest.mark.parametrize("address", ["192.0.2.1", "nowhere.invalid"])
def test_a_port_that_can_not_be_had_is_told(sockets, address):
    with pytest.raises(OSError, match=f"can't listen on {address} port 5222: "):
        sockets.open(wanted((address, 5222)))


def test_a_change_keeps_what_stays(sockets):
    kept, old, new = free_port(), free_port(), free_port()
    sockets.open(wanted((LOOPBACK, kept), (LOOPBACK, old)))
    changed = sockets.change(wanted((LOOPBACK, new), (LOOPBACK, kept)))
    assert changed.descriptors[1] == sockets.descriptors[0]
    assert answers(old)
    sockets.let_go(of=changed)
    assert [answers(port) for port in (kept, old, new)] == [True, False, True]
    changed.close()


def test_a_change_that_is_given_up_leaves_nothing_behind(sockets):
    kept, new = free_port(), free_port()
    sockets.open(wanted((LOOPBACK, kept)))
    sockets.change(wanted((LOOPBACK, kept), (LOOPBACK, new))).let_go(of=sockets)
    assert [answers(port) for port in (kept, new)] == [True, False]


def test_a_change_that_can_not_be_made_leaves_everything_as_it_was(sockets):
    kept, new = free_port(), free_port()
    sockets.open(wanted((LOOPBACK, kept)))
    with pytest.raises(OSError, match="can't listen on"):
        sockets.change(wanted((LOOPBACK, new), ("192.0.2.1", 5222)))
    assert [answers(port) for port in (kept, new)] == [True, False]

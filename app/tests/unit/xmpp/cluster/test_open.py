"""The bus that the configuration asks for."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest

from monktalk.xmpp.cluster.local import LocalBus
from monktalk.xmpp.cluster.natsbus import NatsBus
from monktalk.xmpp.cluster.open import address, open_bus
from tests.support.certificates import make_certificate


def settings(**options):
    usual = {
        "bus": "nats",
        "node": "",
        "name": "verona",
        "servers": ("127.0.0.1",),
        "user": "",
        "password": "",
        "ca": None,
    }
    return SimpleNamespace(**(usual | options))


async def test_without_a_bus_the_server_is_alone():
    bus = open_bus(settings(bus="none"))
    assert isinstance(bus, LocalBus)
    assert bus.alone


async def test_a_worker_is_named_after_node_and_number():
    bus = open_bus(settings(node="node one.example"), worker=3)
    assert isinstance(bus, NatsBus)
    assert bus.worker.startswith("node-one-example-3-")
    assert open_bus(settings()).worker.startswith(f"{socket.gethostname().replace('.', '-')}-0-")


async def test_two_starts_are_two_workers():
    assert open_bus(settings()).worker != open_bus(settings()).worker


async def test_a_name_that_can_not_be_one_is_refused():
    with pytest.raises(ValueError, match="two words"):
        open_bus(settings(name="two words"))


async def test_certificates_are_read_at_once(tmp_path):
    certificate, _ = make_certificate(tmp_path, "nats", ["localhost"])
    open_bus(settings(ca=certificate))
    with pytest.raises(OSError, match="No such file"):
        open_bus(settings(ca=Path("/nonexistent/ca.pem")))
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ssl.SSLError):
        open_bus(settings(ca=tmp_path / "empty.pem"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats.example:4333", ("nats.example", 4333)),
        ("nats.example", ("nats.example", 4222)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[2001:db8::1]:4333", ("2001:db8::1", 4333)),
        ("[2001:db8::1]", ("2001:db8::1", 4222)),
    ],
)
def test_addresses(text, expected):
    assert address(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":4222", "nats.example:", "nats.example:no", "nats.example:0", "nats.example:65536"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="write host:port"):
        address(text)

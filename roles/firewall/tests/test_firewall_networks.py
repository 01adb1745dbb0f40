"""The filters firewall_networks and firewall_covers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[1] / "filter_plugins" / "firewall_networks.py"
_SPEC = importlib.util.spec_from_file_location("firewall_networks", _PATH)
filters = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(filters)

NETWORKS = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]


def test_networks_are_told_apart_by_version():
    assert filters.firewall_networks(NETWORKS, 4) == ["10.0.0.0/8", "192.0.2.7/32"]
    assert filters.firewall_networks(NETWORKS, 6) == ["2001:db8::/32"]


def test_networks_inside_others_are_left_out():
    assert filters.firewall_networks(["10.1.0.0/16", "10.0.0.0/8", "10.0.0.1"], 4) == ["10.0.0.0/8"]


def test_bits_of_the_host_are_forgiven():
    assert filters.firewall_networks(["10.1.2.3/8"], 4) == ["10.0.0.0/8"]


@pytest.mark.parametrize("address", ["10.9.8.7", "::ffff:10.9.8.7", "192.0.2.7", "2001:db8::1"])
def test_addresses_inside(address):
    assert filters.firewall_covers(NETWORKS, address)


@pytest.mark.parametrize("address", ["192.0.2.8", "2001:db9::1", "fe80::1%eth0"])
def test_addresses_outside(address):
    assert not filters.firewall_covers(NETWORKS, address)


def test_a_link_local_address_comes_with_its_interface():
    assert filters.firewall_covers(["fe80::/10"], "fe80::1%eth0")


@pytest.mark.parametrize("text", ["example.org", "10.0.0.0/33", ""])
def test_what_is_no_network_is_named(text):
    with pytest.raises(ValueError, match="neither an address nor a network"):
        filters.firewall_networks([text], 4)

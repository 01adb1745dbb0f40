"""Clients are spread over the nodes, and nodes know who they are."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
from conftest import NODES


@pytest.mark.parametrize("port", [80, 5222])
def test_clients_are_spread(proxies, clients, port):
    for proxy in proxies:
        found = Counter(client.node for client in clients(proxy.address, 40, port))
        assert set(found) == set(NODES)
        assert min(found.values()) >= 15


@pytest.mark.parametrize("port", [80, 5222])
def test_the_node_learns_the_clients_address_and_where_it_wanted_to_go(proxies, clients, port):
    for address in proxies[0].addresses:
        (client,) = clients(address, port=port)
        assert client.told["client"] == client.local[0]
        assert client.told["client_port"] == client.local[1]
        assert client.told["port"] == port
        assert client.answers()


def test_nobody_gets_past_the_proxies(nodes):
    for node in nodes:
        for port in (80, 5222, 5390, 6222):
            with pytest.raises(TimeoutError):
                socket.create_connection((node.address, port), timeout=0.5)


def test_a_node_that_is_not_there_harms_nobody(proxies, views, coming):
    assert views.states(proxies[0])["xmpp-be-preprod03"] == "DOWN"
    with coming(proxies[0].address) as loop:
        while loop.served < 50 and not loop.failures:
            pass
    assert loop.failures == []

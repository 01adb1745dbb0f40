"""The proxies share an address: one has it, and the other takes it over."""

from __future__ import annotations

import pytest
from conftest import NODES, PROXIES, Client

from checks.waiting import until


@pytest.fixture
def owner(proxies, virtual_address):
    """Who has the address now; None when nobody or both have it."""

    def ask(among=proxies):
        found = [proxy for proxy in among if f" {virtual_address}/" in proxy.ok("ip -brief address show")]
        return found[0] if len(found) == 1 else None

    return ask


def served(address):
    try:
        client = Client(address, patience=2)
    except OSError:
        return False
    client.close()
    return True


def test_one_of_them_has_it_and_clients_find_nodes_there(owner, clients, virtual_address):
    until(owner, "one proxy to have the address")
    assert {client.node for client in clients(virtual_address, 20)} == set(NODES)


def test_it_leaves_a_proxy_whose_haproxy_does_not_answer(proxies, owner, virtual_address):
    first = until(owner, "one proxy to have the address")
    (second,) = (proxy for proxy in proxies if proxy is not first)
    first.ok("systemctl kill --signal=STOP haproxy.service")
    try:
        until(lambda: owner() is second, "the other one to have it")
        assert served(virtual_address)
    finally:
        first.ok("systemctl kill --signal=CONT haproxy.service")
    until(lambda: "succeeded" in first.ok("journalctl -n 5 --no-pager -u keepalived"), "HAProxy to be noticed")
    assert owner() is second, "an address that works where it is should stay there"


def test_it_leaves_a_proxy_without_power_and_does_not_come_back_by_itself(proxies, owner, lab, virtual_address):
    first = until(owner, "one proxy to have the address")
    (second,) = (proxy for proxy in proxies if proxy is not first)
    lab("power", first.name, "off")
    try:
        until(lambda: owner([second]) is second, "the other one to have it")
        until(lambda: served(virtual_address), "clients to be served")
    finally:
        lab("power", first.name, "on")
    first.wait_active("keepalived.service")
    until(lambda: "Entering BACKUP STATE" in first.ok("journalctl -b --no-pager -u keepalived"), "it to take part")
    assert owner() is second
    assert served(virtual_address)


def test_only_the_other_proxy_takes_part(proxies):
    for proxy in proxies:
        rules = proxy.ok("nft list chain inet monktalk input")
        other = next(each for each in proxies if each is not proxy)
        assert f"ip saddr {other.address} meta l4proto vrrp accept" in rules.replace("112", "vrrp")
    assert len(PROXIES) == 2

"""A node that does not want clients gets no new ones, and keeps those that it has."""

from __future__ import annotations

import pytest
from conftest import ABSENT, NODES

from checks.waiting import until


def nodes_of(clients):
    return {client.node for client in clients}


def test_a_node_that_is_not_ready_gets_no_new_clients_while_old_ones_go_on(proxies, nodes, clients, views):
    before = clients(proxies[0].address, 10)
    assert nodes_of(before) == set(NODES)
    try:
        nodes[0].ok("touch /run/lab-service/not-ready")
        views.wait(NODES[0], "NOLB")
        assert nodes_of(clients(proxies[0].address, 20)) == {NODES[1]}
        assert all(client.answers() for client in before)
    finally:
        nodes[0].ok("rm /run/lab-service/not-ready")
    views.wait(NODES[0], "UP")
    assert nodes_of(clients(proxies[0].address, 40)) == set(NODES)
    assert all(client.answers() for client in before)


def test_the_playbooks_take_a_node_off_all_proxies_and_put_it_back(proxies, playbooks, clients, views):
    before = clients(proxies[1].address, 10)
    assert "changed=1" in playbooks.run("playbooks/drain.yml")
    for proxy in proxies:
        assert views.states(proxy)[NODES[0]] == "DRAIN"
        assert nodes_of(clients(proxy.address, 10)) == {NODES[1]}
    assert "changed=0" in playbooks.run("playbooks/drain.yml")
    assert all(client.answers() for client in before)
    assert "changed=1" in playbooks.run("playbooks/undrain.yml")
    for proxy in proxies:
        assert nodes_of(clients(proxy.address, 40)) == set(NODES)
    assert all(client.answers() for client in before)


def test_draining_can_wait_for_the_last_client(proxies, clients, views):
    here = next(client for client in clients(proxies[0].address, 10) if client.node == NODES[0])
    try:
        late = proxies[0].run(f"joinproxy drain {NODES[0]} --wait 1")
        assert late.status == 4
        assert "still has" in late.stderr
        # A client of a process from before a reload counts as well.
        proxies[0].ok("systemctl reload haproxy")
        assert proxies[0].run(f"joinproxy drain {NODES[0]} --wait 1").status == 4
        assert here.answers()
    finally:
        proxies[0].ok(f"joinproxy undrain {NODES[0]} --wait 20")


def test_the_last_node_cannot_be_drained_by_mistake(playbooks, sources):
    everywhere = type(playbooks)(sources, f"{','.join(NODES)},{ABSENT}")
    assert "no node for clients" in everywhere.run("playbooks/drain.yml", expect=2)


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_a_node_that_the_proxy_does_not_know_is_told(proxies, command):
    result = proxies[0].run(f"joinproxy {command} xmpp-be-prod01")
    assert result.status == 1
    assert f"It knows {', '.join([*NODES, ABSENT])}." in result.stderr


def test_operators_see_it_at_a_glance(proxies, clients):
    clients(proxies[0].address, 4)
    until(lambda: "2 clients" in proxies[0].ok("joinproxy status"), "clients in the list")
    lines = proxies[0].ok("joinproxy status").splitlines()
    assert [line.split()[:3] for line in lines] == [
        [NODES[0], "xmpp", "UP"],
        [NODES[1], "xmpp", "UP"],
        [ABSENT, "xmpp", "DOWN"],
    ]

"""The cluster as the playbook has left it."""

from __future__ import annotations

import pytest

from checks.ports import scan
from faults.installation import BUS, SERVER


def test_it_is_whole(installation):
    installation.wait_whole(60)


@pytest.mark.parametrize("unit", [SERVER, "mongooseim-auth.service", BUS])
def test_every_node_runs(installation, unit):
    for node in installation.nodes:
        assert node.is_active(unit), node.name
        assert node.ok(f"systemctl is-enabled {unit}") == "enabled", node.name


def test_databases_are_replicated(installation):
    leader = installation.leader()
    others = [member for member in installation.databases if member.name != leader.name]
    copies = leader.ok("cd / && runuser -u postgres -- psql -qtAXc 'select count(*) from pg_stat_replication'")
    assert int(copies) == len(others)


def test_nodes_let_clients_in_by_the_proxies_only(installation):
    for node in installation.nodes:
        assert 5222 not in scan(node.address).open, node.name


def test_proxies_open_what_clients_need(installation):
    for proxy in installation.proxies:
        answers = scan(proxy.address)
        assert answers.open == {22, 80, 5222}, proxy.name

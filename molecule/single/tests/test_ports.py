"""Which ports answer: from outside, and on the node."""

from __future__ import annotations

import re

import pytest

from checks.ports import scan


@pytest.mark.parametrize("family", [4, 6])
def test_only_ssh_and_client_streams_answer(node, family):
    addresses = [address for address in node.addresses if (":" in address) == (family == 6)]
    if not addresses:
        pytest.skip(f"the node has no address of IPv{family}")
    answers = scan(addresses[0])
    assert answers.open == {22, 80, 5222}
    # The packet filter says nothing at all.
    assert answers.refused == set()


def test_authentication_service_listens_on_the_loopback_interface_only(node):
    assert node.ok("ss -Hltn 'sport = :3300' | awk '{print $4}'") == "127.0.0.1:3300"


def test_nothing_listens_to_others_but_what_is_meant_to(node):
    listening = node.ok("ss -Hltn | awk '{print $4}'").split()
    public = {re.sub(r"%\w+", "", name) for name in listening if not name.startswith(("127.", "[::1]"))}
    assert {int(name.rpartition(":")[2]) for name in public} == {22, 80, 5222}


def test_database_listens_on_no_port(node):
    assert node.ok("ss -Hltn 'sport = :5432'") == ""


def test_firewall_drops_what_nobody_has_allowed(node):
    rules = node.ok("nft list ruleset")
    assert re.search(r"hook input priority [\w+ -]+; policy drop;", rules)


def test_firewall_lets_in_what_the_network_needs(node):
    """Without ICMP no path MTU, without ICMPv6 no neighbours."""
    rules = node.ok("nft list ruleset")
    assert re.search(r"icmp .*accept", rules)
    assert re.search(r"(icmpv6|ipv6-icmp).*accept", rules)


def test_firewall_has_bosh_and_https_prepared_but_closed(node):
    rules = node.ok("nft list ruleset")
    assert not re.search(r"\b(5380|3300)\b.*accept", rules)
    assert not re.search(r"\b(5385|443|3000)\b.*accept", rules)

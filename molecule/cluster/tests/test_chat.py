"""People on different nodes, as if there was one server."""

from __future__ import annotations

import pytest

from checks.waiting import until


@pytest.fixture
def names(passwords):
    return sorted(passwords)


def node_of(installation, jid):
    user = jid.partition("@")[0]
    return [node.name for node in installation.nodes if user in installation.users_of(node)]


@pytest.mark.parametrize("port", [80, 5222])
@pytest.mark.parametrize("direct", [False, True])
def test_login_by_every_proxy(installation, login, names, port, direct):
    for proxy in range(len(installation.proxies)):
        person = login(names[0], proxy, port=port, direct=direct)
        assert person.answers()
        person.leaves()


def test_everybody_is_on_one_node(installation, login, names):
    for number, name in enumerate(names):
        login(name, number % len(installation.proxies))
    for name in names:
        until(lambda name=name: len(node_of(installation, name)) == 1, f"{name} to be on one node")


def test_messages_reach_everybody(login, names):
    people = [login(name, number % 2) for number, name in enumerate(names)]
    for sender in people:
        for recipient in people:
            sender.says(recipient.jid, f"from {sender.jid}")
    for sender in people:
        for recipient in people:
            recipient.hears(sender.jid, f"from {sender.jid}")


def test_rosters_are_one(login, names):
    alice, bob = login(names[0], 0), login(names[1], 1)
    alice.befriends(bob.jid)
    until(lambda: alice.roster().get(bob.jid) == "both", "subscription both ways")
    assert bob.roster()[alice.jid] == "both"


def test_messages_wait_for_those_who_are_away(login, names):
    alice = login(names[0], 0)
    alice.says(names[3], "for later")
    assert alice.answers()
    login(names[3], 1).hears(alice.jid, "for later")


def test_vcards_are_one(login, names):
    login(names[0], 0).publishes_vcard("Somebody of the cluster")
    assert login(names[1], 1).vcard_of(names[0]) == "Somebody of the cluster"

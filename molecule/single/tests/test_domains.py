"""Domains are added to the running server, by hand and by the playbook, while somebody stays connected."""

from __future__ import annotations

import pytest
from conftest import DOMAIN

from checks.people import Refused
from checks.waiting import until

BY_HAND = "by-hand.example"
BY_PLAYBOOK = "by-playbook.example"
AUTHENTICATORS = "/etc/mongooseim/externals-auth"
CONFIGURATION = "/etc/mongooseim/mongooseim.toml"


@pytest.fixture(scope="module", autouse=True)
def clean_node(node):
    def clean():
        for domain in (BY_HAND, BY_PLAYBOOK):
            node.run(f"mongooseimctl remove_domain {domain}; rm -f {AUTHENTICATORS}/{domain}.py")
        node.ok("systemctl reload mongooseim-auth")

    clean()
    yield
    clean()


def test_by_hand(node, login, alice, accounts, people):
    """The operator's procedure: hosts, reload_local, authenticator, restart of the auth service, credentials."""
    witness = login(alice)
    text = node.read(CONFIGURATION)
    assert text.count("hosts = [") == 1
    node.write(CONFIGURATION, text.replace("hosts = [", f'hosts = ["{BY_HAND}", '))
    assert node.ok("mongooseimctl reload_local").startswith("# Reloaded:")
    node.ok(f"cp -p {AUTHENTICATORS}/{DOMAIN}.py {AUTHENTICATORS}/{BY_HAND}.py")
    node.ok("systemctl restart mongooseim-auth")
    password = accounts.make("carol", BY_HAND)

    carol = people.login(f"carol@{BY_HAND}", password, check_name=False)
    carol.says(alice, "Hello from the new domain")
    witness.hears(f"carol@{BY_HAND}", "Hello from the new domain")
    assert witness.answers()
    assert witness.lost == []
    carol.leaves()


def test_domains_are_separate(people, accounts):
    with pytest.raises(Refused):
        people.login(f"carol@{DOMAIN}", accounts.passwords[f"carol@{BY_HAND}"])


def test_by_playbook(node, playbooks, login, alice, accounts, people):
    witness = login(alice)
    playbooks.run("playbooks/add_domain.yml", domain=BY_PLAYBOOK)
    password = accounts.make("dave", BY_PLAYBOOK)
    dave = people.login(f"dave@{BY_PLAYBOOK}", password, check_name=False)
    dave.says(alice, "Hello from the second new domain")
    witness.hears(f"dave@{BY_PLAYBOOK}", "Hello from the second new domain")
    assert witness.lost == []
    dave.leaves()
    # The one that was added by hand is still there.
    assert {BY_HAND, BY_PLAYBOOK, DOMAIN} <= set(node.hosts())


def test_adding_it_twice_changes_nothing(playbooks):
    recap = playbooks.run("playbooks/add_domain.yml", domain=BY_PLAYBOOK)
    assert "changed=0" in recap


@pytest.mark.parametrize("name", ["not a domain", "UPPER.example", "-x.example", "../etc"])
def test_what_is_no_domain_is_refused(node, playbooks, name):
    def state():
        return node.read(CONFIGURATION), node.ok(f"ls {AUTHENTICATORS}")

    before = state()
    playbooks.run("playbooks/add_domain.yml", expect=2, domain=f"'{name}'")
    assert state() == before


def test_a_mistake_is_refused_with_its_line_and_changes_nothing(node, login, alice):
    witness = login(alice)
    text = node.read(CONFIGURATION)
    try:
        node.write(CONFIGURATION, text + "\n[limits]\nstanza_size = 'a lot'\n")
        by_command = node.run("mongooseimctl reload_local")
        by_unit = node.run("systemctl reload mongooseim")
    finally:
        node.write(CONFIGURATION, text)
    assert by_command.status == 1
    assert f"{CONFIGURATION}:{len(text.splitlines()) + 3}" in by_command.output or "stanza_size" in by_command.output
    assert by_unit.status != 0
    node.wait_active("mongooseim.service")
    assert witness.answers()
    assert witness.lost == []
    node.ok("systemctl reload mongooseim")


def test_a_broken_authenticator_harms_its_own_domain_only(node, login, alice, people, accounts):
    """Whom the server knows from a moment ago it lets in without asking, so somebody new has to try."""
    file = f"{AUTHENTICATORS}/{BY_PLAYBOOK}.py"
    text = node.read(file)
    password = accounts.make("erin", BY_PLAYBOOK)

    def erin_gets_in():
        try:
            people.login(f"erin@{BY_PLAYBOOK}", password, check_name=False).leaves()
        except Refused:
            return False
        return True

    try:
        node.write(file, "this is no Python\n")
        node.ok("systemctl restart mongooseim-auth")
        assert login(alice).answers()
        assert not erin_gets_in()
    finally:
        node.write(file, f"{text}\n")
        node.ok("systemctl restart mongooseim-auth")
    # Once the server's circuit breaker has noticed.
    until(erin_gets_in, "the domain to work again", 60, pause=1)


def test_removing_it(node, playbooks, login, alice, people, accounts):
    witness = login(alice)
    playbooks.run("playbooks/remove_domain.yml", domain=BY_PLAYBOOK)
    assert BY_PLAYBOOK not in node.hosts()
    assert BY_HAND in node.hosts()
    with pytest.raises(Refused):
        people.login(f"dave@{BY_PLAYBOOK}", accounts.passwords[f"dave@{BY_PLAYBOOK}"], check_name=False)
    assert witness.answers()
    assert witness.lost == []

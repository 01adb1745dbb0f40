"""The node under test, and who talks to it. Everything comes over the network, as from anywhere else."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
import testinfra

from checks.knocking import Knocking
from checks.node import Node, inventory
from checks.people import People
from checks.playbooks import PROJECT, Playbooks

NAME = "xmpp-be-svil"
# What the specification promises; clients have it built in.
DOMAIN = "xmpp-svil.monksoftware.it"
DATABASE = "xmppsvil"

# First what only looks, then what changes something and puts it back; the reboot ends it.
ORDER = ["layout", "units", "ports", "login", "domains", "developers", "life_cycle", "healing", "secrets", "reboot"]

_WATCH = """
while sleep 0.05; do ps axww -o args=; done | awk '!seen[$0]++ {{ print; fflush() }}' > {file}
"""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def run_directory():
    """What belongs to this run: the log of Ansible, and Molecule's folder with the inventory of the lab."""
    return PROJECT / "var/lab" / os.environ.get("LAB_NAME", "single")


@pytest.fixture(scope="session")
def lab_inventory(run_directory):
    molecule = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY") or run_directory / "molecule")
    return str(molecule / "inventory")


@pytest.fixture(scope="session")
def sources(lab_inventory):
    return [lab_inventory, str(PROJECT / "inventories/monk")]


@pytest.fixture(scope="session")
def node(sources):
    return Node(NAME, inventory(sources, NAME))


@pytest.fixture(scope="session")
def host(lab_inventory):
    """The node as testinfra sees it."""
    return testinfra.get_host(f"ansible://{NAME}?ansible_inventory={lab_inventory}")


@pytest.fixture(scope="session")
def playbooks(sources):
    return Playbooks(sources, NAME)


@pytest.fixture(scope="session", autouse=True)
def seen_processes(node):
    """Notes every command line that is ever seen on the node from now on, for test_secrets."""
    file = "/run/seen-command-lines"
    node.run("systemctl stop lab-watch.service")
    node.ok("cat > /run/lab-watch", _WATCH.format(file=file))
    node.ok("systemd-run --quiet --collect --unit lab-watch.service sh /run/lab-watch")
    return file


@pytest.fixture(scope="session")
def people(node):
    """Clients that trust the authority that the node publishes, and nobody else."""
    everybody = People(node.address, node.read("/etc/mongooseim/ca.cer"))
    yield everybody
    everybody.close()


class Accounts:
    """Accounts made by the plain insert that operators have always used."""

    def __init__(self, node):
        self.node = node
        self.passwords = {}

    def make(self, name, domain=DOMAIN):
        password = secrets.token_urlsafe(16)
        self.node.sql(
            DATABASE,
            f"delete from web_users where node = '{name}' and domain = '{domain}';"  # noqa: S608 - as operators do
            f"insert into web_users (node, token, domain) values ('{name}', '{password}', '{domain}');",
        )
        self.passwords[f"{name}@{domain}"] = password
        return password


@pytest.fixture(scope="session")
def accounts(node):
    return Accounts(node)


@pytest.fixture(scope="session")
def alice(accounts):
    accounts.make("alice")
    return f"alice@{DOMAIN}"


@pytest.fixture(scope="session")
def bob(accounts):
    accounts.make("bob")
    return f"bob@{DOMAIN}"


@pytest.fixture
def login(people, accounts):
    """Log somebody in; they are logged out when the test is over."""
    online = []

    def log_in(jid, **options):
        person = people.login(jid, accounts.passwords[jid], **options)
        online.append(person)
        return person

    yield log_in
    for person in online:
        person.leaves()


@pytest.fixture
def knocking(node):
    """Clients that connect in a loop to both ports; afterwards none of them may have failed.

    With ``killed``, a stream that the server had accepted when it was killed may break; none may be refused.
    """

    class Both:
        def __init__(self, killed=False):
            self.killed = killed

        def failures(self):
            found = [failure for loop in self.loops for failure in loop.failures]
            return [failure for failure in found if "Refused" in failure] if self.killed else found

        def __enter__(self):
            self.loops = [Knocking(node.address, port, DOMAIN) for port in (80, 5222)]
            for loop in self.loops:
                loop.__enter__()
            return self

        def __exit__(self, *_):
            for loop in self.loops:
                loop.__exit__(*_)
            if _[0] is None:
                assert self.failures() == []
                assert all(loop.successes > 1 for loop in self.loops)

    return Both

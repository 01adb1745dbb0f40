"""The cluster under test, and who talks to it. Everything comes over the network, as from anywhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from checks.people import People
from checks.playbooks import PROJECT
from faults.installation import Installation
from load import accounts

# First what only looks.
ORDER = ["whole", "chat"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def sources():
    run_directory = PROJECT / "var/lab" / os.environ.get("LAB_NAME", "cluster")
    molecule = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY") or run_directory / "molecule")
    return [str(molecule / "inventory"), str(PROJECT / "inventories/monk")]


@pytest.fixture(scope="session")
def installation(sources):
    return Installation(sources)


@pytest.fixture(scope="session")
def passwords(installation):
    """People of this run, by name."""
    made = accounts.make(4, installation.domain, prefix="person")
    installation.insert(made, prefix="person")
    return {account.jid.decode(): account.password for account in made}


@pytest.fixture(scope="session")
def ways_in(installation):
    """Clients that come by each of the proxies, and trust the authority that the nodes publish."""
    authority = installation.authority()
    everybody = [People(proxy.address, authority) for proxy in installation.proxies]
    yield everybody
    for people in everybody:
        people.close()


@pytest.fixture
def login(ways_in, passwords):
    """Log somebody in by one of the proxies; they are logged out when the test is over."""
    online = []

    def log_in(jid, proxy=0, **options):
        person = ways_in[proxy].login(jid, passwords[jid], **options)
        online.append(person)
        return person

    yield log_in
    for person in online:
        person.leaves()

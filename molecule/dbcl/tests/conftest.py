"""The cluster under test, and a program that writes to it as the XMPP server does: through all addresses at once."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from checks.node import Node, inventory
from checks.playbooks import PROJECT, Playbooks
from checks.waiting import until
from checks.writer import Writer
from monktalk.db.engine import create_engine

NAMES = ["dbcl-preprod01", "dbcl-preprod02", "dbcl-preprod03"]
# What the inventory promises.
CLUSTER = "dbcl-preprod"
DATABASE = "xmpptest"

# First what only looks, then what breaks something and sees it heal.
ORDER = ["layout", "closed", "functions", "operation", "faults", "restore"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def molecule_directory():
    run = PROJECT / "var/lab" / os.environ.get("LAB_NAME", "dbcl")
    return Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY") or run / "molecule")


@pytest.fixture(scope="session")
def sources(molecule_directory):
    return [str(molecule_directory / "inventory"), str(PROJECT / "inventories/monk")]


@pytest.fixture(scope="session")
def variables(sources):
    return {name: inventory(sources, name) for name in NAMES}


class Members:
    """The hosts, and what they say of themselves."""

    def __init__(self, variables):
        self.nodes = {name: Node(name, variables[name]) for name in NAMES}

    def __iter__(self):
        return iter(self.nodes.values())

    def __getitem__(self, name):
        return self.nodes[name]

    def table(self, of=""):
        """What Patroni says: name to role and state."""
        asked = self.nodes[of] if of else next(iter(self))
        text = asked.run("patronictl -c /etc/patroni/config.yml list --format json").stdout
        return {each["Member"]: (each["Role"], each["State"]) for each in json.loads(text or "[]")}

    def leader(self, besides=""):
        """The node that leads, as one of the others says that it does."""
        name = until(lambda: self._leader(besides), "a leader", 60)
        return self.nodes[name]

    def _leader(self, besides):
        asked = next(node for node in self if node.name != besides)
        name = asked.run("dbcl leader").stdout.strip()
        return name if name != besides else ""

    def standbys(self):
        leader = self.leader()
        return [node for node in self if node.name != leader.name]

    def wait_complete(self, seconds=90):
        """Wait until there is a leader and all others stream from it."""
        result = next(iter(self)).run(f"dbcl wait --seconds {seconds}", timeout=seconds + 30)
        assert result.status == 0, result.output

    def sql(self, statements, database=DATABASE):
        """SQL on the leader, by hand; returns what was printed."""
        command = f"cd / && runuser -u postgres -- psql -XqtA -v ON_ERROR_STOP=1 {database}"
        return self.leader().ok(command, statements)


@pytest.fixture(scope="session")
def members(variables):
    return Members(variables)


@pytest.fixture
def complete(members):
    """The cluster with all its members, before the test and after it."""
    members.wait_complete()
    yield members
    members.wait_complete()


@pytest.fixture(scope="session")
def password(variables):
    return variables[NAMES[0]]["vault_database_password"]


@pytest.fixture(scope="session")
def url(members, password, molecule_directory):
    """The address as group_vars/xmpp_nodes/main.yml makes it."""
    hosts = ",".join(node.address for node in members)
    settings = f"target_session_attrs=read-write&sslmode=verify-full&sslrootcert={molecule_directory}/ca/ca.crt"
    return f"postgresql://mongooseim:{password}@{hosts}/{DATABASE}?{settings}&connect_timeout=3"


@pytest.fixture
def writer(url):
    """Rows that were acknowledged while something happened; afterwards all of them have to be there."""
    engine = create_engine(url)
    with Writer(engine) as running:
        until(lambda: len(running.acknowledged) > 20, "rows to be written", 30)
        yield running
    engine.dispose()


@pytest.fixture(scope="session")
def playbooks(sources):
    return Playbooks(sources, ",".join(NAMES))


@pytest.fixture
def measured(record_property, capsys, request):
    """Says a figure in the output of the run."""

    def say(what, value):
        record_property(what, value)
        with capsys.disabled():
            print(f"\n    {re.sub('^test_', '', request.node.name)}: {what} {value}", end="")

    return say

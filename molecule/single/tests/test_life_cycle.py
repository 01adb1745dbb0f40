"""Restart, reload, another certificate, another release and the way back: data stay, and no client is refused."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import subprocess

import pytest
from conftest import DOMAIN

from checks.playbooks import PROJECT

PLAYBOOK = "playbooks/xmpp_nodes.yml"


@pytest.fixture(scope="module")
def data(people, accounts, alice, bob):
    """What has to be there afterwards: a roster, a vCard, a message that waits; returns the question."""
    writer = people.login(alice, accounts.passwords[alice])
    writer.befriends(bob)
    writer.publishes_vcard("Alice who stays")
    writer.leaves()
    sent = []

    def there():
        sender = people.login(alice, accounts.passwords[alice], port=80, direct=True)
        assert bob in sender.roster()
        assert sender.vcard_of(alice) == "Alice who stays"
        reader = people.login(bob, accounts.passwords[bob])
        for body in sent:
            reader.hears(alice, body)
        reader.leaves()
        # For the next time: bob is away.
        sent[:] = [f"kept over number {len(sent)}"]
        sender.says(bob, sent[0])
        assert sender.answers()
        sender.leaves()

    there()
    return there


def served_certificate(node, port, people):
    """The fingerprint of the certificate that a client is shown."""
    context = people.context()
    context.check_hostname = False
    context.verify_mode = 0
    with (
        socket.create_connection((node.address, port), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname=DOMAIN) as encrypted,
    ):
        return hashlib.sha256(encrypted.getpeercert(binary_form=True)).hexdigest()


def test_restart(node, knocking, data):
    before = node.main_pid("mongooseim.service")
    with knocking():
        for _ in range(3):
            node.ok("systemctl restart mongooseim")
        node.ok("systemctl restart mongooseim-auth")
    assert node.main_pid("mongooseim.service") not in {0, before}
    data()


def test_restart_by_mongooseimctl(node, knocking, data):
    with knocking():
        node.ok("mongooseimctl restart && mongooseimctl started")
    data()


def test_stop_closes_the_ports_and_start_opens_them(node, data):
    node.ok("systemctl stop mongooseim")
    assert node.ok("mongooseimctl stopped; ss -Hltn 'sport = :5222 or sport = :80'") == ""
    assert node.run("mongooseimctl status").status == 3
    node.ok("systemctl start mongooseim && mongooseimctl started")
    data()


def test_reload_keeps_sessions_and_refuses_nobody(node, knocking, login, alice, data):
    witness = login(alice)
    pid = node.main_pid("mongooseim.service")
    with knocking():
        for _ in range(5):
            node.ok("systemctl reload mongooseim")
            node.ok("systemctl reload mongooseim-auth")
    assert node.main_pid("mongooseim.service") == pid
    assert witness.answers()
    assert witness.lost == []
    data()


@pytest.fixture(scope="module")
def other_pair(tmp_path_factory):
    """A pair by another authority."""
    folder = tmp_path_factory.mktemp("pair")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.cer", "-days", "30", "-subj", "/CN=Another authority"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )
    openssl("req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", f"/CN={DOMAIN}")
    (folder / "ext").write_text(
        f"subjectAltName=DNS:{DOMAIN}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n", encoding="ascii"
    )
    openssl(
        *("x509", "-req", "-in", "leaf.csr", "-CA", "ca.cer", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "20", "-extfile", "ext", "-out", "leaf.cer"),
    )
    return folder


def test_certificate_change(node, playbooks, knocking, login, alice, people, other_pair, data):
    witness = login(alice)
    old = {port: served_certificate(node, port, people) for port in (80, 5222)}
    pid = node.main_pid("mongooseim.service")
    with knocking():
        playbooks.run(
            PLAYBOOK,
            tags="certificates",
            certificates_source="given",
            certificates_chain_file=str(other_pair / "leaf.cer"),
            certificates_key_file=str(other_pair / "leaf.key"),
            certificates_ca_file=str(other_pair / "ca.cer"),
        )
        for port in (80, 5222):
            assert served_certificate(node, port, people) != old[port]
        # And back to the one that the inventory wants.
        playbooks.run(PLAYBOOK, tags="certificates")
        for port in (80, 5222):
            assert served_certificate(node, port, people) == old[port]
    # The live stream has not noticed.
    assert node.main_pid("mongooseim.service") == pid
    assert witness.answers()
    assert witness.lost == []
    data()


def test_a_pair_that_does_not_belong_together_is_refused(node, playbooks, people, other_pair, data):
    old = served_certificate(node, 5222, people)
    subprocess.run(
        ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "wrong.key"],
        cwd=other_pair,
        check=True,
    )
    playbooks.run(
        PLAYBOOK,
        tags="certificates",
        expect=2,
        certificates_source="given",
        certificates_chain_file=str(other_pair / "leaf.cer"),
        certificates_key_file=str(other_pair / "wrong.key"),
        certificates_ca_file=str(other_pair / "ca.cer"),
    )
    assert served_certificate(node, 5222, people) == old
    data()


@pytest.fixture(scope="module")
def second_release(tmp_path_factory):
    """The sources of this checkout, with another version."""
    folder = tmp_path_factory.mktemp("sources") / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "var", "node_modules", "__pycache__", ".*_cache", "*.egg-info")
    shutil.copytree(PROJECT, folder, ignore=ignored)
    project = folder / "pyproject.toml"
    text, count = re.subn(r'(?m)^version = "([^"]+)"', r'version = "\1.1"', project.read_text(encoding="utf-8"))
    assert count == 1
    project.write_text(text, encoding="utf-8")
    return folder


def current(node):
    return node.ok("readlink -f /usr/lib/mongooseim/current").rpartition("/")[2]


def running(node, unit):
    """The release that a unit really runs."""
    command = node.ok(f"tr '\\0' ' ' < /proc/{node.main_pid(unit)}/cmdline")
    return re.search(r"/releases/([^/]+)/", command)[1]


def test_upgrade_and_roll_back(node, playbooks, knocking, second_release, data):
    first = current(node)
    with knocking():
        playbooks.run(PLAYBOOK, release_source=str(second_release))
        second = current(node)
        assert second != first
        assert second.partition("-")[0] == first.partition("-")[0] + ".1"
        for unit in ("mongooseim.service", "mongooseim-auth.service"):
            assert running(node, unit) == second
        assert second.partition("-")[0] in node.ok("mongooseimctl status")
        data()

        playbooks.run("playbooks/rollback.yml")
        assert current(node) == first
        for unit in ("mongooseim.service", "mongooseim-auth.service"):
            assert running(node, unit) == first
        data()


def test_roll_back_to_what_is_not_there_is_refused(node, playbooks):
    first = current(node)
    said = playbooks.run("playbooks/rollback.yml", expect=2, release_version="9.9.9-00000000")
    assert first in said
    assert current(node) == first


def test_another_run_changes_nothing(playbooks):
    """Whatever the tests have changed is back as the inventory wants it."""
    assert re.search(r"changed=0\b", playbooks.run(PLAYBOOK))

"""No secret is where it can be read by chance: lists of processes, environments, journal, logs, Ansible's output."""

from __future__ import annotations

import re

import pytest
from conftest import DOMAIN


@pytest.fixture(scope="module")
def secrets(node, accounts):
    """All that must not be seen, by what it is."""
    found = {f"password of {jid}": password for jid, password in accounts.passwords.items()}
    for file in node.ok("find /etc/credstore -type f").split():
        for line in node.read(file).splitlines():
            if len(line.strip()) >= 8:
                found[file] = line.strip()
    key = node.read(f"/etc/mongooseim/{DOMAIN}.key").splitlines()
    found["private key"] = key[1]
    assert any(file.startswith("/etc/credstore/") for file in found)
    assert any(name.startswith("password of") for name in found)
    return found


def visible(secrets, text):
    return [name for name, secret in secrets.items() if secret in text]


def test_command_lines(node, secrets, seen_processes):
    """All command lines that were seen since the tests began: playbooks, restarts, upgrade and roll-back."""
    seen = node.read(seen_processes)
    assert "monktalk" in seen
    assert visible(secrets, seen) == []


def test_environments(node, secrets):
    for unit in ("mongooseim.service", "mongooseim-auth.service"):
        for pid in node.processes(unit):
            assert visible(secrets, node.ok(f"tr '\\0' '\\n' < /proc/{pid}/environ")) == []
    assert visible(secrets, node.ok("systemctl show '*.service'")) == []


def test_journal(node, secrets):
    assert visible(secrets, node.ok("journalctl --no-pager -o export -a", timeout=120)) == []


def test_log_files(node, secrets):
    logs = node.ok("find /var/log -type f ! -path '*/journal/*' -exec zcat -f {} +", timeout=120)
    assert "monktalk" in logs
    assert visible(secrets, logs) == []


def test_ansible_output(run_directory, secrets):
    """Everything that Ansible has printed about this host, differences included."""
    log = run_directory / "ansible.log"
    if not log.exists():
        pytest.skip("this run was not started by Molecule, so there is no log of it")
    text = log.read_text(encoding="utf-8")
    assert "+++ after" in text
    assert visible(secrets, text) == []
    assert not re.search(r"BEGIN [A-Z ]*PRIVATE KEY-----\s*[A-Za-z0-9+/=]{20}", text)


def test_files_that_everybody_may_read(node, secrets):
    """Configuration, units and what is readable below /etc."""
    readable = node.ok("find /etc /usr/local -type f -perm -o+r -size -1M -exec cat {} + | tr -d '\\0'", timeout=120)
    assert visible(secrets, readable) == []

"""The host reboots, by itself and by loss of power, and everything is back without anybody's help."""

from __future__ import annotations

import subprocess

from conftest import DOMAIN

from checks.waiting import until

UNITS = ["mongooseim.service", "mongooseim-auth.service", "postgresql@17-main.service", "nftables.service"]


def boot_id(node):
    """Tells one boot from the next; empty while the host cannot be reached."""
    try:
        return node.run(
            "systemctl show --property=UserspaceTimestampMonotonic --value; stat -c %Y /run/systemd", timeout=10
        ).stdout
    except subprocess.TimeoutExpired:
        return ""


def test_reboot(node, people, accounts, alice, bob):
    writer = people.login(alice, accounts.passwords[alice])
    writer.befriends(bob)
    writer.publishes_vcard("Alice after the reboot")
    writer.says(bob, "read this after the reboot")
    assert writer.answers()
    writer.leaves()
    before = boot_id(node)
    assert before

    node.run("systemctl reboot")
    until(lambda: boot_id(node) not in {"", before}, "another boot", 120, pause=0.5)
    until(lambda: node.run("systemctl is-system-running").stdout.strip() == "running", "everything to run", 120, 0.5)
    for unit in UNITS:
        node.wait_active(unit)

    reader = people.login(bob, accounts.passwords[bob], port=80, direct=True)
    reader.hears(alice, "read this after the reboot")
    assert reader.vcard_of(alice) == "Alice after the reboot"
    reader.leaves()
    writer = people.login(alice, accounts.passwords[alice])
    assert bob in writer.roster()
    writer.leaves()
    assert DOMAIN in node.ok("mongooseimctl registered_vhosts")


def test_the_journal_of_the_boot_before_is_kept(node):
    assert len(node.ok("journalctl --list-boots --no-pager --quiet").splitlines()) >= 2


def test_the_firewall_is_back(node):
    from checks.ports import scan

    assert scan(node.address).open == {22, 80, 5222}

"""Developers of svil become the service user, and can then do what their work needs, and no more."""

from __future__ import annotations

import shlex

import pytest

DEVELOPER = "lab-developer"
CONFIGURATION = "/etc/mongooseim/mongooseim.toml"


@pytest.fixture(scope="module")
def developer(node):
    """Somebody in the group of developers; becomes mongooseim as they do, and runs a command of the shell."""
    node.run(f"userdel --remove {DEVELOPER}")
    node.ok(f"useradd --create-home --groups developers --shell /bin/bash {DEVELOPER}")

    def become_and_run(command):
        return node.as_user(DEVELOPER, f"sudo -n -u mongooseim -i sh -c {shlex.quote(command)}")

    yield become_and_run
    node.ok(f"userdel --remove {DEVELOPER} 2>/dev/null")


def ok(result):
    assert result.status == 0, f"{result.command}: {result.output}"
    return result.stdout


def test_become_the_service_user(developer):
    assert ok(developer("whoami; pwd")).split() == ["mongooseim", "/var/lib/mongooseim"]


def test_others_do_not(node):
    node.ok("useradd --create-home lab-stranger")
    try:
        assert node.as_user("lab-stranger", "sudo -n -u mongooseim -i true").status != 0
    finally:
        node.ok("userdel --remove lab-stranger 2>/dev/null")


def test_developers_do_not_become_root(node, developer):
    assert node.as_user(DEVELOPER, "sudo -n true").status != 0
    assert developer("sudo -n true").status != 0


def test_edit_and_reload(node, developer):
    before = node.read(CONFIGURATION)
    try:
        ok(developer(f"sed -i 's/^loglevel = .*/loglevel = \"debug\"/' {CONFIGURATION}"))
        assert 'loglevel = "debug"' in node.read(CONFIGURATION)
        ok(developer("mongooseimctl check_config && mongooseimctl reload_local"))
        assert "debug" in ok(developer("mongooseimctl get_loglevel"))
    finally:
        node.write(CONFIGURATION, before + "\n")
        node.ok("mongooseimctl reload_local")


def test_edit_an_authenticator(developer):
    ok(developer("echo '# nothing' > /etc/mongooseim/externals-auth/developer.example.py"))
    ok(developer("rm /etc/mongooseim/externals-auth/developer.example.py"))


@pytest.mark.parametrize("unit", ["mongooseim", "mongooseim-auth"])
@pytest.mark.parametrize("verb", ["reload", "restart", "stop", "start"])
def test_handle_the_units(node, developer, unit, verb):
    ok(developer(f"systemctl {verb} {unit}"))
    assert node.is_active(f"{unit}.service") == (verb != "stop")


def test_other_units_are_not_theirs(node, developer):
    assert developer("systemctl restart ssh").status != 0
    assert developer("systemctl stop nftables").status != 0
    assert node.is_active("nftables.service")


def test_read_the_journal_and_the_log(developer):
    assert "monktalk" in ok(developer("journalctl -u mongooseim -n 200 --no-pager"))
    assert ok(developer("tail -n 5 /var/log/mongooseim/ejabberd.log"))


def test_accounts_by_the_command_line(developer):
    assert ok(developer("mongooseimctl connected_users_number")).strip().isdigit()


def test_look_into_the_database(developer):
    assert ok(developer("psql -qtAc 'select 1' xmppsvil")).strip() == "1"


def test_the_release_is_not_theirs(developer):
    assert developer("touch /usr/lib/mongooseim/current/x").status != 0
    assert developer("ln -sfn /tmp /usr/lib/mongooseim/current").status != 0

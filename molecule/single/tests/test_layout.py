"""Paths, names, owners and modes: what operators and programs already depend on."""

from __future__ import annotations

import re

import pytest
from conftest import DATABASE, DOMAIN


def test_service_user(host):
    user = host.user("mongooseim")
    assert (user.uid, user.gid) == (690, 690)
    assert user.home == "/var/lib/mongooseim"
    assert user.shell == "/bin/bash"
    assert user.password[:1] in {"!", "*"}


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/mongooseim", "mongooseim", "mongooseim", 0o750),
        ("/etc/mongooseim/mongooseim.toml", "mongooseim", "mongooseim", 0o640),
        ("/etc/mongooseim/auth.toml", "mongooseim", "mongooseim", 0o640),
        ("/etc/mongooseim/externals-auth", "mongooseim", "mongooseim", 0o750),
        (f"/etc/mongooseim/externals-auth/{DOMAIN}.py", "mongooseim", "mongooseim", None),
        ("/usr/lib/mongooseim", "root", "root", 0o755),
        ("/usr/lib/mongooseim/releases", "root", "root", 0o755),
        ("/usr/local/bin/mongooseimctl", "root", "root", 0o755),
        ("/var/lib/mongooseim", "mongooseim", "mongooseim", 0o750),
        ("/var/log/mongooseim", "mongooseim", "mongooseim", None),
        ("/var/log/mongooseim/ejabberd.log", "mongooseim", "mongooseim", 0o640),
        ("/etc/credstore", "root", "root", 0o700),
    ],
)
def test_files(host, path, owner, group, mode):
    file = host.file(path)
    assert file.exists
    assert (file.user, file.group) == (owner, group)
    if mode is not None:
        assert oct(file.mode) == oct(mode)
    assert not file.mode & 0o002


@pytest.mark.parametrize(
    ("name", "group", "mode"),
    [
        (f"{DOMAIN}.cer", None, 0o644),
        (f"{DOMAIN}.key", "mongooseim", 0o640),
        ("fullchain_key.pem", "mongooseim", 0o640),
        ("ca.cer", None, 0o644),
    ],
)
def test_certificate_files(node, name, group, mode):
    owner, found_group, found_mode = node.ok(f"stat -L -c '%U %G %a' /etc/mongooseim/{name}").split()
    assert owner == "root"
    assert group in {None, found_group}
    assert found_mode == f"{mode:o}"


def test_certificate_is_for_the_public_name(node):
    names = node.ok(f"openssl x509 -in /etc/mongooseim/{DOMAIN}.cer -noout -ext subjectAltName")
    assert f"DNS:{DOMAIN}" in names


def test_release_is_a_link_into_the_releases(node):
    target = node.ok("readlink /usr/lib/mongooseim/current")
    assert re.fullmatch(r"(/usr/lib/mongooseim/)?releases/[0-9][\w.]*-[0-9a-f]{8}", target)


def test_service_user_cannot_change_the_release(node):
    assert node.ok("cd / && runuser -u mongooseim -- find /usr/lib/mongooseim/ -writable -not -type l") == ""


def test_credentials_are_roots_alone(node):
    assert node.ok("find /etc/credstore -type f ! -perm 0600 -o ! -user root") == ""
    assert node.run("runuser -u mongooseim -- ls /etc/credstore").status != 0


def test_nothing_of_ours_can_be_written_by_everybody(node):
    places = "/etc/mongooseim /usr/lib/mongooseim /var/lib/mongooseim /var/log/mongooseim /etc/systemd/system"
    assert node.ok(f"find {places} -perm -o+w ! -type l") == ""


def test_basic_directories_keep_their_modes(host):
    assert [oct(host.file(path).mode) for path in ("/etc", "/usr", "/usr/lib", "/usr/local/bin", "/var/lib")] == [
        oct(0o755)
    ] * 5


def test_configuration_is_valid(node):
    assert node.run("mongooseimctl check_config").status == 0
    assert node.run("mongooseimctl check_config /etc/mongooseim/mongooseim.toml").status == 0


@pytest.mark.parametrize("user", ["root", "mongooseim"])
def test_mongooseimctl_works_for(node, user):
    result = node.as_user(user, "mongooseimctl status && mongooseimctl registered_vhosts")
    assert result.status == 0, result.output
    assert DOMAIN in result.lines


def test_mongooseimctl_is_for_nobody_else(node):
    assert node.run("runuser -u nobody -- mongooseimctl connected_users").status != 0


def test_database(node):
    query = "select pg_get_userbyid(datdba), pg_encoding_to_char(encoding) from pg_database"
    assert node.sql(DATABASE, f"{query} where datname = current_database()") == "mongooseim|UTF8"
    assert node.sql(DATABASE, "show data_checksums") == "on"


def test_schema_is_the_one_of_the_release(node):
    command = f"/usr/lib/mongooseim/current/bin/python -m monktalk.db current postgresql://mongooseim@/{DATABASE}"
    assert node.run(f"runuser -u mongooseim -- {command}").status == 0


def test_database_lets_nobody_else_in(node):
    assert node.run(f"runuser -u nobody -- psql -U mongooseim {DATABASE} -c 'select 1'").status != 0


def test_log_file_is_rotated(node):
    assert "/var/log/mongooseim/ejabberd.log" in node.ok("cat /etc/logrotate.d/*")
    assert node.run("logrotate --debug /etc/logrotate.conf").status == 0


def test_rotation_loses_no_line(node):
    node.ok("logrotate --force /etc/logrotate.conf")
    node.ok("mongooseimctl reload_local")
    assert node.ok("cat /var/log/mongooseim/ejabberd.log")


def test_journal_is_kept_on_disk(node):
    assert node.ok("ls /var/log/journal/$(cat /etc/machine-id)/system.journal")

"""Members die. What was acknowledged is there afterwards, and everything comes back without anybody's help."""

from __future__ import annotations

import contextlib
import subprocess
import sys

from checks.playbooks import PROJECT
from checks.waiting import until


def lab(*words):
    """The lab's own tool: power and cables of the hosts."""
    subprocess.run([sys.executable, "-m", "lab", *words], check=True, cwd=PROJECT / "molecule/shared", timeout=180)


@contextlib.contextmanager
def without_power(node):
    lab("power", node.name, "off")
    try:
        yield
    finally:
        lab("power", node.name, "on")


def goes_on(writer):
    """Wait until something is acknowledged that was sent from now on."""
    known = len(writer.acknowledged)
    until(lambda: len(writer.acknowledged) > known + 20, "rows to be written again", 60)


def test_the_leaders_server_is_killed(complete, writer, measured):
    leader = complete.leader()
    leader.ok("pkill -KILL --oldest -u postgres -x postgres")
    now = complete.leader(besides=leader.name)
    goes_on(writer)
    assert now.name != leader.name
    assert writer.lost() == []
    measured("longest interruption", f"{writer.longest_interruption():.1f} s")
    assert writer.longest_interruption() < 30
    complete.wait_complete()
    assert complete.leader().name == now.name


def test_the_leaders_host_loses_its_power(complete, writer, measured):
    leader = complete.leader()
    with without_power(leader):
        now = complete.leader(besides=leader.name)
        goes_on(writer)
        assert writer.lost() == []
        measured("longest interruption", f"{writer.longest_interruption():.1f} s")
        assert writer.longest_interruption() < 30
        status = now.run("dbcl check", timeout=120)
        assert status.status != 0
        assert f"{leader.name} " in status.stdout
    # It was the leader, and follows now.
    complete.wait_complete()
    assert complete.leader().name == now.name


def test_a_standbys_host_loses_its_power(complete, writer, measured):
    leader, standby = complete.leader(), complete.standbys()[0]
    with without_power(standby):
        goes_on(writer)
        until(lambda: standby.name not in complete.table(leader.name), "the standby to be missed", 60)
        goes_on(writer)
        assert writer.lost() == []
        measured("longest interruption", f"{writer.longest_interruption():.1f} s")
        assert complete.leader(besides=standby.name).name == leader.name


def test_a_leader_that_is_cut_off_acknowledges_nothing_that_is_lost(complete, writer, measured):
    leader = complete.leader()
    lab("link", leader.name, "down")
    try:
        now = complete.leader(besides=leader.name)
        goes_on(writer)
    finally:
        lab("link", leader.name, "up")
    assert writer.lost() == []
    measured("longest interruption", f"{writer.longest_interruption():.1f} s")
    complete.wait_complete()
    assert complete.leader().name == now.name


def test_without_a_standby_nothing_is_acknowledged(complete, writer):
    standbys = complete.standbys()
    for node in standbys:
        node.ok("systemctl stop dbcl-guard patroni")
    known = len(writer.acknowledged)
    leader = complete.leader()
    result = leader.run("dbcl check", timeout=120)
    for node in standbys:
        node.ok("systemctl start patroni dbcl-guard")
    assert result.status == 2
    assert "0 of 1 synchronous standbys stream" in result.stdout
    goes_on(writer)
    assert known <= len(writer.acknowledged)
    assert writer.lost() == []


def test_a_member_that_has_lost_everything_comes_back_by_the_playbook(complete, writer, playbooks):
    standby = complete.standbys()[-1]
    standby.ok(
        "systemctl stop dbcl-guard patroni etcd && rm -rf /var/lib/etcd/dbcl-preprod /var/lib/postgresql/17/dbcl-preprod"
    )
    playbooks.run("playbooks/database.yml", tags="dbcl")
    complete.wait_complete()
    assert writer.lost() == []

"""What operators do: switch over, change a setting. Nobody loses anything."""

from __future__ import annotations


def test_switchover_playbook(complete, writer, playbooks, measured):
    before = complete.leader().name
    output = playbooks.run("playbooks/dbcl_switchover.yml")
    now = complete.leader().name
    assert now != before
    assert f"{now} leads dbcl-preprod" in output
    assert writer.lost() == []
    measured("longest interruption", f"{writer.longest_interruption():.1f} s")


def test_switchover_refuses_what_is_no_standby(complete, playbooks):
    leader = complete.leader().name
    output = playbooks.run("playbooks/dbcl_switchover.yml", expect=2, candidate=leader)
    assert f'"{leader}" cannot become the leader' in output
    assert complete.leader().name == leader


def test_settings_that_need_a_restart_come_standby_by_standby(complete, writer, playbooks, measured):
    leader = complete.leader().name
    playbooks.run("playbooks/database.yml", tags="dbcl", dbcl_max_connections="210")
    assert complete.leader().name == leader
    for node in complete:
        assert node.ok("cd / && runuser -u postgres -- psql -XqtAc 'show max_connections'") == "210"
    assert writer.lost() == []
    measured("longest interruption", f"{writer.longest_interruption():.1f} s")

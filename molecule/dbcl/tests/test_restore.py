"""The way back to a time before a mistake."""

from __future__ import annotations


def count(members):
    return members.sql("select count(*), max(id) from precious")


def test_restore_needs_a_confirmation(complete, playbooks):
    leader = complete.leader().name
    output = playbooks.run("playbooks/dbcl_restore.yml", expect=2, restore_time="latest")
    assert "confirm=dbcl-preprod" in output
    assert complete.leader().name == leader


def test_restore_refuses_a_time_without_backup(complete, playbooks):
    playbooks.run(
        "playbooks/dbcl_restore.yml", expect=2, restore_time="'2020-01-01 00:00:00+00'", confirm="dbcl-preprod"
    )
    assert complete.leader()


def test_restore_to_a_time(complete, playbooks, measured):
    complete.sql("create table precious (id integer primary key); insert into precious select generate_series(1, 1000)")
    moment = complete.sql("select pg_sleep(1.1); select date_trunc('milliseconds', now())::text; select pg_sleep(1.1)")
    complete.sql("delete from precious where id > 10; insert into precious values (5000)")
    assert count(complete) == "11|5000"

    playbooks.run("playbooks/dbcl_restore.yml", restore_time=f"'{moment.strip()}'", confirm="dbcl-preprod")

    assert count(complete) == "1000|1000"
    for node in complete:
        assert node.ok("dbcl check", timeout=120) == "all is well"
    measured("restored to", moment.strip())
    # It is a cluster like the one before.
    complete.sql("insert into precious values (5001)")
    assert len(complete.standbys()) == 2

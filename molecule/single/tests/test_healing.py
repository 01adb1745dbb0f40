"""Whatever is killed comes back, and the journal says so."""

from __future__ import annotations

import pytest
from conftest import DOMAIN

from checks.waiting import until

SERVICES = ["mongooseim.service", "mongooseim-auth.service"]


def gone(node, pid):
    return node.run(f"test -d /proc/{pid}").status != 0


@pytest.mark.parametrize("unit", SERVICES)
def test_each_process_of_our_services(node, unit, knocking, login, alice):
    node.wait_active(unit)
    count = len(node.processes(unit))
    with knocking(killed=True):
        for index in range(count):
            victims = until(lambda: len(found := node.processes(unit)) >= count and found, f"{unit} to be complete")
            cursor = node.cursor()
            node.ok(f"kill -KILL {victims[index]}")
            until(lambda: gone(node, victims[index]), "the process to be gone")  # noqa: B023
            node.wait_active(unit)
            until(lambda: len(node.processes(unit)) >= count, f"{unit} to be complete again")
            until(
                lambda: any(word in node.journal(cursor, unit) for word in ("KILL", "killed", "signal 9", "worker")),  # noqa: B023
                "the end of the process to be logged",
            )
            assert login(alice).answers()


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_that_hangs(node, unit, knocking, login, alice):
    """A stopped process answers nobody: the watchdog ends it."""
    node.wait_active(unit)
    before = node.processes(unit)
    cursor = node.cursor()
    with knocking(killed=True):
        node.ok(f"kill -STOP {' '.join(map(str, before))}")
        until(lambda: all(gone(node, pid) for pid in before), "the watchdog to end it", 90, pause=0.5)
        node.wait_active(unit)
    assert "watchdog" in node.journal(cursor, unit).lower()
    assert login(alice).answers()


@pytest.mark.parametrize("unit", ["systemd-journald.service", "ssh.service", "postgresql@17-main.service"])
def test_what_our_services_stand_on(node, unit, login, alice):
    node.wait_active(unit)
    pid = node.main_pid(unit)
    cursor = node.cursor()
    node.ok(f"kill -KILL {pid}")
    until(lambda: node.main_pid(unit) not in {0, pid}, f"{unit} to have another process", 60)
    node.wait_active(unit)
    # PostgreSQL's process is no child of systemd, which does not see what has ended it, but says that it starts it again.
    said = ("status=9/KILL", f"{unit}: Scheduled restart job")
    until(lambda: any(text in node.journal(cursor) for text in said), "the end of the process to be logged")

    # The database has been away for a moment: the server says so to nobody who is already there, and to newcomers
    # until its next attempt.
    def can_log_in():
        try:
            return login(alice).answers()
        except Exception:  # noqa: BLE001 - any refusal means: not yet
            return False

    until(can_log_in, "logins to work again", 60, pause=1)


def test_a_lost_database_process(node, login, alice, bob):
    """PostgreSQL restarts all sessions when one is killed; a message sent meanwhile is not lost."""
    login(alice)  # a server that has just lost its database connects to it again when somebody needs it
    cursor = node.cursor()

    def sessions():
        return node.run("pgrep -u postgres -f 'mongooseim xmppsvil'").stdout.split()

    node.ok(f"kill -KILL {until(sessions, 'the server to be connected')[0]}")
    until(lambda: node.run("runuser -u mongooseim -- psql -qtAc 'select 1' xmppsvil").status == 0, "the database")
    assert node.journal(cursor)

    def works():
        try:
            login(alice).says(bob, "after the crash")
            login(bob).hears(alice, "after the crash", 5)
        except Exception:  # noqa: BLE001 - any refusal means: not yet
            return False
        return True

    until(works, "messages to arrive", 60, pause=1)


def test_the_journal_is_complete_and_the_log_file_too(node):
    def opened(text):
        return {line.partition(" session_opened ")[2] for line in text.splitlines() if " session_opened " in line}

    in_file = opened(node.read("/var/log/mongooseim/ejabberd.log"))
    assert any(line.startswith(f"jid=alice@{DOMAIN}/") for line in in_file)
    assert in_file <= opened(node.ok("journalctl -u mongooseim -o cat --no-pager"))
    assert node.ok("systemctl --failed --plain --no-legend") == ""

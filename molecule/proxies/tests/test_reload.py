"""A reload loses no connection, and forgets nothing."""

from __future__ import annotations

from conftest import ABSENT, NODES

from checks.waiting import until


def test_a_reload_drops_no_connection_and_refuses_none(proxies, clients, coming):
    before = clients(proxies[0].address, 20)
    with coming(proxies[0].address) as loop:
        for _ in range(5):
            proxies[0].ok("systemctl reload haproxy")
            served = loop.served
            until(lambda: loop.served > served + 5 or loop.failures, "clients to be served")  # noqa: B023
    assert loop.failures == []
    assert all(client.answers() for client in before)


def test_what_is_drained_or_down_stays_so_in_a_reload(proxies, clients, views):
    try:
        proxies[0].ok(f"joinproxy drain {NODES[0]}")
        proxies[0].ok("systemctl reload haproxy")
        states = views.states(proxies[0])
        assert (states[NODES[0]], states[ABSENT]) == ("DRAIN", "DOWN")
        assert {client.node for client in clients(proxies[0].address, 10)} == {NODES[1]}
    finally:
        proxies[0].ok(f"joinproxy undrain {NODES[0]} --wait 20")


def test_what_is_drained_stays_so_when_haproxy_is_killed(proxies, clients, views):
    try:
        proxies[0].ok(f"joinproxy drain {NODES[0]}")
        pid = proxies[0].main_pid("haproxy.service")
        proxies[0].ok("systemctl kill --signal=KILL haproxy.service")
        until(lambda: proxies[0].main_pid("haproxy.service") not in {0, pid}, "HAProxy to be started again")
        proxies[0].wait_active("haproxy.service")
        until(lambda: proxies[0].run("joinproxy status").status == 0, "HAProxy to answer")
        assert views.states(proxies[0])[NODES[0]] == "DRAIN"
    finally:
        proxies[0].ok(f"joinproxy undrain {NODES[0]} --wait 20")


def test_a_mistake_is_refused_and_nothing_changes(proxies, clients):
    before = clients(proxies[0].address, 4)
    good = proxies[0].read("/etc/haproxy/haproxy.cfg")
    cursor = proxies[0].cursor()
    try:
        proxies[0].write("/etc/haproxy/haproxy.cfg", good + "\n    mistake\n")
        assert proxies[0].run("systemctl reload haproxy").status != 0
        proxies[0].wait_logged(cursor, "unknown keyword 'mistake'", "haproxy.service")
        assert all(client.answers() for client in before + clients(proxies[0].address, 4))
    finally:
        proxies[0].write("/etc/haproxy/haproxy.cfg", good + "\n")
        proxies[0].ok("systemctl reload haproxy")

"""A node dies: its clients are told at once, and find another one."""

from __future__ import annotations

from conftest import NODES

from checks.waiting import until


def of_first(connected):
    chosen = [client for client in connected if client.node == NODES[0]]
    assert chosen
    return chosen, [client for client in connected if client.node != NODES[0]]


def test_clients_of_a_service_that_was_killed_come_to_another_node(proxies, nodes, clients, views):
    hit, others = of_first(clients(proxies[0].address, 10))
    nodes[0].ok("systemctl mask --runtime lab-service.service; systemctl kill --signal=KILL lab-service.service")
    try:
        for client in hit:
            client.ends(5)
        assert {client.node for client in clients(proxies[0].address, 10)} == {NODES[1]}
        assert all(client.answers() for client in others)
    finally:
        nodes[0].ok("systemctl unmask --runtime lab-service.service; systemctl start lab-service.service")
    views.wait(NODES[0], "UP")


def test_a_node_that_hangs_is_taken_out(proxies, nodes, clients, views):
    hit, others = of_first(clients(proxies[0].address, 10))
    nodes[0].ok("systemctl kill --signal=STOP lab-service.service")
    try:
        for client in hit:
            client.ends(15)
        assert {client.node for client in clients(proxies[0].address, 10)} == {NODES[1]}
        assert all(client.answers() for client in others)
    finally:
        nodes[0].ok("systemctl kill --signal=CONT lab-service.service")
    views.wait(NODES[0], "UP")


def test_nobody_waits_for_a_node_without_power(proxies, nodes, clients, lab, views, coming):
    hit, others = of_first(clients(proxies[0].address, 10))
    with coming(proxies[0].address) as loop:
        lab("power", NODES[0], "off")
        for client in hit:
            client.ends(15)
        views.wait(NODES[0], "DOWN")
        served = loop.served
        until(lambda: loop.served > served + 20, "clients to be served")
    assert all(client.answers() for client in others)
    # Who was connected to it at that moment lost the connection; nobody who came afterwards was turned away, or waits.
    assert len(loop.failures) <= 1, loop.failures
    assert "TimeoutError" not in str(loop.failures)
    lab("power", NODES[0], "on")
    views.wait(NODES[0], "UP")
    assert {client.node for client in clients(proxies[0].address, 40)} == set(NODES)


def test_clients_of_a_former_process_notice_a_node_without_power(proxies, clients, lab, views):
    hit, _ = of_first(clients(proxies[0].address, 10))
    proxies[0].ok("systemctl reload haproxy")
    lab("power", NODES[0], "off")
    try:
        for client in hit:
            client.ends(15)
    finally:
        lab("power", NODES[0], "on")
    views.wait(NODES[0], "UP")


def test_nobody_waits_for_a_node_that_was_cut_off(proxies, clients, lab, views, coming):
    """Many clients are just being connected to it when it is given up; each of them gets another node."""
    hit, others = of_first(clients(proxies[0].address, 10))
    loops = [coming(proxies[0].address) for _ in range(8)]
    for loop in loops:
        loop.__enter__()
    try:
        lab("link", NODES[0], "down")
        for client in hit:
            client.ends(15)
        views.wait(NODES[0], "DOWN")
        for loop in loops:
            served = loop.served
            until(lambda: loop.served > served + 5 or loop.failures, "clients to be served")  # noqa: B023
    finally:
        lab("link", NODES[0], "up")
        for loop in loops:
            loop.__exit__(None, None, None)
    assert "TimeoutError" not in str([loop.failures for loop in loops])
    assert all(len(loop.failures) <= 1 for loop in loops)
    assert all(client.answers() for client in others)
    views.wait(NODES[0], "UP")

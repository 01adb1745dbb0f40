"""Files, units, ports: what there is, who may read it, what it may do."""

from __future__ import annotations

import re
import socket

import pytest
import yaml

UNITS = ["haproxy.service", "joinproxy-watch.service", "keepalived.service"]


# Those that something listens on, on one of the hosts, and those that may be opened later. Not all 65,535: attempts that
# nobody answers fill the table of connections of the machine that makes them.
PORTS = [22, 80, 443, 3000, 3300, 4222, 5222, 5380, 5385, 5390, 6222, 8222, 8404]


def answers(address, port):
    """Whether anything comes back, be it a refusal."""
    try:
        socket.create_connection((address, port), timeout=0.5).close()
    except TimeoutError:
        return False
    except ConnectionRefusedError:
        pass
    return True


def exposure(host, unit):
    last = host.ok(f"systemd-analyze security --no-pager {unit}").splitlines()[-1]
    found = re.search(r"exposure level for \S+: ([\d.]+)", last)
    assert found, last
    return float(found[1])


def test_nothing_has_failed(proxies, nodes):
    for host in (*proxies, *nodes):
        assert host.ok("systemctl --failed --plain --no-legend") == ""


@pytest.mark.parametrize("unit", UNITS)
def test_units_of_the_proxies(proxies, unit):
    for proxy in proxies:
        assert proxy.ok(f"systemctl is-enabled {unit}") == "enabled"
        assert proxy.is_active(unit)
        assert proxy.property(unit, "Restart") == "always"
        assert proxy.property(unit, "NoNewPrivileges") == "yes"
        assert exposure(proxy, unit) <= 5.0


def test_clients_are_served_by_a_process_without_rights(proxies):
    for proxy in proxies:
        master = proxy.main_pid("haproxy.service")
        workers = [pid for pid in proxy.processes("haproxy.service") if pid != master]
        assert workers
        for pid in workers:
            assert proxy.ok(f"stat -c %U /proc/{pid}") == "haproxy"
            assert "CapEff:\t0000000000000000" in proxy.read(f"/proc/{pid}/status")


def test_who_may_command_haproxy(proxies):
    for proxy in proxies:
        assert proxy.ok("stat -c '%a %U' /run/haproxy/admin.sock /run/haproxy-master.sock") == "600 root\n600 root"
        assert proxy.ok("stat -c '%a %U' /run/joinproxy") == "700 root"


def test_ports_of_the_proxies(proxies):
    for proxy in proxies:
        assert {port for port in PORTS if answers(proxy.address, port)} == {22, 80, 5222}


def test_figures_are_for_the_host_itself(proxies):
    for proxy in proxies:
        assert "127.0.0.1:8404" in proxy.ok("ss -Hltn sport = :8404")
        assert "haproxy_server_status" in proxy.ok(
            "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:8404/metrics\").read().decode())'"
        )


def test_the_log_says_who_came_and_where_to(proxies, clients):
    cursor = proxies[0].cursor()
    (client,) = clients(proxies[0].address)
    assert client.answers()
    client.close()
    proxies[0].wait_logged(cursor, f"{client.local[0]}:{client.local[1]}")
    line = next(line for line in proxies[0].journal(cursor).splitlines() if f":{client.local[1]} " in line)
    assert " joinproxy[" in line
    assert f"xmpp/{client.node}" in line


def test_the_unit_of_the_bus(nodes):
    for node in nodes:
        assert node.ok("systemctl is-enabled mongooseim-bus.service") == "enabled"
        assert node.is_active("mongooseim-bus.service")
        assert node.property("mongooseim-bus.service", "Restart") == "always"
        assert exposure(node, "mongooseim-bus.service") <= 2.0
        assert node.ok("systemctl is-enabled nats-server.service || true") == "masked"
        assert node.ok(f"stat -c %U /proc/{node.main_pid('mongooseim-bus.service')}") == "nats"


def test_the_bus_listens_for_other_hosts_on_the_port_of_routes_only(nodes):
    for node in nodes:
        listeners = node.ok("ss -Hltnp").splitlines()
        found = {line.split()[3] for line in listeners if "nats-server" in line}
        assert found == {"127.0.0.1:4222", "127.0.0.1:8222", "*:6222"}


def test_secrets_are_for_those_who_need_them(nodes, proxies, run_directory, sources):
    secrets = yaml.safe_load((run_directory / "molecule/inventory/proxies.yml").read_text("utf-8"))["all"]["vars"]
    passwords = [secrets["vault_bus_password"], secrets["vault_bus_route_password"]]
    log = (run_directory / "ansible.log").read_text("utf-8", errors="replace")
    for password in passwords:
        assert password not in log
    for node in nodes:
        assert node.ok("stat -c '%a %U:%G' /etc/mongooseim-bus /etc/mongooseim-bus/nats.conf") == (
            "750 root:nats\n640 root:nats"
        )
        assert node.ok("stat -c '%a %U:%G' /etc/mongooseim-bus/node.key") == "640 root:nats"
        assert node.ok("stat -c '%a %U:%G' /etc/credstore/mongooseim.bus-password") == "600 root:root"
        for password in passwords:
            assert password not in node.ok("journalctl --no-pager; ps axww -o args")
    for proxy in proxies:
        assert proxy.run(f"grep -rlF -e {passwords[0]} -e {passwords[1]} /etc").stdout == ""

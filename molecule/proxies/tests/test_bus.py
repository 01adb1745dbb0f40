"""The nodes' buses are one, nobody else gets in, and they find each other again."""

from __future__ import annotations

import json
import shlex

import pytest
from conftest import NODES

from checks.waiting import until

_TALK = """
import json, socket, sys
wish = json.load(sys.stdin)
connection = socket.create_connection(("127.0.0.1", 4222), timeout=10)
lines = connection.makefile("rb")
lines.readline()
credentials = {"user": "mongooseim", "pass": wish["password"]} if wish["password"] else {}
connection.sendall(f"CONNECT {json.dumps({'verbose': False, 'pedantic': False, **credentials})}\\r\\n".encode())
connection.sendall(b"".join(line.encode() + b"\\r\\n" for line in wish["lines"]) + b"PING\\r\\n")
while (line := lines.readline().strip().decode()) and not line.startswith("-ERR"):
    print(line, flush=True)
    if line == "PONG" and not wish["listen"]:
        break
    if line.startswith("MSG"):
        print(lines.readline().strip().decode(), flush=True)
        wish["listen"] -= 1
        if not wish["listen"]:
            break
print(line)
"""


@pytest.fixture(scope="session")
def password(nodes):
    return nodes[0].read("/etc/credstore/mongooseim.bus-password").strip()


@pytest.fixture
def talk():
    """Say something to the bus of a node, and tell what it answers."""

    def say(node, password, *lines, listen=0, unit=None):
        wish = json.dumps({"password": password, "lines": lines, "listen": listen})
        command = f"python3 -c {shlex.quote(_TALK)}"
        if unit:
            node.ok(f"cat > /run/{unit}.in", wish)
            files = f"-p StandardInput=file:/run/{unit}.in -p StandardOutput=truncate:/run/{unit}.out"
            return node.ok(f"systemd-run --quiet --collect --unit={unit} {files} {command}")
        return node.run(command, wish).stdout.splitlines()

    return say


def page(node, name):
    read = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8222/{name}').read().decode())"
    return json.loads(node.ok(f'python3 -c "{read}"'))


def neighbours(node):
    return {route["remote_name"] for route in page(node, "routez")["routes"]}


def connected(nodes):
    for node, other in zip(nodes, reversed(nodes), strict=True):
        until(lambda: neighbours(node) == {other.name}, f"{node.name} to have a route to {other.name}", 30)  # noqa: B023


def test_the_nodes_are_connected(nodes):
    connected(nodes)
    for node in nodes:
        facts = page(node, "varz")
        assert facts["server_name"] == node.name
        assert facts["cluster"]["name"] == "preprod"
        assert facts["max_payload"] == 8 << 20
        assert "jetstream" not in facts or facts["jetstream"] == {}


def passes(nodes, password, talk):
    """Whether what is said on one node is heard on the other one, in the order in which it was said."""
    first, second = nodes
    words = [f"word-{number}" for number in range(200)]
    talk(second, password, "SUB a 1", "SUB b 2", listen=len(words), unit="lab-listener")
    until(lambda: page(second, "subsz?subs=1")["num_subscriptions"] and _interested(second), "the listener")
    until(lambda: _known(first), "the other node to know of it")
    said = [line for number, word in enumerate(words) for line in (f"PUB {'ab'[number % 2]} {len(word)}", word)]
    assert "PONG" in talk(first, password, *said)
    until(lambda: not second.is_active("lab-listener.service"), "the listener to have heard everything")
    return [line for line in second.read("/run/lab-listener.out").splitlines() if line.startswith("word-")] == words


def _interested(node):
    return {"a", "b"} <= {each["subject"] for each in page(node, "subsz?subs=1").get("subscriptions_list", [])}


def _known(node):
    return {"a", "b"} <= {
        subject for route in page(node, "routez?subs=1")["routes"] for subject in route.get("subscriptions_list", [])
    }


def test_a_message_arrives_on_the_other_node_in_order_whatever_the_subject(nodes, password, talk):
    assert passes(nodes, password, talk)


@pytest.mark.parametrize("wrong", ["", "wrong"])
def test_a_worker_without_the_password_is_refused(nodes, talk, wrong):
    assert "-ERR 'Authorization Violation'" in talk(nodes[0], wrong, "SUB a 1")


_ROUTE = """
import json, socket, ssl, sys
wish = json.load(sys.stdin)
context = ssl.create_default_context(cafile=wish["ca"])
if wish["certificate"]:
    context.load_cert_chain(wish["certificate"], wish["key"])
connection = socket.create_connection((wish["address"], 6222), timeout=10)
try:
    secure = context.wrap_socket(connection, server_hostname=wish["address"])
    print(secure.recv(4096).split()[0].decode())
    secure.sendall(f"CONNECT {json.dumps({'user': 'route', 'pass': wish['password'], 'cluster': 'preprod'})}\\r\\n".encode())
    said = b""
    while part := secure.recv(4096):
        said += part
        if b"Authorization" in said or b"PING" in said:
            break
    print(said.decode(errors="replace"))
except (OSError, ssl.SSLError) as error:
    print(f"refused: {error}")
"""
_OWN = {
    "ca": "/etc/mongooseim-bus/ca.crt",
    "certificate": "/etc/mongooseim-bus/node.crt",
    "key": "/etc/mongooseim-bus/node.key",
}


def route(nodes, **wish):
    """Come from one node to the port of routes of the other one."""
    wish = {**_OWN, "address": nodes[1].address, "password": "wrong", **wish}
    return nodes[0].ok(f"python3 -c {shlex.quote(_ROUTE)}", json.dumps(wish))


def test_a_node_with_a_wrong_password_is_refused(nodes):
    cursor = nodes[1].cursor()
    assert "Authorization Violation" in route(nodes)
    nodes[1].wait_logged(cursor, "authentication error", "mongooseim-bus.service")


def test_a_node_without_a_certificate_is_refused(nodes):
    cursor = nodes[1].cursor()
    assert "refused" in route(nodes, certificate="")
    nodes[1].wait_logged(cursor, "client didn't provide a certificate", "mongooseim-bus.service")


def test_a_certificate_of_another_authority_is_refused(nodes):
    nodes[0].ok(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=xmpp-be-preprod01"
        " -addext subjectAltName=DNS:xmpp-be-preprod01 -keyout /run/other.key -out /run/other.crt"
    )
    cursor = nodes[1].cursor()
    assert "refused" in route(nodes, certificate="/run/other.crt", key="/run/other.key")
    nodes[1].wait_logged(cursor, "certificate signed by unknown authority", "mongooseim-bus.service")


def test_a_mistake_in_the_configuration_is_refused(nodes):
    good = nodes[0].read("/etc/mongooseim-bus/nats.conf")
    try:
        nodes[0].write("/etc/mongooseim-bus/nats.conf", good + "\nmistake: {\n")
        assert nodes[0].run("systemctl reload mongooseim-bus").status != 0
    finally:
        nodes[0].write("/etc/mongooseim-bus/nats.conf", good + "\n")
    nodes[0].ok("systemctl reload mongooseim-bus")
    connected(nodes)


@pytest.mark.parametrize("killed", NODES)
def test_it_heals_when_a_bus_was_killed(nodes, password, talk, killed):
    node = next(node for node in nodes if node.name == killed)
    pid = node.main_pid("mongooseim-bus.service")
    node.ok("systemctl kill --signal=KILL mongooseim-bus.service")
    until(lambda: node.main_pid("mongooseim-bus.service") not in {0, pid}, "the bus to be started again")
    until(
        lambda: node.run("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 4222))'").status == 0,
        "it",
    )
    connected(nodes)
    assert passes(nodes, password, talk)


def test_it_heals_when_the_network_was_cut(nodes, password, talk, lab):
    before = page(nodes[1], "routez")["num_routes"]
    assert before
    lab("link", NODES[0], "down")
    try:
        # Nobody tells: the bus itself notices that nobody answers.
        until(lambda: not page(nodes[1], "routez")["num_routes"], "the route to be given up", 30)
    finally:
        lab("link", NODES[0], "up")
    connected(nodes)
    assert passes(nodes, password, talk)

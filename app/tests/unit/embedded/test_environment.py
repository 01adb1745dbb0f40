"""The variables of `make run`."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from monktalk.embedded import environment
from monktalk.embedded.environment import InvalidVariable, NewAccount, read
from tests.support.stack import free_port

FREE_XMPP = {"MONKTALK_PORT_XMPP": "0"}


@pytest.fixture
def usual(variables) -> dict[str, str]:
    """What has to be said so that a test does not depend on which ports are free on this machine."""
    del variables["MONKTALK_DATA_DIR"]
    return variables


def test_without_variables_there_are_defaults(usual):
    found = read({**usual, "MONKTALK_BIND": "", "MONKTALK_DOMAIN": "", "MONKTALK_TLS_REQUIRED": ""})
    assert found.data == Path("var").absolute()
    assert (found.bind, found.domain, found.tls_required) == ("127.0.0.1", "localhost", True)
    assert found.accounts == (NewAccount("alice", None), NewAccount("bob", None))
    assert found.admin is None


@pytest.fixture
def taken(monkeypatch) -> set[int]:
    """Ports that nobody can have, as far as the environment can see; all others are free."""
    ports: set[int] = set()
    monkeypatch.setattr(
        environment, "_refusal", lambda _address, port: "Address already in use" if port in ports else None
    )
    return ports


@pytest.mark.parametrize(("busy", "ports"), [(set(), (5222, 80)), ({80}, (5222,))])
def test_the_old_port_is_opened_too_where_that_is_allowed(taken, busy, ports):
    taken |= busy
    found = read({})
    assert (found.ports, found.auth_port) == (ports, 3300)


def test_a_port_that_is_named_is_the_only_one(taken):
    assert read({"MONKTALK_PORT_XMPP": "5333"}).ports == (5333,)


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch, usual):
    for name, value in usual.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MONKTALK_DOMAIN", "chat.example")
    assert read().domain == "chat.example"
    assert "MONKTALK_DOMAIN" in os.environ


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_accounts_have_names_and_passwords(usual):
    found = read({**usual, "MONKTALK_ACCOUNTS": " Romeo:a:b , juliet:s3cret,", "MONKTALK_ADMIN": "Admin:x"})
    assert found.accounts == (NewAccount("romeo", "a:b"), NewAccount("juliet", "s3cret"))
    assert found.admin == NewAccount("admin", "x")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("MONKTALK_ACCOUNTS", "romeo", "MONKTALK_ACCOUNTS: write user:password"),
        ("MONKTALK_ACCOUNTS", "romeo:", "MONKTALK_ACCOUNTS: write user:password"),
        ("MONKTALK_ACCOUNTS", ":x", "MONKTALK_ACCOUNTS: : "),
        ("MONKTALK_ACCOUNTS", "ro meo:x", "MONKTALK_ACCOUNTS: ro meo: "),
        ("MONKTALK_ACCOUNTS", "romeo:\u0000x", "MONKTALK_ACCOUNTS: romeo: "),
        ("MONKTALK_ADMIN", "a:x,b:y", "MONKTALK_ADMIN names one account, as user:password"),
        ("MONKTALK_ADMIN", "a", "MONKTALK_ADMIN: write user:password"),
        ("MONKTALK_DOMAIN", "no domain", "MONKTALK_DOMAIN=no domain: "),
        ("MONKTALK_PORT_XMPP", "65536", "MONKTALK_PORT_XMPP=65536: a port is a number from 0 to 65535"),
        ("MONKTALK_PORT_XMPP", "-1", "MONKTALK_PORT_XMPP=-1: a port is a number from 0 to 65535"),
        ("MONKTALK_PORT_AUTH", "http", "MONKTALK_PORT_AUTH=http: a port is a number from 0 to 65535"),
        ("MONKTALK_PORT_AUTH", "0", "MONKTALK_PORT_AUTH=0: the port has to be named"),
        ("MONKTALK_BIND", "192.0.2.1", "MONKTALK_BIND=192.0.2.1: can't listen there: "),
        ("MONKTALK_BIND", "no address", "MONKTALK_BIND=no address: can't listen there: "),
        ("MONKTALK_TLS_REQUIRED", "yes", "MONKTALK_TLS_REQUIRED=yes: write true or false"),
    ],
)
def test_what_can_not_be_used_is_told(usual, name, value, reason):
    with pytest.raises(InvalidVariable) as caught:
        read({**usual, name: value})
    assert str(caught.value).startswith(reason)


def test_passwords_are_not_told(usual):
    with pytest.raises(InvalidVariable) as caught:
        read({**usual, "MONKTALK_ACCOUNTS": "ro meo:s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("value", "meant"), [("true", True), ("False", False)])
def test_tls_may_be_optional(usual, value, meant):
    assert read({**usual, "MONKTALK_TLS_REQUIRED": value}).tls_required is meant


# -- ports -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["XMPP", "AUTH"])
def test_a_port_in_use_is_told_with_the_variable_that_names_another(usual, name):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(InvalidVariable) as caught:
            read({**usual, f"MONKTALK_PORT_{name}": str(port)})
    assert str(caught.value) == (
        f"can't listen on 127.0.0.1 port {port}: Address already in use; set MONKTALK_PORT_{name} to another port"
    )


def test_both_can_not_have_the_same_port(usual):
    port = str(free_port())
    with pytest.raises(InvalidVariable, match="the same port is to serve clients; set MONKTALK_PORT_AUTH"):
        read({**usual, "MONKTALK_PORT_XMPP": port, "MONKTALK_PORT_AUTH": port})


def test_ipv6_is_fine(usual):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    assert read({**usual, "MONKTALK_BIND": "::1"}).bind == "::1"

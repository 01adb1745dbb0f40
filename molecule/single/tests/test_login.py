"""People log in and chat, over both ports and both kinds of TLS, right after the plain SQL insert."""

from __future__ import annotations

import socket
import ssl

import pytest
from conftest import DOMAIN

from checks.people import Refused
from checks.waiting import until

STARTTLS = {"port": 5222}
DIRECT = {"port": 80, "direct": True}


@pytest.mark.parametrize("port", [80, 5222])
@pytest.mark.parametrize("direct", [False, True], ids=["starttls", "direct"])
def test_both_ports_take_both_kinds_of_tls(login, alice, port, direct):
    assert login(alice, port=port, direct=direct).answers()


def test_messages_both_ways(login, alice, bob):
    first, second = login(alice, **STARTTLS), login(bob, **DIRECT)
    first.says(bob, "Hello Bob, über STARTTLS")
    second.hears(alice, "Hello Bob, über STARTTLS")
    second.says(alice, "Hello Alice, by direct TLS ☺")
    first.hears(bob, "Hello Alice, by direct TLS ☺")


def test_roster(login, alice, bob):
    first, second = login(alice, **STARTTLS), login(bob, **DIRECT)
    first.befriends(bob, "Bob")
    until(lambda: first.roster().get(bob) == "both", "Alice to have Bob in her roster", pause=0.5)
    until(lambda: second.roster().get(alice) == "both", "Bob to have Alice in his roster", pause=0.5)


def test_vcard(login, alice, bob):
    login(alice, **STARTTLS).publishes_vcard("Alice of the Lab")
    assert login(bob, **DIRECT).vcard_of(alice) == "Alice of the Lab"


def test_messages_wait_for_those_who_are_away(login, alice, bob):
    login(alice).says(bob, "read this later")
    login(bob).hears(alice, "read this later")


def test_wrong_password_is_refused(people, alice):
    with pytest.raises(Refused):
        people.login(alice, "not the password")


def test_unknown_account_is_refused(people):
    with pytest.raises(Refused):
        people.login(f"nobody-at-all@{DOMAIN}", "secret")


def test_nobody_logs_in_without_tls(node):
    """Before TLS the server offers STARTTLS and nothing else."""
    with socket.create_connection((node.address, 5222), timeout=10) as connection:
        connection.sendall(
            f"<stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client'"
            " xmlns:stream='http://etherx.jabber.org/streams'>".encode()
        )
        received = b""
        while b"</stream:features>" not in received:
            received += connection.recv(4096)
    assert b"<required" in received
    assert b"mechanism" not in received


@pytest.mark.parametrize(
    ("newest", "accepted"), [(ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2")]
)
def test_tls_versions(node, people, newest, accepted):
    context = people.context()
    context.maximum_version = newest
    with (
        socket.create_connection((node.address, 5222), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=DOMAIN) as encrypted,
    ):
        assert encrypted.version() == accepted


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_is_refused(node, people):
    context = people.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((node.address, 5222), timeout=10) as connection,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(connection, server_hostname=DOMAIN)


def test_operators_see_who_is_online(node, login, alice):
    login(alice)
    assert any(line.startswith(alice) for line in node.ok("mongooseimctl connected_users").splitlines())


def test_login_is_over_ipv6_too(node, people, accounts, alice):
    addresses = [address for address in node.addresses if ":" in address]
    if not addresses:
        pytest.skip("the node has no IPv6 address")
    people.address, before = addresses[0], people.address
    try:
        person = people.login(alice, accounts.passwords[alice])
        assert person.answers()
        person.leaves()
    finally:
        people.address = before

"""Row 26: finding accounts and passwords by trying (the old service's open ``/user_exists``)."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import statistics
import time
from pathlib import Path

import pytest

from tests.support.accounts import Account
from tests.support.client import SASL, decoded
from tests.support.matching import show
from tests.support.memory import KIB, growth

pytestmark = pytest.mark.one_worker("failed logins are counted by each worker for itself")

SCRAMS = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]


async def failure_of(server, account, mechanism: str) -> str:
    """What a login with a wrong password is answered."""
    client = await server.stream()
    answer = await client.sasl(account, mechanism, password="wrong")
    await client.wire.close()
    return show(answer)


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAMS])
async def test_wrong_password_and_absent_account_are_answered_alike(server, auth, account, mechanism):
    assert await failure_of(server, account("romeo"), mechanism) == await failure_of(server, auth.absent(), mechanism)


async def scram_parameters(server, user: str, mechanism: str) -> tuple[str, int]:
    """Salt and iterations that the server tells for a user."""
    client = await server.stream()
    challenge = await client.auth(mechanism, f"n,,n={user},r=abcdefghijklmnop".encode())
    assert challenge.tag == f"{{{SASL}}}challenge", show(challenge)
    fields = dict(part.split("=", 1) for part in decoded(challenge).decode().split(","))
    await client.wire.close()
    return fields["s"], int(fields["i"])


@pytest.mark.parametrize("mechanism", SCRAMS)
async def test_scram_parameters_of_absent_accounts_look_real(server, auth, account, mechanism):
    """The same salt each time, another one for each name, of the usual size and with the usual iterations."""
    romeo = account("romeo")
    await server.login(romeo)
    real_salt, real_iterations = await scram_parameters(server, romeo.user, mechanism)
    one, other = auth.absent(), auth.absent()
    salt, iterations = await scram_parameters(server, one.user, mechanism)
    assert (salt, iterations) == await scram_parameters(server, one.user, mechanism)
    assert iterations == real_iterations
    assert len(base64.b64decode(salt)) == len(base64.b64decode(real_salt))
    assert salt != (await scram_parameters(server, other.user, mechanism))[0]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_timing(server, auth, account, mechanism):
    """A wrong password takes as long as an absent account."""

    async def attempt(who: Account) -> float:
        client = await server.stream()
        began = time.perf_counter()
        await client.sasl(who, mechanism, password="wrong")
        return time.perf_counter() - began

    pairs = [
        await asyncio.gather(*(attempt(who) for _ in range(3) for who in (account("romeo"), auth.absent())))
        for _ in range(5)
    ]
    wrong = statistics.median(value for times in pairs for value in times[0::2])
    absent = statistics.median(value for times in pairs for value in times[1::2])
    assert abs(wrong - absent) < 0.5 * max(wrong, absent), f"{wrong:.3f} s against {absent:.3f} s"


async def test_failures_of_an_account_make_it_wait(server_with, account):
    """Per account and address: the owner, elsewhere, is not locked out."""
    server = server_with({"limits": {"auth_failures_per_account": 3, "auth_failures_per_address": 1000}})
    romeo = account("romeo")
    for _ in range(3):
        client = await server.stream(source="127.0.0.31")
        await client.sasl(romeo, password="wrong")
        await client.wire.close()
    attacker = await server.stream(source="127.0.0.31")
    assert (await attacker.sasl(romeo)).tag == f"{{{SASL}}}failure", "not even with the right password"
    owner = await server.stream(source="127.8.0.32")
    assert (await owner.sasl(romeo)).tag == f"{{{SASL}}}success"


async def test_the_wait_of_an_account_does_not_tell_whether_it_exists(server_with, auth, account):
    server = server_with({"limits": {"auth_failures_per_account": 3, "auth_failures_per_address": 1000}})
    answers = []
    for who in (account("romeo"), auth.absent()):
        seen = []
        for _ in range(5):
            client = await server.stream(source="127.0.0.33")
            seen.append(show(await client.sasl(who, password="wrong")))
            await client.wire.close()
        answers.append(seen)
    assert answers[0] == answers[1]


async def test_failures_of_an_address_make_it_wait(server_with, account):
    server = server_with({"limits": {"auth_failures_per_account": 1000, "auth_failures_per_address": 4}})
    for _ in range(4):
        client = await server.stream(source="127.0.0.34")
        await client.sasl(account("romeo"), password="wrong")
        await client.wire.close()
    romeo = account("romeo")
    attacker = await server.stream(source="127.0.0.34")
    assert (await attacker.sasl(romeo)).tag == f"{{{SASL}}}failure"
    other = await server.stream(source="127.8.0.35")
    assert (await other.sasl(romeo)).tag == f"{{{SASL}}}success"


async def test_the_wait_ends(server_with, account):
    server = server_with({"limits": {"auth_failures_per_account": 2, "auth_failure_window": "2 s"}})
    romeo = account("romeo")
    for _ in range(2):
        client = await server.stream(source="127.0.0.36")
        await client.sasl(romeo, password="wrong")
        await client.wire.close()
    deadline = time.monotonic() + 15
    while True:
        client = await server.stream(source="127.0.0.36")
        if (await client.sasl(romeo)).tag == f"{{{SASL}}}success":
            break
        assert time.monotonic() < deadline
        await client.wire.close()


async def test_success_is_not_counted_as_failure(server_with, account):
    server = server_with({"limits": {"auth_failures_per_account": 3, "auth_failures_per_address": 1000}})
    romeo = account("romeo")
    for _ in range(8):
        client = await server.stream(source="127.0.0.37")
        assert (await client.sasl(romeo)).tag == f"{{{SASL}}}success"
        await client.wire.close()


async def test_remembering_failures_does_not_make_memory_grow_without_bound(server, auth):
    at_once = 20

    async def attempt() -> None:
        client = await server.stream()
        await client.auth("PLAIN", b"\0" + auth.absent().user.encode() + b"\0wrong")
        await client.wire.close()

    async def attack() -> None:
        await asyncio.gather(*(attempt() for _ in range(at_once)))

    assert await growth(server.program, attack, warm_up=4, rounds=5) / at_once < 4 * KIB


# ------------------------------------------------------------------------------------------- the auth service


def listening(port: int) -> list[str]:
    """The local addresses (hexadecimal, as the kernel shows them) on which something listens at the port."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, hexadecimal = fields[1].partition(":")
            if fields[3] == "0A" and int(hexadecimal, 16) == port:
                found.append(address)
    return found


def test_the_auth_service_listens_on_the_loopback_interface_only(auth):
    loopback = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}"
    assert listening(auth.port) == [loopback]


@pytest.mark.parametrize("call", ["user_exists", "check_password", "get_password"])
@pytest.mark.parametrize("credentials", [None, "xmpp:wrong", ":"])
def test_the_auth_service_answers_nobody_without_credentials(auth, account, call, credentials):
    romeo = account("romeo")
    connection = http.client.HTTPConnection("127.0.0.1", auth.port, timeout=10)
    headers = {}
    if credentials is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    connection.request("GET", f"/authorize/{call}?user={romeo.user}&server=localhost&pass=sesame", headers=headers)
    assert connection.getresponse().status == 401
    connection.close()

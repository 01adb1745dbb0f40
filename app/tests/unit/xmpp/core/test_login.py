"""SASL on a stream: exchanges, what they ask of the authentication service, and failures."""

from __future__ import annotations

import asyncio
import base64

import pytest

from monktalk.common import scram
from monktalk.xmpp.core import administration
from monktalk.xmpp.core.auth import throttle
from monktalk.xmpp.core.auth.errors import AuthUnavailable
from monktalk.xmpp.protocol.sasl import fake_keys
from tests.support import sasl
from tests.support.inproc import HOST, Accounts, InprocClient, site

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
PASSWORD = "sesame"
TEXT = """
[limits]
auth_attempts = 3
auth_failures_per_account = 4
auth_failures_per_address = 6
auth_failure_window = 10
"""


class Credentials(Accounts):
    """The authentication service of the test. ``gate`` keeps its answers back."""

    def __init__(self, domain: str) -> None:
        super().__init__(domain)
        self.passwords["romeo"] = PASSWORD
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusals: list[str] = []
        self.crash = False

    async def _answer(self) -> None:
        await self.gate.wait()
        if self.crash:
            raise RuntimeError("a bug")
        await super()._answer()

    async def scram_keys(self, user: str, hash_name: str, address: str | None = None) -> scram.ScramKeys | None:
        """The keys of an account, or None."""
        await self._answer()
        password = self.passwords.get(user)
        return None if password is None else scram.derive(password, hash_name, iterations=4096, salt=b"0123456789")

    def decoy(self, user: str, hash_name: str) -> scram.ScramKeys:
        """The keys of an account that is not there."""
        return fake_keys(b"secret", user, self.domain, hash_name, 4096)

    def refused(self, user: str) -> None:
        """Note a failed login."""
        self.refusals.append(user)


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    monkeypatch.setattr(throttle, "FIRST_DELAY", 0.0)


@pytest.fixture
async def server():
    async with site({}, TEXT, hosts=(HOST,)) as running:
        running.host.auth = Credentials(HOST)
        yield running


@pytest.fixture
def accounts(server) -> Credentials:
    found = server.host.auth
    assert isinstance(found, Credentials)
    return found


@pytest.fixture
async def client(server) -> InprocClient:
    return opened(server)


def opened(server, peer: str = "192.0.2.1", **how: bool) -> InprocClient:
    client: InprocClient = server.connect(peer=peer, **how)
    client.open()
    client.raw()
    return client


async def say(client, name: str, data: bytes | None = None, mechanism: str = ""):
    """Send an element of SASL; the elements that come for it."""
    attribute = f" mechanism='{mechanism}'" if mechanism else ""
    content = "" if data is None else sasl.b64(data)
    client.send(f"<{name} xmlns='{SASL}'{attribute}>{content}</{name}>")
    return await client.arrived()


async def plain(client, user: str = "romeo", password: str = PASSWORD):
    """Log in with PLAIN; the one element that answers."""
    [answer, *more] = await say(client, "auth", sasl.plain(user, password), "PLAIN")
    assert all(node.tag.endswith("}error") for node in more)
    return answer


def kind(answer) -> str:
    """``success``, ``challenge``, or the condition of the failure."""
    name: str = answer.tag.rpartition("}")[2]
    return answer[0].tag.rpartition("}")[2] if name == "failure" else name


def told(answer) -> bytes:
    return base64.b64decode(answer.text or "")


async def scram_login(client, mechanism: str = "SCRAM-SHA-1", user: str = "romeo", password: str = PASSWORD):
    """Run a SCRAM exchange; its last answer and the client's half."""
    half = sasl.Scram(sasl.HASHES[mechanism], user, password)
    [challenge] = await say(client, "auth", half.first(), mechanism)
    assert kind(challenge) == "challenge"
    [answer, *_] = await say(client, "response", half.final(told(challenge)))
    return answer, half


# -- success -----------------------------------------------------------------------------------------------------------


async def test_plain(server, client, accounts):
    assert kind(await plain(client)) == "success"
    assert client.stream.user == "romeo"
    assert [account.user for account in await server.storage.accounts.list(HOST)] == ["romeo"]
    assert server.server.metrics.logins.value == 1


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_scram(client, mechanism):
    answer, half = await scram_login(client, mechanism)
    assert kind(answer) == "success"
    half.verify(told(answer))
    assert client.stream.user == "romeo"


async def test_the_first_message_may_come_by_itself(client):
    [challenge] = await say(client, "auth", None, "PLAIN")
    assert (kind(challenge), challenge.text) == ("challenge", None)
    [answer] = await say(client, "response", sasl.plain("romeo", PASSWORD))
    assert kind(answer) == "success"


async def test_names_are_prepared(client):
    assert kind(await plain(client, "RoMeO")) == "success"
    assert client.stream.user == "romeo"


async def test_a_second_login_on_a_stream_has_no_place(client):
    await plain(client)
    client.open()
    client.raw()
    await say(client, "auth", sasl.plain("romeo", PASSWORD), "PLAIN")
    assert client.link.closed


async def test_an_account_that_is_removed_while_somebody_logs_in(server, client, accounts):
    accounts.gate.clear()
    client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{sasl.b64(sasl.plain('romeo', PASSWORD))}</auth>")
    accounts.gate.set()
    await administration.remove_account(server.host, "romeo")
    await client.arrived()
    assert client.link.closed
    assert client.stream.user is None
    assert server.host.arriving == {}


async def test_a_failed_login_leaves_nothing_behind(server, client):
    await plain(client, password="wrong")
    assert server.host.arriving == {}


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["romeo", "nobody"])
async def test_a_wrong_password_and_an_unknown_account_look_the_same(server, client, accounts, user):
    assert kind(await plain(client, user, "wrong")) == "not-authorized"
    answer, _ = await scram_login(client, user=user, password="wrong")
    assert kind(answer) == "not-authorized"
    assert accounts.refusals == [user, user]
    assert server.server.metrics.login_failures.value == 2


async def test_the_keys_of_an_unknown_account_stay_the_same(client):
    half = sasl.Scram("sha1", "nobody", PASSWORD)
    salts = set()
    for _ in range(2):
        [challenge] = await say(client, "auth", half.first(), "SCRAM-SHA-1")
        salts.add(told(challenge).split(b",")[1])
        await say(client, "abort")
    assert len(salts) == 1


async def test_a_login_succeeds_after_failures(client):
    await plain(client, password="wrong")
    await plain(client, password="wrong")
    assert kind(await plain(client)) == "success"


async def test_too_many_attempts_end_the_stream(client):
    for _ in range(2):
        await plain(client, password="wrong")
        assert not client.link.closed
    answers = await say(client, "auth", sasl.plain("romeo", "wrong"), "PLAIN")
    assert [node.tag.rpartition("}")[2] for node in answers] == ["failure", "error"]
    assert client.link.closed


@pytest.mark.parametrize(
    ("name", "data", "mechanism", "condition"),
    [
        ("auth", b"", "X-UNKNOWN", "invalid-mechanism"),
        ("auth", b"", "", "invalid-mechanism"),
        ("auth", b"no zeroes", "PLAIN", "malformed-request"),
        ("auth", b"x,,", "SCRAM-SHA-1", "malformed-request"),
        ("response", b"", "", "malformed-request"),
        ("abort", None, "", "aborted"),
        ("success", None, "", "malformed-request"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_counted(client, name, data, mechanism, condition):
    for attempt in range(3):
        assert client.link.closed is False, attempt
        [answer, *_] = await say(client, name, data, mechanism)
        assert kind(answer) == condition
    assert client.link.closed


async def test_what_is_not_base64_is_refused(client):
    client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>***</auth>")
    [answer] = await client.arrived()
    assert kind(answer) == "incorrect-encoding"


async def test_the_plus_mechanisms_need_a_channel_binding(client):
    [answer] = await say(client, "auth", b"p=tls-server-end-point,,n=romeo,r=x", "SCRAM-SHA-1-PLUS")
    assert kind(answer) == "invalid-mechanism"


async def test_nobody_authenticates_in_clear_where_tls_is_required(server):
    client = opened(server, secure=False, tls_required=True)
    assert kind(await plain(client)) == "encryption-required"


async def test_an_exchange_ends_with_an_abort(client):
    half = sasl.Scram("sha1", "romeo", PASSWORD)
    [challenge] = await say(client, "auth", half.first(), "SCRAM-SHA-1")
    final = half.final(told(challenge))
    [answer] = await say(client, "abort")
    assert kind(answer) == "aborted"
    [answer] = await say(client, "response", final)
    assert kind(answer) == "malformed-request"
    assert client.stream.user is None


async def test_a_new_exchange_replaces_the_one_before(client):
    half = sasl.Scram("sha1", "romeo", PASSWORD)
    await say(client, "auth", half.first(), "SCRAM-SHA-1")
    assert kind(await plain(client)) == "success"


async def test_a_disabled_account_is_refused(server, client):
    await server.storage.accounts.set_disabled(HOST, "romeo", True, "spam")
    assert kind(await plain(client)) == "account-disabled"
    assert kind((await scram_login(client))[0]) == "account-disabled"
    assert client.stream.user is None


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["service", "storage"])
async def test_what_is_out_of_order_for_now_is_no_failure_of_the_client(server, client, accounts, what):
    accounts.available = what != "service"
    server.storage.set_available(what != "storage")
    for _ in range(5):
        assert kind(await plain(client)) == "temporary-auth-failure"
    assert not client.link.closed
    accounts.available = True
    server.storage.set_available(True)
    assert kind(await plain(client)) == "success"
    assert server.server.metrics.login_failures.value == 0


async def test_a_bug_ends_the_stream(client, accounts, caplog):
    accounts.crash = True
    [error] = await say(client, "auth", sasl.plain("romeo", PASSWORD), "PLAIN")
    assert error[0].tag.endswith("}internal-server-error")
    assert client.stream.user is None
    assert PASSWORD not in caplog.text


async def test_no_password_is_logged(client, caplog):
    caplog.set_level("DEBUG")
    await plain(client, password="wrong-secret")
    await scram_login(client)
    assert "wrong-secret" not in caplog.text
    assert PASSWORD not in caplog.text


# -- throttle ----------------------------------------------------------------------------------------------------------


async def fail(server, times: int, user: str = "romeo", peer: str = "192.0.2.1") -> list[str]:
    """So many failed attempts, each on a stream of its own."""
    return [kind(await plain(opened(server, peer), user, "wrong")) for _ in range(times)]


async def test_an_account_that_fails_too_often_has_to_wait(server):
    assert await fail(server, 6) == ["not-authorized"] * 4 + ["temporary-auth-failure"] * 2
    assert kind(await plain(opened(server))) == "temporary-auth-failure"
    assert kind(await plain(opened(server, "198.51.100.1"))) == "success"
    server.clock.advance(13)
    assert kind(await plain(opened(server))) == "success"


async def test_an_address_that_fails_too_often_has_to_wait(server):
    for number in range(6):
        assert await fail(server, 1, f"user{number}") == ["not-authorized"]
    client = opened(server)
    assert kind(await plain(client)) == "temporary-auth-failure"
    half = sasl.Scram("sha1", "romeo", PASSWORD)
    [answer] = await say(client, "auth", half.first(), "SCRAM-SHA-1")
    assert kind(answer) == "temporary-auth-failure"


async def test_a_success_forgives_what_the_account_did_wrong_from_there(server):
    assert await fail(server, 3) == ["not-authorized"] * 3
    assert kind(await plain(opened(server))) == "success"
    assert await fail(server, 2) == ["not-authorized"] * 2


async def test_a_refusal_is_held_back_for_a_while(server, client, monkeypatch):
    monkeypatch.setattr(server.server.throttle, "_jitter", lambda _low, _high: 1.0, raising=False)
    monkeypatch.setattr(throttle, "FIRST_DELAY", 0.2)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert kind(await plain(client, password="wrong")) == "not-authorized"
    assert loop.time() - began >= 0.14


# -- streams that end, data in flight ----------------------------------------------------------------------------------


async def test_what_is_sent_before_success_belongs_to_the_old_stream(server, client, accounts):
    accounts.gate.clear()
    client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{sasl.b64(sasl.plain('romeo', PASSWORD))}</auth>")
    client.send("<message id='early'/>")
    await asyncio.sleep(0)
    assert client.link.paused
    accounts.gate.set()
    [answer] = await client.arrived()
    assert kind(answer) == "success"
    assert not client.link.paused
    client.open()
    assert not client.link.closed


async def test_an_abort_that_comes_while_the_service_is_asked_comes_too_late(server, client, accounts):
    accounts.gate.clear()
    client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{sasl.b64(sasl.plain('romeo', PASSWORD))}</auth>")
    client.send(f"<abort xmlns='{SASL}'/>")
    await asyncio.sleep(0)
    accounts.gate.set()
    assert [kind(node) for node in await client.arrived()] == ["success"]


@pytest.mark.parametrize("end", [InprocClient.drop, lambda client: client.stream.close("too late")])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1"])
async def test_a_stream_may_end_while_the_service_is_asked(server, client, accounts, end, mechanism, caplog):
    accounts.gate.clear()
    first = sasl.plain("romeo", PASSWORD) if mechanism == "PLAIN" else sasl.Scram("sha1", "romeo", PASSWORD).first()
    client.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{sasl.b64(first)}</auth>")
    end(client)
    await asyncio.sleep(0)
    accounts.gate.set()
    await server.settled()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert client.stream.session is None
    assert server.host.sessions == {}


async def test_a_service_that_goes_away_while_it_is_asked_is_told_from_a_refusal(server, client, accounts):
    accounts.gate.clear()
    client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{sasl.b64(sasl.plain('romeo', PASSWORD))}</auth>")
    await asyncio.sleep(0)
    accounts.available = False
    accounts.gate.set()
    [answer] = await client.arrived()
    assert kind(answer) == "temporary-auth-failure"
    with pytest.raises(AuthUnavailable):
        await accounts.exists("romeo")


async def test_who_fails_to_log_in_does_not_keep_a_home(server, client, monkeypatch):
    """The user's last session ends while somebody guesses his password."""
    left = []
    monkeypatch.setattr(server.host, "left", left.append)
    client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{sasl.b64(sasl.plain('romeo', 'wrong'))}</auth>")
    await client.arrived()
    assert left == ["romeo"]
    assert server.host.arriving == {}

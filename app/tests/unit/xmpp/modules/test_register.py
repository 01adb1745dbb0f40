"""In-band registration (XEP-0077)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.register import Register
from monktalk.xmpp.protocol import namespaces as ns
from tests.support.inproc import HOST, OTHER_HOST, condition, configuration, payload, site

FEATURE = f"{{{ns.REGISTER_FEATURE}}}register"
QUERY = f"{{{ns.REGISTER}}}query"
GET = f"<query xmlns='{ns.REGISTER}'/>"
ON = "[modules.register]\nenabled = true\nallow_from = ['192.0.2.0/24', '2001:db8::/32']\n"


class Witness(Module):
    """Remembers what was told about accounts."""

    name = "witness"

    def __init__(self, host, settings):
        super().__init__(host, settings)
        self.seen = []

    @HostHooks.account_created.handler()
    async def created(self, user):
        self.seen.append(("created", user))

    @HostHooks.account_removed.handler()
    async def removed(self, user):
        self.seen.append(("removed", user))

    @HostHooks.session_closed.handler()
    def closed(self, session, reason):
        self.seen.append(("closed", session.jid.local))


MODULES = {"register": Register, "witness": Witness}


@pytest.fixture
async def server():
    async with site(MODULES, ON) as running:
        yield running


def fields(username: str = "bill", password: str = "Calliope") -> str:
    return f"<query xmlns='{ns.REGISTER}'><username>{username}</username><password>{password}</password></query>"


def opened(server, **options):
    client = server.connect(**options)
    client.open()
    client.raw()
    return client


def seen(server):
    """What modules were told about accounts and sessions, in order."""
    return server.host.modules["witness"].seen


# -- before login ------------------------------------------------------------------------------------------------------


async def test_it_is_off_by_default():
    async with site(MODULES) as server:
        client = server.connect(peer="127.0.0.1")
        client.open()
        assert client.features().find(FEATURE) is None
        client.send(f"<iq type='get' id='1'>{GET}</iq>")
        assert client.link.closed
        assert client.stanzas()[0][0].tag == f"{{{ns.STREAM_ERRORS}}}not-authorized"


async def test_loopback_only_by_default():
    async with site(MODULES, "[modules.register]\nenabled = true\n") as server:
        for peer, offered in (("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False)):
            client = server.connect(peer=peer)
            client.open()
            assert (client.features().find(FEATURE) is not None) is offered
            answer = await client.iq("set", fields(f"user{peer.count(':')}{len(peer)}"))
            assert answer.get("type") == ("result" if offered else "error")


async def test_the_form(server):
    client = server.connect()
    client.open()
    assert client.features().find(FEATURE) is not None
    query = payload(await client.iq("get", GET, to=HOST))
    assert [child.tag.removeprefix(f"{{{ns.REGISTER}}}") for child in query] == ["instructions", "username", "password"]


async def test_an_account_is_made_and_can_be_used_at_once(server):
    client = opened(server)
    answer = await client.iq("set", fields("Bill"))
    assert (answer.get("type"), len(answer)) == ("result", 0)
    assert server.accounts().passwords == {"bill": "Calliope"}
    assert seen(server) == [("created", "bill")]
    assert (await server.storage.accounts.find(HOST, "bill")) is not None
    client.stream.authenticated("bill", b"")
    client.open()
    assert client.features().find(FEATURE) is None


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        (fields("bill", ""), "not-acceptable/modify"),
        (fields("", "x"), "not-acceptable/modify"),
        (GET, "not-acceptable/modify"),
        (fields("bill", "pass\u0080word"), "not-acceptable/modify"),
        (fields("bill", "x" * 5_000), "not-acceptable/modify"),
        (fields("b@ll"), "jid-malformed/modify"),
        (fields("b\u2028ll"), "jid-malformed/modify"),
        (fields("b" * 1024), "jid-malformed/modify"),
        (fields("existing"), "conflict/cancel"),
        (f"<query xmlns='{ns.REGISTER}'><remove/></query>", "unexpected-request/wait"),
    ],
)
async def test_refused(server, query, refusal):
    server.accounts().passwords["existing"] = "secret"
    assert condition(await opened(server).iq("set", query)) == refusal
    assert server.accounts().passwords == {"existing": "secret"}
    assert seen(server) == []


async def test_an_administrators_address_is_not_for_the_first_comer(server):
    server.host.administrators = frozenset({f"admin@{HOST}"})
    assert condition(await opened(server).iq("set", fields("Admin"))) == "conflict/cancel"
    assert not server.accounts().passwords


async def test_a_stream_to_one_host_makes_accounts_there_only(server):
    client = opened(server)
    assert condition(await client.iq("set", fields(), to=OTHER_HOST)) == "item-not-found/cancel"
    assert not server.accounts().passwords
    assert not server.accounts(OTHER_HOST).passwords


async def test_not_on_a_stream_in_clear_where_tls_is_required(server):
    client = server.connect(secure=False, tls_required=True)
    client.open()
    assert client.features().find(FEATURE) is None
    client.send(f"<iq type='set' id='1'>{fields()}</iq>")
    assert client.link.closed
    assert not server.accounts().passwords


@pytest.mark.parametrize(("away", "refusal"), [(True, "resource-constraint/wait"), (False, "not-allowed/cancel")])
async def test_the_service_is_away_or_refuses(server, away, refusal):
    accounts = server.accounts()
    accounts.available, accounts.closed = not away, not away
    client = opened(server)
    assert condition(await client.iq("set", fields())) == refusal
    assert not client.link.closed


async def test_attempts_from_one_address_are_limited():
    async with site(MODULES, ON + "per_address = 2\nwindow = '1 min'\n") as server:
        server.clock.advance(1000 - server.clock.monotonic() % 60)
        for number in range(2):
            assert (await opened(server).iq("set", fields(f"user{number}"))).get("type") == "result"
        assert condition(await opened(server).iq("set", fields("user2"))) == "resource-constraint/wait"
        assert (await opened(server, peer="192.0.2.99").iq("set", fields("user3"))).get("type") == "result"
        server.clock.advance(120)
        assert (await opened(server).iq("set", fields("user4"))).get("type") == "result"


async def test_failed_attempts_count_too_since_they_tell_which_accounts_exist():
    async with site(MODULES, ON + "per_address = 2\n") as server:
        server.accounts().passwords["existing"] = "secret"
        client = opened(server)
        refusals = [condition(await client.iq("set", fields("existing"))) for _ in range(3)]
        assert refusals == ["conflict/cancel", "conflict/cancel", "resource-constraint/wait"]


async def test_an_ipv6_network_is_one_address():
    async with site(MODULES, ON + "per_address = 2\n") as server:
        for number, peer in enumerate(("2001:db8::1", "2001:db8::ffff:2")):
            assert (await opened(server, peer=peer).iq("set", fields(f"user{number}"))).get("type") == "result"
        same, other = opened(server, peer="2001:db8::3"), opened(server, peer="2001:db8:0:1::1")
        assert condition(await same.iq("set", fields("user2"))) == "resource-constraint/wait"
        assert (await other.iq("set", fields("user3"))).get("type") == "result"


async def test_attempts_from_everywhere_are_limited():
    async with site(MODULES, ON + "in_total = 3\n") as server:
        for number in range(3):
            client = opened(server, peer=f"192.0.2.{number}")
            assert (await client.iq("set", fields(f"user{number}"))).get("type") == "result"
        client = opened(server, peer="192.0.2.200")
        assert condition(await client.iq("set", fields("one-more"))) == "resource-constraint/wait"


async def test_other_stanzas_end_the_stream(server):
    for xml in (
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        f"<message>{GET}</message>",
        f"<iq>{GET}</iq>",
    ):
        client = opened(server)
        client.send(xml)
        assert client.link.closed


# -- after login -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [None, HOST])
async def test_what_is_registered(server, to):
    query = payload(await server.login("bill").iq("get", GET, to=to))
    assert query.find(f"{{{ns.REGISTER}}}registered") is not None
    assert query.findtext(f"{{{ns.REGISTER}}}username") == "bill"
    assert query.findtext(f"{{{ns.REGISTER}}}password") == ""


@pytest.mark.parametrize("to", [None, HOST])
async def test_password_change(server, to):
    bill = server.login("bill", peer="203.0.113.1")
    assert (await bill.iq("set", fields("BILL", "new"), to=to)).get("type") == "result"
    assert server.accounts().passwords == {"bill": "new"}


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        (fields("bill", ""), "bad-request/modify"),
        (f"<query xmlns='{ns.REGISTER}'><password>new</password></query>", "bad-request/modify"),
        (fields("bob", "new"), "forbidden/auth"),
        (fields("bill", "pass\u0080word"), "not-acceptable/modify"),
        (f"<query xmlns='{ns.REGISTER}'><remove/><username>bill</username></query>", "bad-request/modify"),
    ],
)
async def test_changes_that_are_refused(server, query, refusal):
    server.accounts().passwords["bob"] = "secret"
    bill = server.login("bill")
    assert condition(await bill.iq("set", query)) == refusal
    assert server.accounts().passwords == {"bill": "secret", "bob": "secret"}


async def test_an_account_of_the_same_name_elsewhere_has_no_say(server):
    server.accounts().passwords["bill"] = "secret"
    stranger = server.login("bill", host=OTHER_HOST)
    for query in (fields("bill", "stolen"), f"<query xmlns='{ns.REGISTER}'><remove/></query>"):
        assert condition(await stranger.iq("set", query, to=HOST)) == "registration-required/auth"
    assert condition(await stranger.iq("get", GET, to=HOST)) == "registration-required/auth"
    assert server.accounts().passwords == {"bill": "secret"}


async def test_removal_tells_the_client_first_and_ends_all_sessions(server):
    bill, phone = server.login("bill"), server.login("bill")
    bill.send(f"<iq type='set' id='unreg'><query xmlns='{ns.REGISTER}'><remove/></query></iq>")
    result, error = await bill.arrived()
    assert (result.get("type"), result.get("id")) == ("result", "unreg")
    assert error[0].tag == f"{{{ns.STREAM_ERRORS}}}not-authorized"
    assert (await phone.arrived())[0][0].tag == f"{{{ns.STREAM_ERRORS}}}not-authorized"
    assert bill.link.closed
    assert phone.link.closed
    assert not server.accounts().passwords
    assert seen(server) == [("closed", "bill"), ("closed", "bill"), ("removed", "bill")]
    assert await server.storage.accounts.find(HOST, "bill") is None


async def test_removal_that_fails_leaves_everything(server):
    bill = server.login("bill")
    server.accounts().closed = True
    answer = await bill.iq("set", f"<query xmlns='{ns.REGISTER}'><remove/></query>")
    assert condition(answer) == "not-allowed/cancel"
    assert not bill.link.closed
    assert seen(server) == []


async def test_both_can_be_switched_off():
    async with site(MODULES, ON + "password_change = false\nremoval = false\n") as server:
        bill = server.login("bill")
        for query in (fields("bill", "new"), f"<query xmlns='{ns.REGISTER}'><remove/></query>"):
            assert condition(await bill.iq("set", query)) == "not-allowed/cancel"


async def test_unloaded_at_run_time(server):
    server.host.apply(configuration(MODULES, ""))
    await reload_modules(server.host, MODULES)
    client = server.connect()
    client.open()
    assert client.features().find(FEATURE) is None
    client.send(f"<iq type='set' id='1'>{fields()}</iq>")
    assert client.link.closed
    assert condition(await server.login("bill").iq("set", fields("bill", "new"))) == "service-unavailable/cancel"


async def test_no_password_in_the_log(server, caplog):
    caplog.set_level("DEBUG")
    await opened(server).iq("set", fields("bill", "swordfish"))
    await server.login("bill").iq("set", fields("bill", "sturgeon"))
    logged = [f"{record.getMessage()} {record.fields}" for record in caplog.records]
    assert any("registered" in line and "bill" in line for line in logged)
    assert not [line for line in logged if "swordfish" in line or "sturgeon" in line]

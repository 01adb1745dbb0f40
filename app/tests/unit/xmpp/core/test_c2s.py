"""The life of a client stream, from the header to the end tag."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.core.c2s import ClientStream
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.protocol.errors import StreamError
from tests.support.gate import NOW, WAIT, Gate
from tests.support.inproc import HEADER, HOST, OTHER_HOST, InprocClient, site

STREAM = "http://etherx.jabber.org/streams"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
STARTTLS = f"<starttls xmlns='{TLS}'/>"
BIND = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"


class Doorman(Module):
    """Takes part in streams that are not bound: waits on request, fails on request."""

    name = "doorman"

    def __init__(self, host, settings) -> None:
        super().__init__(host, settings)
        self.gate = asyncio.Event()
        self.seen: list[str | None] = []

    @HostHooks.stream_features.handler()
    def announce(self, stream: ClientStream, found: list[bytes]) -> None:
        """Announce itself."""
        found.append(b"<doorman xmlns='urn:example:door'/>")

    @HostHooks.stream_element.handler()
    def element(self, stream: ClientStream, stanza) -> bool:
        """Take presence; wait for the id ``wait``, fail for ``bug`` and ``late bug``."""
        if stanza.name != "presence":
            return False
        self.seen.append(stanza.id)
        if stanza.id == "bug":
            raise RuntimeError("a bug")
        if stanza.id in ("wait", "late bug", "late fault"):
            stream.run(self._work(stanza.id))
        return True

    async def _work(self, number: str) -> None:
        await self.gate.wait()
        if number == "late bug":
            raise RuntimeError("a bug")
        if number == "late fault":
            raise StreamError("policy-violation", "no")


MODULES = {"doorman": Doorman, "gate": Gate}


@pytest.fixture
async def server():
    async with site(MODULES) as running:
        yield running


@pytest.fixture
def doorman(server) -> Doorman:
    module = server.host.modules["doorman"]
    assert isinstance(module, Doorman)
    return module


@pytest.fixture
async def client(server) -> InprocClient:
    found: InprocClient = server.connect()
    return found


def header(**attributes: str | None) -> str:
    usual: dict[str, str | None] = {"to": HOST, "version": "1.0", "xmlns": "jabber:client", "xmlns:stream": STREAM}
    shown = " ".join(f"{key}='{value}'" for key, value in (usual | attributes).items() if value is not None)
    return f"<stream:stream {shown}>"


def written(client) -> str:
    """Everything that has been written since the last look."""
    return b"".join(client.raw()).decode()


def assert_ended(client, condition: str) -> str:
    """The stream ended with that error, and nothing was sent behind it; returns what was written."""
    text = written(client)
    assert f"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>" in text, text
    assert text.endswith("</stream:error></stream:stream>")
    assert client.link.closed
    return text


# -- header ------------------------------------------------------------------------------------------------------------


async def test_the_server_answers_with_its_header_and_features(client):
    client.send(header(**{"from": f"romeo@{HOST}"}))
    text = written(client)
    assert text.startswith("<?xml version='1.0'?><stream:stream ")
    opening = text.partition("<stream:features>")[0]
    for part in (f"from='{HOST}'", f"to='romeo@{HOST}'", f"id='{client.stream.id}'", "version='1.0'", "xml:lang='en'"):
        assert part in opening
    assert text.endswith("</stream:features>")
    assert len(client.stream.id) == 32


async def test_every_stream_has_an_id_of_its_own(server):
    found = set()
    for _ in range(3):
        client = server.connect()
        client.open()
        found.add(client.stream.id)
    assert len(found) == 3


@pytest.mark.parametrize(("secure", "claimed"), [(False, f"romeo@{HOST}"), (True, "a@b@c"), (True, "' onload='")])
async def test_an_address_is_echoed_on_secure_streams_only_and_only_when_it_is_one(server, secure, claimed):
    client = server.connect(secure=secure)
    client.send(header(**{"from": claimed.replace("'", "&apos;")}))
    assert " to=" not in written(client).partition("<stream:features>")[0]


@pytest.mark.parametrize("to", [None, "elsewhere.example", f"romeo@{HOST}", "a@b@c"])
async def test_a_host_that_is_not_served_is_an_error_behind_the_header(client, to):
    client.send(header(to=to))
    text = assert_ended(client, "host-unknown")
    assert text.startswith("<?xml version='1.0'?><stream:stream ")
    assert f"from='{HOST}'" in text


@pytest.mark.parametrize("version", [None, "0.9", "", "x", "-1", "٣"])
async def test_streams_of_before_xmpp_are_refused(client, version):
    client.send(header(version=version))
    assert_ended(client, "unsupported-version")


@pytest.mark.parametrize("version", ["1.0", "1.5", "2.0", "10.1", "1"])
async def test_later_versions_are_welcome(client, version):
    client.send(header(version=version))
    assert not client.link.closed


async def test_a_stream_is_opened_once(client):
    client.open()
    client.send("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'/>")
    assert client.link.closed


async def test_what_is_no_xml_is_an_error_behind_a_header(client):
    client.send("GET / HTTP/1.1\r\n\r\n<x")
    text = written(client)
    assert text.startswith("<?xml version='1.0'?><stream:stream ")
    assert "<stream:error>" in text
    assert client.link.closed


async def test_the_host_stays_the_one_that_was_named_first(client):
    client.open()
    client.stream.authenticated("romeo", b"")
    client.raw()
    client.send(header(to=OTHER_HOST))
    assert_ended(client, "host-unknown")


@pytest.mark.parametrize("claimed", ["juliet@capulet.example", f"romeo@{OTHER_HOST}", "a@b@c"])
async def test_an_authenticated_stream_is_from_its_account(client, claimed):
    client.open()
    client.stream.authenticated("romeo", b"")
    client.raw()
    client.send(header(**{"from": claimed}))
    assert_ended(client, "invalid-from")


async def test_the_address_may_come_with_a_resource(client):
    client.open()
    client.stream.authenticated("romeo", b"")
    client.send(header(**{"from": f"Romeo@{HOST}/orchard"}))
    assert not client.link.closed


# -- features ----------------------------------------------------------------------------------------------------------


def feature_names(client) -> list[str]:
    return [node.tag.rpartition("}")[2] for node in client.features()]


async def test_features_depend_on_what_has_been_negotiated(server):
    client = server.connect(secure=False)
    client.open()
    assert feature_names(client) == ["starttls", "mechanisms", "doorman", "limits"]
    client.send(STARTTLS)
    client.raw()
    client.open()
    assert feature_names(client)[0] == "mechanisms"
    client.stream.authenticated("romeo", b"")
    client.open()
    assert feature_names(client) == ["bind", "session", "sm", "doorman", "limits"]


async def test_where_tls_is_required_nothing_else_is_on_offer_in_clear(server):
    client = server.connect(secure=False, tls_required=True)
    client.open()
    features = client.features()
    assert [node.tag.rpartition("}")[2] for node in features] == ["starttls", "limits"]
    assert features[0][0].tag == f"{{{TLS}}}required"


async def test_the_limits_in_force_are_announced():
    text = "[limits]\nstanza_size = 20000\nstanza_size_unauthenticated = 5000\nlogin_time = 7\nidle_time = 0\n"
    async with site({}, text) as server:
        client = server.connect()
        client.open()
        limits = client.features()[-1]
        assert [(node.tag.rpartition("}")[2], node.text) for node in limits] == [
            *(("max-bytes", "5000"), ("idle-seconds", "7")),
        ]
        client.stream.authenticated("romeo", b"")
        client.open()
        limits = client.features()[-1]
        assert [(node.tag.rpartition("}")[2], node.text) for node in limits] == [("max-bytes", "20000")]


# -- STARTTLS ----------------------------------------------------------------------------------------------------------


async def test_starttls_is_answered_in_clear_and_restarts_the_stream(server):
    client = server.connect(secure=False, tls_required=True)
    client.open()
    client.raw()
    client.send(STARTTLS)
    assert written(client) == f"<proceed xmlns='{TLS}'/>"
    assert client.link.secure
    client.open()
    assert "mechanisms" in feature_names(client)


async def test_what_comes_together_with_starttls_is_dropped(server, doorman):
    """Otherwise it would count as if it had come inside of TLS (CVE-2011-0411)."""
    client = server.connect(secure=False)
    client.open()
    client.raw()
    client.send(STARTTLS + "<presence id='smuggled'/>" + HEADER + "<presence id='smuggled'/><pres")
    assert written(client) == f"<proceed xmlns='{TLS}'/>"
    client.open()
    client.send("<presence id='honest'/>")
    assert doorman.seen == ["honest"]


@pytest.mark.parametrize("when", ["secure already", "authenticated", "bound"])
async def test_starttls_at_a_wrong_time_fails(server, when):
    client = server.connect(secure=when == "secure already")
    client.open()
    if when != "secure already":
        client.stream.authenticated("romeo", b"")
        client.open()
    if when == "bound":
        client.send(BIND)
    client.raw()
    client.send(STARTTLS)
    assert written(client) == f"<failure xmlns='{TLS}'/></stream:stream>"
    assert client.link.closed


async def test_starttls_fails_where_there_is_no_certificate(server, monkeypatch):
    monkeypatch.setattr(server.server.tls, "available", False, raising=False)
    client = server.connect(secure=False)
    client.open()
    assert "starttls" not in feature_names(client)
    client.send(STARTTLS)
    assert written(client) == f"<failure xmlns='{TLS}'/></stream:stream>"


# -- before authentication ---------------------------------------------------------------------------------------------


async def test_stanzas_are_for_the_modules_or_refused(client, doorman):
    client.open()
    client.send("<presence id='1'/>")
    assert doorman.seen == ["1"]
    client.send("<message/>")
    assert_ended(client, "not-authorized")


async def test_modules_see_nothing_of_a_stream_that_has_to_be_encrypted_first(server, doorman):
    client = server.connect(secure=False, tls_required=True)
    client.open()
    client.send("<presence id='1'/>")
    assert_ended(client, "not-authorized")
    assert doorman.seen == []


async def test_unknown_elements_are_refused(client):
    client.open()
    client.send("<hello xmlns='urn:example:hello'/>")
    assert_ended(client, "unsupported-stanza-type")


async def test_a_resource_is_bound_before_anything_else(client):
    client.open()
    client.stream.authenticated("romeo", b"")
    client.open()
    client.send(f"<iq type='get' id='1'>{NOW}</iq>")
    assert_ended(client, "not-authorized")


async def test_success_is_sent_and_a_new_header_expected(client):
    client.open()
    client.raw()
    client.stream.authenticated("romeo", b"<success/>")
    assert written(client) == "<success/>"
    client.send("<presence/>")
    assert client.link.closed


# -- work that waits ---------------------------------------------------------------------------------------------------


async def test_what_comes_while_work_is_under_way_is_handled_after_it_in_order(server, client, doorman):
    client.open()
    client.send("<presence id='wait'/><presence id='2'/>")
    client.send("<presence id='3'/><presence id='wait'/><presence id='4'/>")
    client.send("<presence id='5'/>")
    assert doorman.seen == ["wait"]
    assert client.link.paused
    doorman.gate.set()
    await server.settled()
    assert doorman.seen == ["wait", "2", "3", "wait", "4", "5"]
    assert not client.link.paused


async def test_an_error_waits_for_its_turn_too(server, client, doorman):
    client.open()
    client.send("<presence id='wait'/><presence id='2'/></wrong>")
    assert not client.link.closed
    doorman.gate.set()
    await server.settled()
    assert doorman.seen == ["wait", "2"]
    assert_ended(client, "not-well-formed")


async def test_the_end_of_the_stream_waits_for_its_turn_too(server, client, doorman):
    client.open()
    client.send("<presence id='wait'/><presence id='2'/></stream:stream>")
    assert not client.link.closed
    doorman.gate.set()
    await server.settled()
    assert doorman.seen == ["wait", "2"]
    assert client.link.closed


async def test_what_waited_when_authentication_succeeds_is_dropped(server, client, doorman):
    """RFC 6120 section 6.4.6: behind success there is a new stream, and what came before does not belong to it."""
    client.open()
    client.send("<presence id='wait'/><presence id='early'/>")
    client.stream.authenticated("romeo", b"")
    doorman.gate.set()
    await server.settled()
    assert doorman.seen == ["wait"]
    client.open()
    client.send(BIND)
    assert client.session.jid.local == "romeo"


async def test_a_connection_may_be_lost_while_work_is_under_way(server, client, doorman):
    client.open()
    client.send("<presence id='wait'/><presence id='2'/>")
    client.raw()
    client.drop()
    doorman.gate.set()
    await server.settled()
    assert doorman.seen == ["wait"]
    assert written(client) == ""


@pytest.mark.parametrize(
    ("number", "wanted", "logged"),
    [
        ("bug", "internal-server-error", True),
        ("late bug", "internal-server-error", True),
        ("late fault", "policy-violation", False),
    ],
)
async def test_a_module_that_fails_ends_the_stream(server, client, doorman, caplog, number, wanted, logged):
    client.open()
    doorman.gate.set()
    client.send(f"<presence id='{number}'/><presence id='behind'/>")
    await server.settled()
    assert_ended(client, wanted)
    assert doorman.seen == [number]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["stream_failed"] * logged


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_the_end_tag_is_answered_and_the_session_over(server):
    romeo = server.login("romeo", "orchard")
    romeo.send("</stream:stream>")
    assert written(romeo) == "</stream:stream>"
    assert romeo.link.closed
    assert server.host.modules["gate"].seen == ["closed:orchard:closed by the client"]


async def test_the_end_tag_ends_a_session_that_could_be_resumed(server):
    romeo = server.login("romeo")
    romeo.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/></stream:stream>")
    assert server.server.resumable == {}
    assert server.host.sessions == {}


async def test_after_the_end_everything_is_ignored(server, client, doorman):
    client.open()
    client.send("</stream:stream>")
    client.raw()
    client.send("<presence id='1'/>")
    client.stream.fail(StreamError("reset"))
    client.stream.close("again")
    client.stream.lost()
    assert written(client) == ""
    assert doorman.seen == []


async def test_a_stream_error_ends_a_session_for_good_unless_it_is_said_to_be_resumable(server):
    gate = server.host.modules["gate"]
    for resumable in (False, True):
        romeo = server.login("romeo", "orchard")
        romeo.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        romeo.stream.fail(StreamError("connection-timeout"), resumable=resumable)
        assert len(server.server.away) == resumable
    assert gate.seen == ["closed:orchard:stream error: connection-timeout"]


async def test_what_came_behind_an_error_in_one_piece_is_ignored(server):
    romeo = server.login("romeo", "orchard")
    gate = server.host.modules["gate"]
    romeo.send("<message id='1' to='keeper@capulet.example'/><oops/><message id='2' to='keeper@capulet.example'/>")
    assert_ended(romeo, "unsupported-stanza-type")
    assert [event for event in gate.seen if event.startswith("message")] == ["message:1"]


async def test_a_bound_stream_can_be_lost_and_its_work_goes_on(server):
    romeo = server.login("romeo", "orchard")
    gate = server.host.modules["gate"]
    romeo.send(f"<iq type='get' id='1'>{WAIT}</iq>")
    romeo.drop()
    gate.let_through()
    await server.settled()
    assert gate.seen == ["wait:1", "closed:orchard:connection lost"]

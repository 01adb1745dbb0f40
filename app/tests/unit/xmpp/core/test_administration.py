"""What administrators do, whichever way they ask."""

from __future__ import annotations

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.core import administration
from monktalk.xmpp.core.auth.errors import AccountMissing
from monktalk.xmpp.modules.offline import Offline
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.private import Private
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.stanza import Stanza
from monktalk.xmpp.protocol.xmltree import element, from_bytes, to_bytes
from tests.support.inproc import HOST, OTHER_HOST, site

MODULES = {"offline": Offline, "presence": Presence, "private": Private, "roster": RosterModule}
ROMEO = JID.of("romeo", HOST)


@pytest.fixture
async def server():
    async with site(MODULES) as found:
        yield found


async def test_an_account_comes_and_goes(server):
    host = server.host
    await administration.create_account(host, "romeo", "secret")
    assert server.accounts().passwords == {"romeo": "secret"}
    assert await server.storage.accounts.find(HOST, "romeo") is not None
    await RosterModule.of(host).set_item("romeo", f"juliet@{HOST}")
    romeo = await server.online("romeo")
    await administration.remove_account(host, "romeo")
    assert [node.tag.rpartition("}")[2] for node in romeo.stanzas()[-1]] == ["not-authorized", "text"]
    assert romeo.link.closed
    assert await server.storage.accounts.find(HOST, "romeo") is None
    assert (await RosterModule.of(host).get_roster("romeo")).items == {}


async def test_what_a_removal_left_behind_is_removed_by_the_next_one(server):
    await server.storage.accounts.add(HOST, "romeo", 1.0)
    await RosterModule.of(server.host).set_item("romeo", f"juliet@{HOST}")
    await administration.remove_account(server.host, "romeo")
    assert (await RosterModule.of(server.host).get_roster("romeo")).items == {}
    with pytest.raises(AccountMissing):
        await administration.remove_account(server.host, "romeo")


async def arrived(server, user: str = "romeo"):
    """A client that has authenticated and not bound a resource."""
    client = server.connect(HOST)
    client.open()
    client.stream.authenticated(user, b"")
    client.open()
    client.raw()
    return client


async def remove(host):
    await administration.create_account(host, "romeo", "secret")
    await administration.remove_account(host, "romeo")


async def disable(host):
    await administration.set_disabled(host, "romeo", True)


@pytest.mark.parametrize("closing", [remove, disable])
async def test_who_has_just_authenticated_binds_no_more(server, closing):
    romeo, juliet = await arrived(server), await arrived(server, "juliet")
    await closing(server.host)
    assert b"<not-authorized " in b"".join(romeo.raw())
    assert romeo.link.closed
    assert not juliet.link.closed
    assert list(server.host.arriving.values()) == ["juliet"]


async def test_arrivals_are_forgotten_when_they_have_bound_or_gone(server):
    bound, lost, closed = [await arrived(server) for _ in range(3)]
    bound.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    lost.stream.lost()
    closed.send("</stream:stream>")
    assert server.host.arriving == {}


async def test_an_announcement_is_for_those_who_are_available(server):
    romeo, quiet = await server.online("romeo"), server.login("juliet")
    elsewhere = await server.online("nurse", host=OTHER_HOST)
    assert (await administration.announce(server.host, "A feast", "Tonight")).values() == [1]
    assert to_bytes(romeo.stanzas()[-1]).decode() == (
        f"<message from='{HOST}' to='{romeo.jid.full}' type='headline'>"
        "<subject>Tonight</subject><body>A feast</body></message>"
    )
    assert (quiet.stanzas(), elsewhere.stanzas()) == ([], [])


async def test_a_message_goes_where_any_message_goes(server):
    administration.send_message(server.server, JID.parse("a@elsewhere.example/b"), ROMEO, "one", subject="s")
    await server.settled()
    romeo = await server.online("romeo")
    administration.send_message(server.server, JID.of("", HOST), romeo.jid, "two", kind="normal")
    bodies = [node.findtext("{jabber:client}body") for node in await romeo.arrived()]
    assert bodies == ["two"]
    assert [message.stanza for message in await server.storage.offline.load(HOST, "romeo", 10)] == []


async def test_messages_that_nobody_takes(server):
    with pytest.raises(StanzaError, match="remote-server-not-found"):
        administration.send_message(server.server, ROMEO, JID.parse("a@elsewhere.example"), "x")
    with pytest.raises(StanzaError, match="service-unavailable"):
        administration.send_message(server.server, ROMEO, JID.of("", HOST), "x")


async def test_asking_in_an_accounts_name(server):
    stored = element(ns.PRIVATE, "query", None, element("urn:a", "a", None, "kept"))
    assert await administration.ask_as(server.host, "romeo", "set", stored) is None
    wanted = element(ns.PRIVATE, "query", None, element("urn:a", "a"))
    answer = await administration.ask_as(server.host, "romeo", "get", wanted)
    assert answer is not None
    assert to_bytes(answer) == to_bytes(stored)
    with pytest.raises(StanzaError, match="not-acceptable"):
        await administration.ask_as(server.host, "romeo", "set", element(ns.PRIVATE, "query"))
    with pytest.raises(StanzaError, match=r"no module of .* handles"):
        await administration.ask_as(server.host, "romeo", "get", element("urn:unknown", "query"))


# --------------------------------------------------------------------- stanzas in the name of a session


def stanza(xml: str) -> Stanza:
    return Stanza.from_tree(from_bytes(xml.encode()))


async def test_a_stanza_as_if_the_client_had_sent_it(server):
    romeo, juliet = await server.online("romeo"), await server.online("juliet")
    romeo.session.inject(stanza(f"<message to='juliet@{HOST}' type='chat'><body>hi</body></message>"))
    assert to_bytes(juliet.stanzas()[-1]).decode() == (
        f"<message from='{romeo.jid.full}' to='juliet@{HOST}' type='chat'><body>hi</body></message>"
    )


async def test_it_is_not_acknowledged(server):
    romeo = await server.online("romeo")
    romeo.send(f"<enable xmlns='{ns.STREAM_MANAGEMENT}'/>")
    romeo.send(f"<message to='juliet@{HOST}'><body>theirs</body></message>")
    await server.settled()
    romeo.session.inject(stanza(f"<message to='juliet@{HOST}'><body>ours, to be stored</body></message>"))
    romeo.raw()
    romeo.send(f"<r xmlns='{ns.STREAM_MANAGEMENT}'/>")
    assert [node.get("h") for node in romeo.stanzas()] == ["1"]
    await server.settled()
    romeo.send(f"<r xmlns='{ns.STREAM_MANAGEMENT}'/>")
    assert [node.get("h") for node in romeo.stanzas()] == ["1"]


async def test_stanzas_that_no_client_may_send(server):
    romeo = await server.online("romeo")
    with pytest.raises(StreamError, match="invalid-from"):
        romeo.session.inject(stanza(f"<message from='juliet@{HOST}'/>"))
    with pytest.raises(StreamError, match="unsupported-stanza-type"):
        romeo.session.inject(Stanza(f"{ns.STREAM_MANAGEMENT}}}r", {}, b"", []))
    assert not romeo.link.closed


async def test_a_session_that_is_busy(server):
    romeo = await server.online("romeo")
    server.storage.set_available(True)
    romeo.send("<iq type='get' id='1'><query xmlns='jabber:iq:private'><a xmlns='urn:a'/></query></iq>")
    with pytest.raises(StanzaError, match="the session is busy"):
        romeo.session.inject(stanza(f"<message to='juliet@{HOST}'/>"))
    await server.settled()
    romeo.session.inject(stanza(f"<message to='{romeo.jid.full}'><body>x</body></message>"))
    assert romeo.stanzas()[-1].tag == "{jabber:client}message"

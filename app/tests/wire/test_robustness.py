"""Requests that make no sense, and bytes that are none: every request gets one answer, and nothing breaks.

A programming error in the server fails these tests twice: by the answer internal-server-error, and because the server
fixture looks for exceptions in the log.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.client import Client, stream_header
from tests.support.stanzas import condition_of

FORM = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>x</value></field></x>"
PAYLOADS = {
    "bind": ("urn:ietf:params:xml:ns:xmpp-bind", "bind", "<resource>x</resource>"),
    "session": ("urn:ietf:params:xml:ns:xmpp-session", "session", ""),
    "roster": ("jabber:iq:roster", "query", "<item jid='a@b.example'><group>x</group></item>"),
    "vCard": ("vcard-temp", "vCard", "<PHOTO><TYPE>image/png</TYPE><BINVAL>AAAA</BINVAL></PHOTO>"),
    "private": ("jabber:iq:private", "query", "<a xmlns='urn:a'/>"),
    "register": ("jabber:iq:register", "query", "<username>a b</username><password/>"),
    "last": ("jabber:iq:last", "query", ""),
    "version": ("jabber:iq:version", "query", "<name>x</name>"),
    "time": ("urn:xmpp:time", "time", "<tzo>x</tzo>"),
    "ping": ("urn:xmpp:ping", "ping", ""),
    "info": ("http://jabber.org/protocol/disco#info", "query", "<feature var='x'/>"),
    "items": ("http://jabber.org/protocol/disco#items", "query", "<item jid='x'/>"),
    "command": ("http://jabber.org/protocol/commands", "command", FORM),
    "block": ("urn:xmpp:blocking", "block", "<item jid='a@b.example'/>"),
    "unknown": ("urn:example:unheard-of", "thing", "<part/>"),
}
ATTRIBUTES = (
    "",
    " node=''",
    " node='http://jabber.org/protocol/admin#add-user' action='complete' sessionid='x'",
    " node='http://jabber.org/protocol/admin#delete-user' action='dance'",
    " ver='x' jid='@' type='y'",
)


def contents(inner: str) -> list[str]:
    """What may be wrong inside of a payload."""
    return [
        "",
        inner,
        inner * 2,
        "text only &amp; nothing else",
        "<item/><item jid=''/><item jid='@@'/>",
        "<group/><remove/><username/><password/>",
        "<query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query>",
        "<x xmlns='jabber:x:data'/>",
        "<x xmlns='jabber:x:data' type='submit'><field/><field var=''/><field var='accountjid'><value>@</value></field></x>",
        "<PHOTO><BINVAL>*** no base64 ***</BINVAL></PHOTO><PHOTO/>",
    ]


async def one_answer(client: Client, kind: str, payload: str, to: str | None) -> None:
    """The request is answered once, and not by an internal error."""
    answer = await client.iq(kind, payload, to=to)
    if answer.get("type") == "error":
        assert condition_of(answer) != "internal-server-error", payload


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("who", ["user", "administrator"])
async def test_requests_that_make_no_sense(server, account, name, who):
    romeo = await server.login(account("romeo") if who == "user" else server.administrator)
    other = account("juliet").jid
    namespace, element, inner = PAYLOADS[name]
    for kind in ("get", "set"):
        for attributes in ATTRIBUTES:
            for content in contents(inner):
                payload = f"<{element} xmlns='{namespace}'{attributes}>{content}</{element}>"
                for to in (None, "localhost", romeo.bare, other, "localhost/x"):
                    await one_answer(romeo, kind, payload, to)


@pytest.mark.parametrize("name", ["message", "presence"])
async def test_messages_and_presence_that_make_no_sense(server, account, name):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    odd = (
        "<body/><body/><subject/><thread/>",
        "<priority/>",
        "<priority>1</priority><priority>2</priority>",
        "<show>dancing</show><show/>",
        "<error/>",
        "<error type='x'><y/></error>",
        "<delay xmlns='urn:xmpp:delay'/><delay xmlns='urn:xmpp:delay' stamp='yesterday' from='localhost'/>",
        "<stanza-id xmlns='urn:xmpp:sid:0'/><stanza-id xmlns='urn:xmpp:sid:0' by='@'/>",
        "<c xmlns='http://jabber.org/protocol/caps'/>",
        "<x xmlns='vcard-temp:x:update'><photo/><photo>x</photo></x>",
        "<no-store xmlns='urn:xmpp:hints'/><store xmlns='urn:xmpp:hints'/>",
        "just text",
    )
    kinds = (
        *("", "chat", "groupchat", "headline", "normal", "error", "subscribe", "subscribed", "unsubscribe"),
        *("unsubscribed", "probe", "unavailable", "invisible", " "),
    )
    for kind in kinds:
        shown = f" type='{kind}'" if kind else ""
        for inner in odd:
            for to in ("", f" to='{juliet.full}'", f" to='{juliet.bare}'", " to='localhost'", f" to='{romeo.bare}'"):
                await romeo.send(f"<{name}{to}{shown}>{inner}</{name}>")
    for client in (romeo, juliet):
        for node in await client.drained():
            if node.get("type") == "error" and node.find("{jabber:client}error") is not None and node.get("id"):
                assert condition_of(node) != "internal-server-error"


_fragments = st.sampled_from(
    [
        stream_header(),
        "<?xml version='1.0'?>",
        "</stream:stream>",
        "<stream:features/>",
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHgAeA==</auth>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj14LHI9eA==</auth>",
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>=</response>",
        "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
        "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
        "<a xmlns='urn:xmpp:sm:3' h='1'/>",
        "<message to='localhost'/>",
        "<",
        ">",
        "'",
        " ",
        "&",
        "&amp;",
        "<![CDATA[",
        "]]>",
    ]
).map(str.encode)
_noise = st.lists(st.one_of(_fragments, st.binary(min_size=1, max_size=12)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=_noise)
async def test_noise_in_a_stream(server, noise):
    """Whatever comes, in whatever pieces: the server says nothing that is no XML, and serves the next one."""
    client = await server.stream()
    for piece in noise:
        try:
            await client.wire.write(piece)
        except ConnectionError:
            break
    await client.wire.heard(0.002)
    await client.wire.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=_noise)
async def test_noise_in_a_session(server, auth, noise):
    client = await server.online(auth.account("romeo"))
    for piece in noise:
        try:
            await client.wire.write(piece)
        except ConnectionError:
            break
    await client.wire.heard(0.002)
    await client.wire.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=_noise)
async def test_noise_instead_of_a_stream(server, noise):
    client = await server.connect(required=True)
    for piece in noise:
        try:
            await client.wire.write(piece)
        except ConnectionError:
            break
    await client.wire.close()

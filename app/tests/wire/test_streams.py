"""Stream negotiation and stream errors (RFC 6120 section 4)."""

from __future__ import annotations

import pytest

from tests.support.client import BIND, SASL, TLS, stream_header
from tests.support.matching import CLIENT, STREAM

SM = "urn:xmpp:sm:3"
LIMITS = "urn:xmpp:stream-limits:0"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


async def test_the_server_answers_with_its_own_header(server):
    client = await server.connect()
    await client.open_stream()
    assert client.header["from"] == "localhost"
    assert client.header["version"] == "1.0"
    assert client.header[XML_LANG] == "en"
    assert "to" not in client.header


async def test_stream_ids_are_long_and_differ(server):
    ids = set()
    for _ in range(5):
        client = await server.connect()
        await client.open_stream()
        ids.add(client.header["id"])
    assert len(ids) == 5
    assert all(len(stream_id) >= 22 for stream_id in ids), "128 bits take 22 characters of base64"


async def test_each_restart_gets_a_new_id(server, account):
    client = await server.stream("starttls")
    before = client.header["id"]
    await client.authenticate(account())
    assert client.header["id"] != before


async def test_the_header_names_the_host_that_was_asked_for(server):
    client = await server.connect(host="other.example")
    await client.open_stream()
    assert client.header["from"] == "other.example"


async def test_the_claimed_sender_is_echoed_over_tls_only(server):
    client = await server.connect("direct")
    await client.open_stream(**{"from": "juliet@localhost"})
    assert client.header["to"] == "juliet@localhost"
    clear = await server.connect()
    await clear.open_stream(**{"from": "juliet@localhost"})
    assert "to" not in clear.header, "RFC 6120, 4.7.1: no address before TLS"


@pytest.mark.parametrize("to", ["LOCALHOST", "LocalHost", "localhost."])
async def test_domains_are_compared_as_domains(server, to):
    client = await server.connect()
    await client.open_stream(to)
    assert client.header["from"] == "localhost"


async def test_features_before_and_after_authentication(server, account):
    client = await server.connect()
    await client.open_stream()
    assert client.offers(TLS, "starttls")
    assert client.offers(SASL, "mechanisms")
    assert not client.offers(BIND, "bind")
    await client.authenticate(account())
    assert client.offers(BIND, "bind")
    assert client.offers(SM, "sm")
    assert client.offers("urn:xmpp:features:rosterver", "ver")
    assert client.offers("urn:xmpp:features:pre-approval", "sub")
    assert not client.offers(TLS, "starttls")
    assert not client.offers(SASL, "mechanisms")


async def test_limits_are_announced(server_with, account):
    server = server_with({"limits": {"stanza_size": "20 KiB", "stanza_size_unauthenticated": "4 KiB"}})
    client = await server.connect()
    await client.open_stream()
    limits = client.feature(LIMITS, "limits")
    assert limits.findtext(f"{{{LIMITS}}}max-bytes") == str(4 * 1024)
    await client.authenticate(account())
    limits = client.feature(LIMITS, "limits")
    assert limits.findtext(f"{{{LIMITS}}}max-bytes") == str(20 * 1024)
    assert int(limits.findtext(f"{{{LIMITS}}}idle-seconds")) > 0


@pytest.mark.parametrize("transport", ["clear", "starttls", "direct"])
async def test_a_whole_login(server, account, transport):
    romeo = await server.login(account("romeo"), "garden", transport=transport)
    assert romeo.resource == "garden"
    await romeo.end()


@pytest.mark.parametrize("transport", ["clear", "starttls", "direct"])
async def test_byte_by_byte(server, account, transport):
    """Each stanza is handled as soon as its last byte is there."""
    romeo = await server.login(account("romeo"), transport=transport)
    for byte in f"<iq type='get' id='drip' to='{romeo.host}'><ping xmlns='urn:xmpp:ping'/></iq>".encode():
        await romeo.wire.write(bytes([byte]))
    await romeo.receives(f"<iq type='result' id='drip' from='{romeo.host}' to='{romeo.full}'/>")
    for byte in b"<presence><show>away</show></presence>":
        await romeo.wire.write(bytes([byte]))
    await romeo.receives(f"<presence from='{romeo.full}' to='{romeo.bare}'>{{more}}<show>away</show></presence>")


async def test_many_stanzas_in_one_piece(server, account):
    romeo = await server.online(account("romeo"))
    await romeo.send("".join(f"<message to='{romeo.full}' id='m{n}'><body>{n}</body></message>" for n in range(200)))
    for n in range(200):
        await romeo.receives(f"<message from='{romeo.full}' to='{romeo.full}' id='m{n}'><body>{n}</body></message>")


async def test_whitespace_between_stanzas_is_fine(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send(" \n\t")
    await romeo.settled()


async def test_stanzas_with_prefixes_of_the_header(server, account):
    """A header may declare prefixes, and its stanzas may use them; the recipient gets a stanza that stands alone."""
    romeo, juliet = await server.stream(), await server.online(account("juliet"))
    await romeo.authenticate(account("romeo"))
    await romeo.bind()
    second = await server.stream()
    await second.sasl(account("nurse"))
    await second.open_stream(**{"xmlns:x": "urn:example:x"})
    await second.bind()
    await second.send(f"<message to='{juliet.full}' type='chat'><x:note x:colour='red'>hello</x:note></message>")
    await juliet.receives(
        f"<message from='{second.full}' to='{juliet.full}' type='chat'>"
        "<note xmlns='urn:example:x' xmlns:p='urn:example:x' p:colour='red'>hello</note></message>"
    )


async def test_the_content_namespace_may_have_a_prefix(server, account):
    """RFC 6120, 4.8.5: a client may use a prefix for the content namespace; we serve it."""
    juliet = await server.online(account("juliet"))
    romeo = await server.stream()
    await romeo.authenticate(account("romeo"))
    await romeo.bind()
    await romeo.send(f"<c:message xmlns:c='jabber:client' to='{juliet.full}'><c:body>hi</c:body></c:message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}'><body>hi</body></message>")


# ----------------------------------------------------------------------------------------------- header errors


async def test_unknown_host(server):
    client = await server.connect()
    await client.send(stream_header("unknown.example"))
    header = await client.receives_header()
    assert header["from"] != "unknown.example"
    await client.stream_error("host-unknown")


async def test_header_without_to(server):
    client = await server.connect()
    await client.send(stream_header(None))
    await client.receives_header()
    await client.stream_error("host-unknown")


@pytest.mark.parametrize("version", ["0.9", "0", "", "abc", "-1.0"])
async def test_unsupported_version(server, version):
    client = await server.connect()
    await client.send(stream_header(version=version))
    await client.receives_header()
    await client.stream_error("unsupported-version")


async def test_header_without_version(server):
    client = await server.connect()
    await client.send(f"<stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAM}' to='localhost'>")
    await client.receives_header()
    await client.stream_error("unsupported-version")


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.99", "2.0"])
async def test_newer_versions_are_answered_with_ours(server, version):
    client = await server.connect()
    await client.open_stream(version=version)
    assert client.header["version"] == "1.0"


async def test_wrong_stream_namespace(server):
    client = await server.connect()
    await client.send(stream_header(**{"xmlns:stream": "urn:example:streams"}))
    await client.receives_header()
    await client.stream_error("invalid-namespace")


async def test_wrong_content_namespace(server):
    client = await server.connect()
    await client.send(stream_header(xmlns="jabber:nobody"))
    await client.receives_header()
    await client.stream_error("invalid-namespace")


async def test_server_streams_are_not_for_clients(server):
    client = await server.connect()
    await client.send(stream_header(xmlns="jabber:server"))
    await client.receives_header()
    await client.stream_error("invalid-namespace")


async def test_undeclared_stream_prefix(server):
    client = await server.connect()
    await client.send(f"<stream:stream xmlns='{CLIENT}' to='localhost' version='1.0'>")
    await client.receives_header()
    await client.stream_error("bad-namespace-prefix")


async def test_other_root_element(server):
    client = await server.connect()
    await client.send(f"<stream:flow xmlns='{CLIENT}' xmlns:stream='{STREAM}' to='localhost' version='1.0'>")
    await client.receives_header()
    await client.stream_error("bad-format")


async def test_something_that_is_no_xml(server):
    client = await server.connect()
    await client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await client.receives_header()
    await client.stream_error("not-well-formed")


async def test_other_encoding(server):
    client = await server.connect()
    header = stream_header().removeprefix("<?xml version='1.0'?>")
    await client.send(f"<?xml version='1.0' encoding='ISO-8859-1'?>{header}")
    await client.receives_header()
    await client.stream_error("unsupported-encoding")


async def test_utf_16_is_refused(server):
    client = await server.connect()
    await client.wire.write(stream_header().encode("utf-16"))
    await client.receives_header()
    await client.stream_error()


async def test_second_header(server):
    client = await server.connect()
    await client.open_stream()
    await client.send(stream_header())
    await client.stream_error()


async def test_header_from_another_account_after_authentication(server, account):
    """RFC 6120, 4.9.3.9: the address in the restarted stream is not the authenticated one."""
    client = await server.stream()
    assert (await client.sasl(account("romeo"))).tag == f"{{{SASL}}}success"
    client.wire.restart()
    await client.send(stream_header(**{"from": account("juliet").jid}))
    await client.receives_header()
    await client.stream_error("invalid-from")


async def test_header_too_long(server):
    client = await server.connect()
    await client.send(stream_header(x="x" * 20_000))
    await client.receives_header()
    await client.stream_error("policy-violation")


# ------------------------------------------------------------------------------------------------ XML errors

RESTRICTED = {
    "comment": "<!-- hello -->",
    "comment in a stanza": "<message><!-- hello --></message>",
    "processing instruction": "<?php echo ?>",
    "processing instruction in a stanza": "<message><?php echo ?></message>",
    "document type": "<!DOCTYPE x [<!ENTITY y 'z'>]>",
    "undefined entity": "<message><body>&writ;</body></message>",
    "undefined entity in an attribute": "<message to='&writ;'/>",
}


@pytest.mark.parametrize("xml", RESTRICTED.values(), ids=RESTRICTED.keys())
async def test_restricted_xml(server, account, xml):
    romeo = await server.login(account("romeo"))
    await romeo.send(xml)
    await romeo.stream_error("restricted-xml")


@pytest.mark.parametrize("xml", RESTRICTED.values(), ids=RESTRICTED.keys())
async def test_restricted_xml_before_authentication(server, xml):
    client = await server.stream()
    await client.send(xml)
    await client.stream_error("restricted-xml")


MALFORMED = {
    "end tag of something else": "<message><body>hi</message></body>",
    "attribute without quotes": "<message to=romeo@localhost/>",
    "attribute twice": "<message to='a@localhost' to='b@localhost'/>",
    "ampersand": "<message><body>a & b</body></message>",
    "less than in an attribute": "<message to='a<b'/>",
    "no name": "< message/>",
    "control character": "<message><body>\x01</body></message>",
    "reference to a control character": "<message><body>&#1;</body></message>",
}


@pytest.mark.parametrize("xml", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_xml(server, account, xml):
    romeo = await server.login(account("romeo"))
    await romeo.send(xml)
    await romeo.stream_error("not-well-formed")


async def test_undeclared_prefix(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send("<message><foo:bar/></message>")
    await romeo.stream_error("bad-namespace-prefix")


async def test_predefined_entities_and_character_references_are_fine(server, account):
    romeo = await server.online(account("romeo"))
    await romeo.send(f"<message to='{romeo.full}'><body>&lt;&amp;&gt;&quot;&apos;&#65;&#x1F600;</body></message>")
    await romeo.receives(
        f"<message from='{romeo.full}' to='{romeo.full}'><body>&lt;&amp;&gt;&quot;&apos;A\U0001f600</body></message>"
    )


async def test_character_data_sections_are_fine(server, account):
    romeo = await server.online(account("romeo"))
    await romeo.send(f"<message to='{romeo.full}'><body><![CDATA[<b> & ]]]]></body></message>")
    await romeo.receives(f"<message from='{romeo.full}' to='{romeo.full}'><body>&lt;b&gt; &amp; ]]</body></message>")


async def test_text_between_stanzas(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send("hello<presence/>")
    await romeo.stream_error("bad-format")


async def test_stanza_that_is_too_big(server_with, account):
    server = server_with({"limits": {"stanza_size": "20 KiB", "stanza_size_unauthenticated": "4 KiB"}})
    romeo = await server.online(account("romeo"))
    fits = "x" * 19_000
    await romeo.send(f"<message to='{romeo.full}'><body>{fits}</body></message>")
    await romeo.receives(f"<message from='{romeo.full}' to='{romeo.full}'><body>{fits}</body></message>")
    await romeo.send(f"<message to='{romeo.full}'><body>{'x' * 21_000}</body></message>")
    await romeo.stream_error("policy-violation")


# ------------------------------------------------------------------------------------- things at a wrong time


@pytest.mark.parametrize("stanza", ["<message to='a@localhost'/>", "<presence/>", "<iq type='get' id='1'/>"])
async def test_stanza_before_authentication(server, stanza):
    client = await server.stream()
    await client.send(stanza)
    await client.stream_error("not-authorized")


async def test_stanza_before_binding(server, account):
    client = await server.authenticated(account("romeo"))
    await client.send(f"<message to='{account('juliet').jid}'><body>hi</body></message>")
    await client.stream_error("not-authorized")


async def test_unknown_element_after_binding(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send("<pubsub xmlns='jabber:client'/>")
    await romeo.stream_error("unsupported-stanza-type")


async def test_sasl_after_authentication(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>AAAA</auth>")
    await romeo.stream_error()


async def test_second_bind(server, account):
    """RFC 6120, 7.1: a stream has one resource; asking for another is refused and the stream goes on."""
    romeo = await server.login(account("romeo"))
    answer = await romeo.set(f"<bind xmlns='{BIND}'/>")
    assert answer.get("type") == "error"
    await romeo.settled()


async def test_forged_from(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<message from='{account('juliet').jid}' to='{romeo.bare}'/>")
    await romeo.stream_error("invalid-from")


@pytest.mark.parametrize("part", ["bare", "full"])
async def test_own_address_as_from_is_fine(server, account, part):
    """RFC 6120, 8.1.2.1: what the client says is checked, and the full JID is sent on."""
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<message from='{getattr(romeo, part)}' to='{juliet.full}'><body>hi</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}'><body>hi</body></message>")


# ---------------------------------------------------------------------------------------------------- closing


async def test_closing_the_stream(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.send("</stream:stream>")
    await romeo.closed_by_server()


async def test_closing_before_authentication(server):
    client = await server.stream()
    await client.send("</stream:stream>")
    await client.closed_by_server()


async def test_what_was_sent_before_the_end_is_delivered(server, account):
    juliet = await server.online(account("juliet"))
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<message to='{juliet.full}'><body>farewell</body></message></stream:stream>")
    await romeo.closed_by_server()
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}'><body>farewell</body></message>")


async def test_streams_that_do_not_log_in_are_closed(server_with):
    server = server_with({"limits": {"login_time": "1 s"}})
    client = await server.stream()
    await client.send(" ")
    await client.stream_error("connection-timeout")


@pytest.mark.one_worker("stops one program; a cluster's are in app/tests/cluster")
async def test_shutdown_tells_the_clients(server_with, account):
    server = server_with({"general": {"loglevel": "debug"}})
    romeo = await server.online(account("romeo"))
    assert server.program.stop() == 0
    await romeo.stream_error("system-shutdown")


async def test_default_language_of_the_stream(server, account):
    """RFC 6120, 4.7.4: the stream's xml:lang holds for stanzas that have none of their own."""
    juliet = await server.online(account("juliet"))
    romeo = await server.stream()
    assert (await romeo.sasl(account("romeo"))).tag == f"{{{SASL}}}success"
    await romeo.open_stream(**{"xml:lang": "it"})
    await romeo.bind()
    await romeo.send(f"<message to='{juliet.full}'><body>ciao</body></message>")
    received = await juliet.next()
    assert received.get(XML_LANG) == "it"
    await romeo.send(f"<message to='{juliet.full}' xml:lang='de'><body>hallo</body></message>")
    received = await juliet.next()
    assert received.get(XML_LANG) == "de"

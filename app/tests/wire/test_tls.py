"""STARTTLS (RFC 6120 section 5) and direct TLS (XEP-0368). Attacks on them are in security/, rows 7 and 8."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.support.certificates import make_certificate
from tests.support.client import TLS, client_context

pytestmark = pytest.mark.one_worker("TLS ends at the worker that has the connection")

PROCEED = f"<proceed xmlns='{TLS}'/>"


async def test_starttls_is_offered_and_required(server):
    client = await server.connect(required=True)
    features = await client.open_stream()
    starttls = client.feature(TLS, "starttls")
    assert starttls.find(f"{{{TLS}}}required") is not None
    assert client.mechanisms == [], "no mechanism before TLS"
    assert features[0].tag == f"{{{TLS}}}starttls"


async def test_starttls_is_optional_where_the_listener_says_so(server):
    client = await server.connect()
    await client.open_stream()
    assert client.feature(TLS, "starttls").find(f"{{{TLS}}}required") is None
    assert client.mechanisms


async def test_features_after_starttls(server):
    client = await server.connect(required=True)
    await client.open_stream()
    await client.starttls()
    assert not client.offers(TLS, "starttls")
    assert "PLAIN" in client.mechanisms


async def test_chat_between_starttls_and_direct_tls(server, account):
    romeo = await server.login(account("romeo"), transport="starttls")
    juliet = await server.login(account("juliet"), transport="direct")
    await romeo.send(f"<message to='{juliet.full}' type='chat'><body>hi</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}' type='chat'><body>hi</body></message>")
    await juliet.send(f"<message to='{romeo.full}' type='chat'><body>{'x' * 50_000}</body></message>")
    await romeo.receives(
        f"<message from='{juliet.full}' to='{romeo.full}' type='chat'><body>{'x' * 50_000}</body></message>"
    )


async def test_starttls_twice(server):
    client = await server.stream("starttls")
    await client.send(f"<starttls xmlns='{TLS}'/>")
    await client.receives(f"<failure xmlns='{TLS}'/>")
    await client.closed_by_server()


async def test_starttls_after_authentication(server, account):
    client = await server.authenticated(account("romeo"))
    await client.send(f"<starttls xmlns='{TLS}'/>")
    await client.receives(f"<failure xmlns='{TLS}'/>")
    await client.closed_by_server()


async def test_no_tls_after_proceed(server):
    """A client that goes on in clear after <proceed/> is cut off and hears nothing."""
    client = await server.connect(required=True)
    await client.open_stream()
    await client.send(f"<starttls xmlns='{TLS}'/>")
    await client.receives(PROCEED)
    await client.send("<presence/>" * 10)
    remains = b""
    while data := await client.wire.raw():
        remains += data
    assert b"<" not in remains, "nothing in clear"


@pytest.mark.parametrize("alpn", [None, "xmpp-client"])
async def test_direct_tls_with_and_without_alpn(server, account, alpn):
    client = await server.connect("direct", context=client_context(alpn=alpn))
    assert client.wire.tls.selected_alpn_protocol() == alpn
    await client.open_stream()
    assert not client.offers(TLS, "starttls")
    await client.authenticate(account())


async def test_direct_tls_with_the_protocol_of_something_else(server):
    """RFC 7301, 3.2: a client that speaks only http/1.1 is refused by the handshake, or gets no protocol."""
    try:
        client = await server.connect("direct", context=client_context(alpn="http/1.1"))
    except (ssl.SSLError, ConnectionError):
        return
    assert client.wire.tls.selected_alpn_protocol() is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("transport", ["starttls", "direct"])
async def test_versions(server, account, version, transport):
    context = client_context()
    context.minimum_version = context.maximum_version = version
    client = await server.connect(transport, context=context, required=True)
    if transport == "starttls":
        await client.open_stream()
        await client.send(f"<starttls xmlns='{TLS}'/>")
        await client.receives(PROCEED)
        await client.wire.start_tls(context, "localhost")
    await client.open_stream()
    assert client.wire.tls.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
    await client.authenticate(account())


def permissive_server_accepts(context: ssl.SSLContext, certificate: Path, key: Path) -> bool:
    """Whether a handshake of this client would succeed with a server that takes everything.

    Otherwise the client's own OpenSSL would be what refuses, and a test with it could not fail.
    """
    permissive = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    permissive.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    permissive.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    permissive.load_cert_chain(certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = permissive.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        finished = 0
        for side in (client, server):
            try:
                side.do_handshake()
                finished += 1
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
        if finished == 2:
            return True
    return False


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1"])
async def test_old_versions_are_refused(server, name):
    context = client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[name]
    if not permissive_server_accepts(context, server.program.certificate, server.program.key):
        pytest.skip(f"the OpenSSL here does not speak {name}, nor could the server")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.connect("direct", context=context)
    client = await server.connect(required=True)
    await client.open_stream()
    await client.send(f"<starttls xmlns='{TLS}'/>")
    await client.receives(PROCEED)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.wire.start_tls(context, "localhost")


async def test_compression_and_renegotiation_are_off(server):
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = await server.connect("direct", context=context)
    assert client.wire.tls.compression() is None
    name, _, bits = client.wire.tls.cipher()
    assert "ECDHE" in name, "forward secrecy"
    assert bits >= 128


@pytest.mark.parametrize(
    "ciphers", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"]
)
async def test_weak_ciphers_are_refused(server, ciphers):
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    assert permissive_server_accepts(context, server.program.certificate, server.program.key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.connect("direct", context=context)


async def test_garbage_instead_of_a_handshake(server):
    client = await server.connect(required=True)
    await client.wire.write(b"\x16\x03\x01" + b"\x00" * 40 + b"\xff" * 200)
    assert b"stream" not in await client.wire.raw()
    await server.stream("direct")


async def test_each_host_may_have_its_own_certificate(server_with, tmp_path):
    certificate, key = make_certificate(tmp_path, "other", ["other.example"])
    server = server_with({"host": {"other.example": {"tls": {"certificate": str(certificate), "key": str(key)}}}})

    async def name_of(host: str) -> str:
        client = await server.connect("direct", host=host)
        found = x509.load_der_x509_certificate(client.wire.peer_certificate())
        return str(found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    assert await name_of("other.example") == "other.example"
    assert await name_of("localhost") == "localhost"
    assert await name_of("unknown.example") == "localhost"


async def test_a_listener_without_direct_tls(server_with):
    listener = {"address": "127.0.0.1", "port": 0, "direct_tls": False}
    server = server_with({"listen": {"c2s": [listener]}})
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.connect("direct")
    client = await server.connect(required=True)
    await client.open_stream()
    await client.starttls()

"""Row 8: with ``starttls_required`` nothing that matters is done in clear (CVE-2014-8760 went round by compression)."""

from __future__ import annotations

import pytest

from tests.support.client import SASL

pytestmark = pytest.mark.one_worker("TLS ends at the worker that has the connection")


@pytest.mark.parametrize(
    "detour",
    [
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlc2FtZQ==</auth>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPXg=</auth>",
    ],
    ids=["PLAIN", "SCRAM"],
)
async def test_sasl_before_required_tls(server, detour):
    client = await server.connect(required=True)
    await client.open_stream()
    await client.send(detour)
    await client.receives(f"<failure xmlns='{SASL}'><encryption-required/>{{more}}</failure>")


@pytest.mark.parametrize(
    "detour",
    [
        "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>",
        "<iq type='set' id='1'><query xmlns='jabber:iq:auth'><username>a</username><password>b</password></query></iq>",
        "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>",
        "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>",
        "<message to='romeo@localhost'><body>hi</body></message>",
    ],
    ids=["bind", "register", "jabber:iq:auth", "compress", "resume", "message"],
)
async def test_nothing_else_before_required_tls(server, detour):
    client = await server.connect(required=True)
    await client.open_stream()
    await client.send(detour)
    await client.stream_error()

"""Row 7: STARTTLS injection, plaintext that is buffered before TLS (the class of CVE-2011-0411)."""

from __future__ import annotations

import pytest

from tests.support import sasl
from tests.support.client import SASL, TLS, client_context

pytestmark = pytest.mark.one_worker("TLS ends at the worker that has the connection")

PROCEED = f"<proceed xmlns='{TLS}'/>"


async def test_bytes_behind_starttls_are_dropped(server):
    """What came in clear before the handshake must not be taken for what came after it (CVE-2011-0411)."""
    client = await server.connect(required=True)
    await client.open_stream()
    injected = f"<auth xmlns='{SASL}' mechanism='PLAIN'>{sasl.b64(sasl.plain('romeo', 'sesame'))}</auth>"
    await client.send(f"<starttls xmlns='{TLS}'/><stream:stream to='localhost'>{injected}")
    await client.receives(PROCEED)
    await client.wire.start_tls(client_context(), "localhost")
    await client.open_stream()
    assert client.mechanisms, "a fresh stream, as if nothing had been injected"
    await client.send("</stream:stream>")
    await client.closed_by_server()

"""The lowest layer of the test client: a TCP or TLS connection, and the XML stream on it cut into events."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections import deque
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from tests.support.matching import STREAM, show

PATIENCE = float(os.environ.get("MONKTALK_TEST_PATIENCE", "10"))
"""Seconds to wait for anything before a test fails. Only failing tests wait so long."""


@dataclass
class Header:
    """The server opened (or reopened) its stream."""

    attributes: dict[str, str]


class StreamEnd:
    """The server closed its stream (``</stream:stream>``)."""


class ConnectionEnd:
    """The server closed the connection."""


Event = Header | ET.Element | StreamEnd | ConnectionEnd


class _Cutter:
    """Turns the bytes of one stream into events; a new one for each stream header."""

    def __init__(self) -> None:
        self._parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(("start", "end"))
        self._depth = 0
        self._root: ET.Element | None = None

    def feed(self, data: bytes) -> list[Event]:
        self._parser.feed(data)
        if hasattr(self._parser, "flush"):  # expat 2.6 defers events; Python 3.13 can ask for them
            self._parser.flush()
        events: list[Event] = []
        for kind, node in self._parser.read_events():  # type: ignore[misc]  # other events have other shapes
            assert isinstance(node, ET.Element)
            if kind == "start":
                self._depth += 1
                if self._depth == 1:
                    assert node.tag == f"{{{STREAM}}}stream", f"the server opens with {node.tag}"
                    self._root = node
                    events.append(Header(dict(node.attrib)))
                continue
            self._depth -= 1
            if self._depth == 0:
                events.append(StreamEnd())
            elif self._depth == 1 and self._root is not None:
                node.tail = None
                events.append(node)
                self._root.clear()
        return events


class Wire:
    """A connection. ``transcript`` tells what went over it, for people who read a failed test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self.name = name
        self.transcript: list[str] = []
        self._reader = reader
        self._writer = writer
        self._cutter = _Cutter()
        self._events: deque[Event] = deque()
        self._ended = False

    @classmethod
    async def connect(
        cls,
        address: str,
        port: int,
        *,
        name: str = "client",
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        source: str | None = None,
    ) -> Wire:
        """Connect, with TLS from the first byte if a context is given; ``source`` is the local address."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(
                address,
                port,
                ssl=tls,
                server_hostname=server_hostname if tls else None,
                local_addr=(source, 0) if source else None,
            )
        return cls(reader, writer, name)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, or None in clear."""
        found: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return found

    def peer_certificate(self) -> bytes:
        """The server's certificate, DER."""
        assert self.tls is not None, "the connection is in clear"
        certificate = self.tls.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.transcript.append(f"{self.name} → {data[:2000].decode(errors='replace')}")
        self._writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Do the TLS handshake on the open connection."""
        assert not self._events, f"the server said something before the handshake: {self._events}"
        async with asyncio.timeout(PATIENCE):
            await self._writer.start_tls(context, server_hostname=server_hostname)
        self.restart()
        self.transcript.append(f"{self.name} · TLS")

    def restart(self) -> None:
        """Expect a new stream header."""
        self._cutter = _Cutter()

    async def event(self, patience: float = PATIENCE) -> Event:
        """The next event; fails when nothing comes."""
        try:
            async with asyncio.timeout(patience):
                while not self._events:
                    await self._read()
        except TimeoutError:
            raise AssertionError(f"{self.name}: nothing came within {patience:g} s\n{self.story()}") from None
        return self._events.popleft()

    async def heard(self, patience: float = 0) -> bool:
        """Whether something has come (within ``patience`` seconds) that was not looked at yet; it stays there."""
        if not self._events:
            try:
                async with asyncio.timeout(max(patience, 0.001)):
                    await self._read()
            except TimeoutError:
                return False
        return bool(self._events)

    async def raw(self) -> bytes:
        """Bytes that came, uncut; empty at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self._reader.read(65536)
            except ConnectionError:
                return b""

    async def _read(self) -> None:
        if self._ended:
            self._events.append(ConnectionEnd())
            return
        try:
            data = await self._reader.read(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""  # a reset is an end too
        if not data:
            self._ended = True
            self.transcript.append(f"{self.name} · connection closed by the server")
            return
        for event in self._cutter.feed(data):
            self._events.append(event)
            self.transcript.append(f"{self.name} ← {_describe(event)}")

    def story(self) -> str:
        """The transcript, the last lines of it if it is long."""
        return "\n".join(self.transcript[-60:])

    def drop(self) -> None:
        """Lose the connection as a dead network does: no end of stream, no FIN, no more acknowledgements."""
        sock = self._writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection without ado."""
        self._writer.transport.abort()
        try:
            await self._writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            self.transcript.append(f"{self.name} · closed")  # the peer was faster; it is closed all the same


def _describe(event: Event) -> str:
    if isinstance(event, Header):
        return f"<stream:stream {event.attributes}>"
    if isinstance(event, ET.Element):
        return show(event)[:2000]
    return "</stream:stream>"

"""Headers of the PROXY protocol, as a load balancer writes them."""

from __future__ import annotations

import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)
"""The header of a connection of the proxy's own, such as a health check."""


def v1(source: str, port: int) -> bytes:
    """Version 1, for a client at that address and port."""
    family, destination = ("TCP6", "2001:db8::2") if ":" in source else ("TCP4", "198.51.100.2")
    return f"PROXY {family} {source} {destination} {port} 5222\r\n".encode()


def v2(
    source: str,
    port: int,
    destination: str = "198.51.100.2",
    destination_port: int = 5222,
    *,
    family: int = socket.AF_INET,
    tlvs: bytes = b"",
) -> bytes:
    """Version 2, for a client at that address and port; ``tlvs`` come after the addresses."""
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    body = addresses + struct.pack("!HH", port, destination_port) + tlvs
    return SIGNATURE + struct.pack("!BBH", 0x21, 0x11 if family == socket.AF_INET else 0x21, len(body)) + body

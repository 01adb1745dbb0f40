"""The PROXY protocol: the header by which a load balancer says from where a connection comes.

Both versions of HAProxy's specification (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), sans-I/O: bytes in,
a :class:`Header` out. Whether the peer is one that may say so is for the caller to know.
"""

from __future__ import annotations

import re
import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

MAX_V1: Final = 107
"""Bytes of a header of version 1, the line end included: so many the longest one has."""

MAX_V2: Final = 4096
"""Bytes that may follow the fixed part of version 2: addresses, and TLVs, which are skipped."""

_PREFIX_V1: Final = b"PROXY "
_SIGNATURE_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_V2: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES: Final = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII).fullmatch


class BadHeader(ValueError):
    """What a proxy sent is not a header; the message says what is wrong and repeats nothing of it."""


class Header(NamedTuple):
    """A complete header. ``address`` is "" when the proxy speaks for itself (a health check) or does not know.

    ``rest`` is what came after it: the first bytes of the client.
    """

    address: str
    port: int
    rest: bytes


class HeaderReader:
    """Reads the header of one connection, in however many pieces it comes."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    @property
    def begun(self) -> bool:
        """Whether a part of a header has come."""
        return bool(self._data)

    def receive(self, data: bytes) -> Header | None:
        """Take bytes; returns the header once it is complete. Raises :class:`BadHeader`."""
        self._data += data
        for beginning, read in ((_SIGNATURE_V2, _read_v2), (_PREFIX_V1, _read_v1)):
            known = min(len(beginning), len(self._data))
            if self._data[:known] == beginning[:known]:
                return read(self._data) if known == len(beginning) else None
        raise BadHeader("there is no PROXY header")


def _read_v1(data: bytes) -> Header | None:
    """Version 1: ``PROXY TCP4 192.0.2.1 198.51.100.1 56324 5222`` and a line end."""
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise BadHeader(f"the line is longer than {MAX_V1} bytes")
        return None
    rest = data[end + 2 :]
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise BadHeader("the line is not ASCII") from None
    if words[1] == "UNKNOWN":
        return Header("", 0, rest)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadHeader("the line is not one of TCP4, TCP6 or UNKNOWN with two addresses and two ports")
    kind = IPv4Address if words[1] == "TCP4" else IPv6Address
    source, _destination = (_address_v1(kind, word) for word in words[2:4])
    port, _destination_port = (_port_v1(word) for word in words[4:6])
    return Header(source, port, rest)


def _address_v1(kind: type[IPv4Address | IPv6Address], text: str) -> str:
    try:
        if "%" in text:
            raise AddressValueError("a zone means nothing on another host")
        return plain_address(kind(text))
    except AddressValueError:
        raise BadHeader("an address is not of the family that the line names") from None


def _port_v1(text: str) -> int:
    if not _PORT(text) or int(text) > 65535:
        raise BadHeader("a port is not a number from 0 to 65535")
    return int(text)


def _read_v2(data: bytes) -> Header | None:
    """Version 2: signature, command, family, length, addresses, TLVs."""
    if len(data) < _FIXED_V2:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(_SIGNATURE_V2))
    if command not in (_LOCAL, _PROXY):
        raise BadHeader("neither version nor command is known")
    if length > MAX_V2:
        raise BadHeader(f"the header announces more than {MAX_V2} bytes")
    if command == _PROXY:
        if family not in _ADDRESSES:
            raise BadHeader("the connection that it tells of is not TCP")
        if length < _ADDRESSES[family]:
            raise BadHeader("the header is too short for the addresses of its family")
    if len(data) < _FIXED_V2 + length:
        return None
    rest = data[_FIXED_V2 + length :]
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return Header("", 0, rest)
    if family == _TCP4:
        source, _, port, _ = struct.unpack_from("!4s4sHH", data, _FIXED_V2)
        return Header(plain_address(IPv4Address(source)), port, rest)
    source, _, port, _ = struct.unpack_from("!16s16sHH", data, _FIXED_V2)
    return Header(plain_address(IPv6Address(source)), port, rest)


def plain_address(address: IPv4Address | IPv6Address) -> str:
    """An address as text; one of IPv4 inside of IPv6 as that of IPv4, so that it is counted with its like."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def listed(peer: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether the address ``peer`` is in one of the networks; what is no address is in none."""
    try:
        address = ip_address(plain_address(ip_address(peer)))
    except ValueError:
        return False
    return any(address in network for network in networks)

"""Headers of the PROXY protocol, in order, broken, and in pieces."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monktalk.xmpp.net.proxy import MAX_V1, MAX_V2, BadHeader, Header, HeaderReader, listed
from tests.support.proxy import SIGNATURE, v1, v2

STREAM = b"<stream:stream"
TLV = b"\x20\x00\x05\x01\x00\x00\x00\x00"  # PP2_TYPE_SSL without anything inside


def read(data: bytes) -> Header | None:
    return HeaderReader().receive(data)


# -- version 1 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "address", "port"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 5222", "192.0.2.1", 56324),
        (b"PROXY TCP6 2001:DB8::1 2001:db8::2 1 5222", "2001:db8::1", 1),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 65535 5222", "192.0.2.1", 65535),
        (b"PROXY UNKNOWN", "", 0),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535", "", 0),
    ],
)
def test_a_line_tells_the_client(line, address, port):
    assert read(line + b"\r\n" + STREAM) == Header(address, port, STREAM)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY ",
        b"PROXY TCP4",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 5222 more",
        b"PROXY  TCP4 192.0.2.1 198.51.100.2 56324 5222",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 56324 5222",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 5222",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 56324 5222",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 56324 5222",
        b"PROXY TCP4 192.0.2.1 nowhere 56324 5222",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 5222",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 5222",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 5222",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 080 5222",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 80 +5222",
        b"PROXY TCP4 192.0.2.\xb2 198.51.100.2 80 5222",
    ],
)
def test_a_line_that_is_not_one_is_refused(line):
    with pytest.raises(BadHeader):
        read(line + b"\r\n")


def test_a_line_has_a_limit_wherever_its_end_would_come():
    longest = b"PROXY UNKNOWN " + b"f" * (MAX_V1 - len(b"PROXY UNKNOWN \r\n")) + b"\r\n"
    assert read(longest) == Header("", 0, b"")
    with pytest.raises(BadHeader, match="longer than 107"):
        read(longest[:-2] + b"f\r\n")
    with pytest.raises(BadHeader, match="longer than 107"):
        read(b"PROXY UNKNOWN ".ljust(MAX_V1, b"f"))


# -- version 2 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tlvs", [b"", TLV, TLV * 100])
@pytest.mark.parametrize(
    ("family", "source", "destination", "address"),
    [
        (socket.AF_INET, "192.0.2.1", "198.51.100.2", "192.0.2.1"),
        (socket.AF_INET6, "2001:db8::1", "2001:db8::2", "2001:db8::1"),
        (socket.AF_INET6, "::ffff:192.0.2.1", "::ffff:198.51.100.2", "192.0.2.1"),
    ],
)
def test_a_binary_header_tells_the_client(family, source, destination, address, tlvs):
    assert read(v2(source, 56324, destination, 5222, family=family, tlvs=tlvs) + STREAM) == Header(
        address, 56324, STREAM
    )


@pytest.mark.parametrize(
    ("command", "family", "rest"),
    [
        (0x20, 0x00, b""),
        (0x20, 0x11, b"\0" * 12),
        (0x20, 0xFF, b"whatever"),
        (0x21, 0x00, b""),
        (0x21, 0x00, TLV),
        (0x21, 0x31, b"\0" * 216),
    ],
)
def test_a_proxy_may_speak_for_itself_or_not_know(command, family, rest):
    header = SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest
    assert read(header + STREAM) == Header("", 0, STREAM)


@pytest.mark.parametrize(
    ("command", "family", "length"),
    [
        (0x11, 0x11, 12),  # another version
        (0x22, 0x11, 12),  # another command
        (0x21, 0x12, 12),  # UDP
        (0x21, 0x01, 12),  # no protocol
        (0x21, 0x41, 12),  # no such family
        (0x21, 0x11, 11),  # too short for its addresses
        (0x21, 0x21, 35),
        (0x21, 0x31, 215),
        (0x21, 0x11, MAX_V2 + 1),
    ],
)
def test_a_binary_header_that_is_not_one_is_refused_before_it_has_come(command, family, length):
    with pytest.raises(BadHeader):
        read(SIGNATURE + struct.pack("!BBH", command, family, length))


# -- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [STREAM, b"\x16\x03\x01", b"PROXZ", b"proxy TCP4", b"\r\n\r\n\0\r\nQUIT\r", b"\r\n\r\nP"]
)
def test_what_begins_otherwise_is_refused_at_once(data):
    with pytest.raises(BadHeader, match="no PROXY header"):
        read(data)


HEADERS = [v1("192.0.2.1", 56324), v2("192.0.2.1", 56324, "198.51.100.2", 5222, tlvs=TLV)]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_may_come_byte_by_byte(header):
    reader = HeaderReader()
    assert not reader.begun
    for index in range(len(header) - 1):
        assert reader.receive(header[index : index + 1]) is None
        assert reader.begun
    assert reader.receive(header[-1:]) == Header("192.0.2.1", 56324, b"")


@given(st.sampled_from(HEADERS), st.binary(max_size=40), st.lists(st.integers(min_value=0, max_value=80), max_size=8))
def test_however_it_is_cut_it_says_the_same(header, rest, cuts):
    whole = header + rest
    reader, found = HeaderReader(), None
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    for part in (whole[start:end] for start, end in pairwise(edges)):
        found = reader.receive(part) if found is None else found._replace(rest=found.rest + part)
    assert found == Header("192.0.2.1", 56324, rest)


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary()
)
@example(b"PROXY TCP4 ", b"1.1.1.1 1.1.1.1 1 \r\n")
@example(SIGNATURE, b"\x21\x21\xff\xff")
def test_nothing_else_comes_out_of_any_bytes(beginning, data):
    with contextlib.suppress(BadHeader):
        header = read(beginning + data)
        if header is None:
            assert len(beginning + data) <= 16 + MAX_V2
        else:
            assert 0 <= header.port <= 65535
            assert (beginning + data).endswith(header.rest)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.1", True),
        ("192.0.3.1", False),
        ("::ffff:192.0.2.1", True),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("fe80::1%eth0", False),
        ("unix", False),
        ("", False),
    ],
)
def test_who_is_listed(peer, expected):
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    assert listed(peer, networks) is expected

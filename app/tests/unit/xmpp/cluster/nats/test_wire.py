"""NATS on the wire."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.xmpp.cluster.nats import wire
from monktalk.xmpp.cluster.nats.wire import Info, Message, Parser, Ping, Pong, ProtocolError, Refusal

CONVERSATION = (
    b'INFO {"server_id":"X","headers":true}\r\n'
    b"+OK\r\n"
    b"PING\r\n"
    b"MSG u.alice 7 5\r\nhello\r\n"
    b"MSG u.alice 7 _INBOX.1 0\r\n\r\n"
    b"HMSG _INBOX.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG u.bob 8 reply.to 21 23\r\nNATS/1.0\r\nKind: a\r\n\r\n\r\n\r\n"
    b"pong\r\n"
    b"-ERR 'Permissions Violation for Subscription'\r\n"
)
EVENTS = [
    Info({"server_id": "X", "headers": True}),
    Ping(),
    Message(b"u.alice", 7, b"", b"hello"),
    Message(b"u.alice", 7, b"_INBOX.1", b""),
    Message(b"_INBOX.1", 9, b"", b"", wire.NO_RESPONDERS),
    Message(b"u.bob", 8, b"reply.to", b"\r\n"),
    Pong(),
    Refusal("Permissions Violation for Subscription"),
]


def test_a_conversation():
    assert Parser().receive(CONVERSATION) == EVENTS


@given(st.lists(st.integers(1, len(CONVERSATION) - 1), max_size=6))
def test_it_may_come_in_pieces(cuts):
    parser, found, begin = Parser(), [], 0
    for cut in [*sorted(cuts), len(CONVERSATION)]:
        found += parser.receive(CONVERSATION[begin:cut])
        begin = cut
    assert found == EVENTS


def test_a_payload_may_look_like_anything():
    payload = b"PING\r\nMSG a 1 2\r\n"
    assert Parser().receive(b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload)) == [Message(b"a", 1, b"", payload)]


@pytest.mark.parametrize(
    "data",
    [
        b"MSG a 1\r\n",
        b"MSG a 1 r x y\r\n",
        b"MSG a 1 -2\r\n",
        b"MSG a one 2\r\nab\r\n",
        b"MSG a 1 2\r\nabc\r\n",
        b"MSG a 1 999999999\r\n",
        b"HMSG a 1 4\r\n",
        b"HMSG a 1 4 4\r\nHTTP\r\n",
        b"INFO {\r\n",
        b"INFO 1\r\n",
        b"HELLO\r\n",
        b"\r\n",
        b"P" * (wire.MAX_CONTROL_LINE + 1),
    ],
)
def test_what_is_no_nats_is_refused(data):
    with pytest.raises(ProtocolError):
        Parser().receive(data)


def test_what_is_sent():
    assert wire.publish(b"a.b", b"xyz") == b"PUB a.b 3\r\nxyz\r\n"
    assert wire.publish(b"a.b", b"", b"r") == b"PUB a.b r 0\r\n\r\n"
    assert wire.subscribe(b"a", 3) == b"SUB a 3\r\n"
    assert wire.subscribe(b"a", 3, b"q") == b"SUB a q 3\r\n"
    assert wire.unsubscribe(3) == b"UNSUB 3\r\n"


def test_connect_says_who_we_are_and_shows_credentials_only_when_there_are_some():
    options = json.loads(wire.connect("worker 1").removeprefix(b"CONNECT "))
    assert options["name"] == "worker 1"
    assert options["headers"]
    assert options["no_responders"]
    assert "pass" not in options
    assert json.loads(wire.connect("w", user="u", password="p").removeprefix(b"CONNECT "))["pass"] == "p"

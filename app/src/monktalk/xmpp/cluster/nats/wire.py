"""The client protocol of NATS as a value machine: bytes in, messages out, and functions that make the bytes to send.

See https://docs.nats.io/reference/reference-protocols/nats-protocol. A control line ends in CRLF; `MSG` and `HMSG` have a
payload of the length that they name behind it. Subjects and payloads stay bytes: nobody on the way needs them as text.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

MAX_CONTROL_LINE: Final = 32 * 1024
"""Bytes of a control line; that of `INFO` lists all servers of the cluster."""

NO_RESPONDERS: Final = b"503"
"""The status of the answer to a request on a subject that nobody has subscribed to."""

PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"

_CRLF: Final = b"\r\n"
_HEADER_LINE: Final = b"NATS/1.0"


class ProtocolError(Exception):
    """The server has sent what is no NATS."""


class Message(NamedTuple):
    """A message for a subscription.

    ``reply`` is empty when no answer is expected, ``status`` when the message is an ordinary one (no headers with a status).
    """

    subject: bytes
    subscription: int
    reply: bytes
    payload: bytes
    status: bytes = b""


class Info(NamedTuple):
    """What the server says of itself, first of all and whenever it changes."""

    options: dict[str, Any]


class Ping(NamedTuple):
    """The server wants a PONG."""


class Pong(NamedTuple):
    """The answer to a PING: everything sent before it has been handled."""


class Refusal(NamedTuple):
    """`-ERR`: something was refused; after most of them the server closes the connection."""

    text: str


Event = Message | Info | Ping | Pong | Refusal


class Parser:
    """Cuts what the server sends into events."""

    __slots__ = ("_max_payload", "_rest")

    def __init__(self, max_payload: int = 8 * 1024 * 1024) -> None:
        self._rest = b""
        self._max_payload = max_payload

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes of the connection and return what is complete.

        Raises :class:`ProtocolError`; nothing more can be made of the connection then.
        """
        if self._rest:
            data = self._rest + data
        events: list[Event] = []
        position = 0
        while (end := data.find(_CRLF, position)) >= 0:
            if data.startswith(b"MSG ", position):
                message, after = self._message(data, position + 4, end)
            elif data.startswith(b"HMSG ", position):
                message, after = self._message_with_headers(data, position + 5, end)
            else:
                event = _control(data[position:end])
                if event is not None:
                    events.append(event)
                position = end + 2
                continue
            if message is None:
                break
            events.append(message)
            position = after
        self._rest = data[position:]
        if end < 0 and len(self._rest) > MAX_CONTROL_LINE:
            raise ProtocolError(f"a control line has more than {MAX_CONTROL_LINE} bytes")
        return events

    def _message(self, data: bytes, begin: int, end: int) -> tuple[Message | None, int]:
        fields = data[begin:end].split()
        if not 3 <= len(fields) <= 4:
            raise ProtocolError("MSG takes a subject, a subscription, perhaps a reply subject, and a size")
        payload, after = self._payload(data, end, _number(fields[-1]))
        if payload is None:
            return None, after
        reply = fields[2] if len(fields) == 4 else b""
        return Message(fields[0], _number(fields[1]), reply, payload), after

    def _message_with_headers(self, data: bytes, begin: int, end: int) -> tuple[Message | None, int]:
        fields = data[begin:end].split()
        if not 4 <= len(fields) <= 5:
            raise ProtocolError("HMSG takes a subject, a subscription, perhaps a reply subject, and two sizes")
        headers_size = _number(fields[-2])
        whole, after = self._payload(data, end, _number(fields[-1]))
        if whole is None:
            return None, after
        reply = fields[2] if len(fields) == 5 else b""
        status = _status(whole[:headers_size])
        return Message(fields[0], _number(fields[1]), reply, whole[headers_size:], status), after

    def _payload(self, data: bytes, end: int, size: int) -> tuple[bytes | None, int]:
        """The payload behind a control line that ends at ``end``, and where it ends itself; None when it is not all there."""
        if size > self._max_payload:
            raise ProtocolError(f"a payload of {size} bytes is more than the {self._max_payload} that are taken")
        begin = end + 2
        stop = begin + size
        if len(data) < stop + 2:
            return None, 0
        if data[stop : stop + 2] != _CRLF:
            raise ProtocolError("a payload is longer or shorter than it was said to be")
        return data[begin:stop], stop + 2


def _control(line: bytes) -> Event | None:
    """The event of a line that has no payload; None for +OK, which says nothing new."""
    verb = line[:4].upper()
    if verb == b"PING":
        return Ping()
    if verb == b"PONG":
        return Pong()
    if verb == b"INFO":
        try:
            options = json.loads(line[4:])
        except ValueError:
            raise ProtocolError("INFO is not JSON") from None
        if not isinstance(options, dict):
            raise ProtocolError("INFO is no object")
        return Info(options)
    if verb == b"-ERR":
        return Refusal(line[4:].decode("utf-8", "replace").strip().strip("'"))
    if verb[:3] == b"+OK":
        return None
    raise ProtocolError(f"unknown control line {line[:20]!r}")


def _number(field: bytes) -> int:
    if not field.isdigit() or len(field) > 12:
        raise ProtocolError(f"{field[:20]!r} is no number")
    return int(field)


def _status(headers: bytes) -> bytes:
    """The status in the first line of headers, `NATS/1.0 503 …`; empty when there is none."""
    if not headers.startswith(_HEADER_LINE):
        raise ProtocolError("headers begin with their version")
    return headers[len(_HEADER_LINE) : headers.find(_CRLF)].strip()[:3]


def connect(name: str, *, user: str = "", password: str = "") -> bytes:
    """`CONNECT`: say who we are. Requests that nobody answers are to be told at once, which takes headers."""
    options: dict[str, Any] = {
        "verbose": False,
        "pedantic": False,
        "lang": "python",
        "version": "monktalk",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
        "echo": False,
        "name": name,
    }
    if user:
        options |= {"user": user, "pass": password}
    return b"CONNECT " + json.dumps(options).encode() + _CRLF


def publish(subject: bytes, payload: bytes, reply: bytes = b"") -> bytes:
    """`PUB`: send a payload to whoever has subscribed to the subject."""
    if reply:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)


def subscribe(subject: bytes, subscription: int, queue: bytes = b"") -> bytes:
    """`SUB`: take what is sent to the subject; of those with the same ``queue`` one takes each message."""
    if queue:
        return b"SUB %b %b %d\r\n" % (subject, queue, subscription)
    return b"SUB %b %d\r\n" % (subject, subscription)


def unsubscribe(subscription: int) -> bytes:
    """`UNSUB`: take no more."""
    return b"UNSUB %d\r\n" % subscription

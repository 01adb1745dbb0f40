"""From a connection to an authenticated stream: header, STARTTLS, SASL (RFC 6120 sections 4 to 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import sasl
from load.stream import Stream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from load.accounts import Account

_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_TLS = "urn:ietf:params:xml:ns:xmpp-tls"
_MECHANISM = re.compile(rb"<mechanism>([^<]*)</mechanism>")
_TEXT = re.compile(rb"<[^>]*>([^<]*)<")
_NAME = re.compile(rb"<([^\s/>]+)")
_CONDITION = re.compile(rb"<(?!text\b|/)([a-z][a-z-]*)(?=[\s/>])[^>]*>")

CLEAR, STARTTLS, DIRECT = "clear", "starttls", "direct"
SECURITY = (STARTTLS, DIRECT, CLEAR)


class LoginError(Exception):
    """The server did not let the client in, or said something unexpected; the text says what."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where clients connect.

    Attributes:
        addresses: host and port of the proxies, or of the nodes where there is no proxy.
        domain: the domain of the accounts.
        security: one of SECURITY.
        context: for TLS; not used in clear.
    """

    addresses: Sequence[tuple[str, int]]
    domain: str
    security: str
    context: ssl.SSLContext


def condition(element: bytes) -> str:
    """What an error element says: the name of the first element in it (in an `<error>` if there is one)."""
    start = element.find(b"<error")
    start = element.find(b">", max(start, 0))
    found = _CONDITION.search(element, start + 1)
    return found[1].decode() if found else ""


def expect(element: bytes, start: bytes) -> bytes:
    """The element, if it begins like this.

    Raises:
        LoginError: it does not.
    """
    if not element.startswith(start):
        name = _NAME.match(element)
        what = f"{name[1].decode(errors='replace') if name else 'text'} {condition(element)}".strip()
        raise LoginError(f"{what} instead of {start[1:].decode()}")
    return element


async def authenticated(service: Service, address: tuple[str, int], account: Account) -> Stream:
    """A stream on which a resource may be bound or a session resumed.

    Raises:
        OSError: there is no connection.
        StreamClosedError: it has ended.
        LoginError: the server refuses.
        AuthenticationError: the server does not prove that it knows the password.
    """
    tls = service.context if service.security == DIRECT else None
    stream = await Stream.connect(address, tls, service.domain)
    try:
        features = await _open(stream, service.domain)
        if service.security == STARTTLS:
            stream.write(f"<starttls xmlns='{_TLS}'/>".encode())
            expect(await stream.next(), b"<proceed")
            await stream.start_tls(service.context, service.domain)
            features = await _open(stream, service.domain)
        await _authenticate(stream, features, account)
        await _open(stream, service.domain)
    except BaseException:
        stream.abort("given up")
        raise
    return stream


async def _open(stream: Stream, domain: str) -> bytes:
    stream.restart()
    stream.write(
        f"<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xml:lang='en' "
        "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>".encode()
    )
    expect(await stream.next(), b"<stream:stream")
    return expect(await stream.next(), b"<stream:features")


async def _authenticate(stream: Stream, features: bytes, account: Account) -> None:
    offered = [name.decode() for name in _MECHANISM.findall(features)]
    if sasl.SCRAM in offered:
        scram = sasl.ScramClient(account.user, account.password)
        stream.write(_auth(sasl.SCRAM, scram.first()))
        challenge = expect(await stream.next(), b"<challenge")
        stream.write(f"<response xmlns='{_SASL}'>".encode() + scram.final(_text(challenge)) + b"</response>")
        scram.verify(_text(expect(await stream.next(), b"<success")))
    elif sasl.PLAIN in offered:
        stream.write(_auth(sasl.PLAIN, sasl.plain_message(account.user, account.password)))
        expect(await stream.next(), b"<success")
    else:
        raise LoginError(f"no mechanism that we know: {', '.join(offered) or 'none at all'}")


def _auth(mechanism: str, message: bytes) -> bytes:
    return f"<auth xmlns='{_SASL}' mechanism='{mechanism}'>".encode() + message + b"</auth>"


def _text(element: bytes) -> bytes:
    found = _TEXT.match(element)
    return found[1] if found else b""

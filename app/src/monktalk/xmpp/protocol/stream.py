"""The XML stream of RFC 6120 section 4 as a value machine: bytes in, events out, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol import xmltree
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.framing import Holdback
from monktalk.xmpp.protocol.parser import ElementParser, FaultAfter, ParserPool, StreamHeader, read_header
from monktalk.xmpp.protocol.stanza import XML_LANG, Stanza

_STANDARD_NAMESPACES = {"": ns.CLIENT, "stream": ns.STREAM}
_GREATER, _SLASH = 0x3E, 0x2F
_WHITESPACE = b" \t\r\n"


@dataclass(slots=True)
class StreamOpened:
    """The peer opened (or restarted) the stream. ``to``, ``from_`` and ``version`` are None where absent."""

    to: str | None
    from_: str | None
    version: str | None
    lang: str | None


class StreamClosed:
    """The peer closed its side of the stream."""

    __slots__ = ()


@dataclass(slots=True)
class StreamFault:
    """The input can't be accepted any more: ``error`` is to be sent, and the stream to be closed."""

    error: StreamError


Event = Stanza | StreamOpened | StreamClosed | StreamFault


class XmlStream:
    """The receiving half of one stream.

    ``max_bytes`` is the size limit of one element, of the stream header, and of what is held of an unfinished tag; the
    owner raises it after authentication. Idle streams hold no parser: see :class:`ParserPool`.
    """

    __slots__ = ("_failed", "_foreign", "_header", "_holdback", "_parser", "_pool", "_prefixes", "max_bytes")

    def __init__(self, pool: ParserPool, max_bytes: int) -> None:
        self._pool = pool
        self.max_bytes = max_bytes
        self._holdback: Holdback | None = None
        self._parser: ElementParser | None = None
        self.restart()

    def restart(self) -> None:
        """Expect a new stream header (RFC 6120 section 4.3.3). Bytes that have not been handled are dropped."""
        self._drop_parser()
        self._header: bytes | None = b""
        self._foreign: bytes | None = None  # the header to prime parsers with, when it is not the usual one
        self._prefixes: tuple[bytes, ...] = ()
        self._failed = False
        if self._holdback is not None:
            self._holdback.clear()

    def receive(self, data: bytes) -> list[Event]:
        """Take what came from the network and return what is complete. After a fault or the end all input is ignored."""
        if data and self._header is None and not self._holdback and not self._failed:
            # The usual case: whole stanzas, the last byte being the end of an end tag.
            if data[-1] == _GREATER and data[data.rfind(b"<") + 1] == _SLASH:
                return self._feed(data)
            if self._parser is None and not data.strip(_WHITESPACE):
                return []
        try:
            return self._receive(data)
        except StreamError as error:
            return self._fail(error)

    def _receive(self, data: bytes) -> list[Event]:
        if self._failed or not data:
            return []
        if self._holdback is None:
            self._holdback = Holdback()
        released = self._holdback.push(data)
        held = len(self._holdback)
        if not held:
            self._holdback = None
        events: list[Event] = []
        if released:
            events = self._open(released) if self._header is not None else self._feed(released)
        pending = self._parser.pending if self._parser is not None else 0
        if held + pending + len(self._header or b"") > self.max_bytes and not self._failed:
            events += self._fail(self._oversize())
        return events

    def _open(self, data: bytes) -> list[Event]:
        data = (self._header or b"") + data
        if not self._header:
            data = data.lstrip(_WHITESPACE)
        found = read_header(data, self._pool.limits)
        if found is None:
            self._header = data
            return []
        header, rest = found
        self._header = None
        self._accept(header)
        attributes = header.attributes
        opened = StreamOpened(
            attributes.get("to"), attributes.get("from"), attributes.get("version"), attributes.get(XML_LANG)
        )
        return [opened, *(self._feed(rest) if rest else ())]

    def _accept(self, header: StreamHeader) -> None:
        if len(header.raw) > self.max_bytes:
            raise self._oversize()
        default = header.namespaces.get("", ns.CLIENT)
        if default not in (ns.CLIENT, ns.STREAM):
            raise StreamError("invalid-namespace", f"the default namespace must be {ns.CLIENT}")
        if header.namespaces != _STANDARD_NAMESPACES:
            self._foreign = header.raw
        self._prefixes = tuple(f"{prefix}:".encode() for prefix in header.namespaces if prefix)

    def _feed(self, data: bytes) -> list[Event]:
        parser = self._parser
        if parser is None:
            if data == STREAM_END and self._foreign is None:
                # A parser that has read this is of no use to anybody any more.
                self._failed = True
                return [StreamClosed()]
            parser = self._pool.take() if self._foreign is None else ElementParser(self._foreign, self._pool.limits)
        try:
            elements = parser.feed(data)
        except FaultAfter as fault:
            self._parser = parser
            return [*self._checked(fault.elements), *self._fail(fault.error)]
        if parser.clean and self._foreign is None:
            self._parser = None
            if parser.closed:
                parser.close()
            else:
                self._pool.give(parser)
        else:
            self._parser = parser
            if parser.pending > self.max_bytes:
                return [*self._checked(elements), *self._fail(self._oversize())]
            if parser.clean and parser.worn:
                self._drop_parser()
        events = self._checked(elements)
        if parser.closed:
            self._failed = True
            events.append(StreamClosed())
        return events

    def _checked(self, elements: list[Stanza]) -> list[Event]:
        """The elements, each within the size limit and free of prefixes that are declared outside of it."""
        for index, stanza in enumerate(elements):
            raw = stanza.raw
            if len(raw) > self.max_bytes:
                return [*elements[:index], *self._fail(self._oversize())]
            for prefix in self._prefixes:
                if prefix in raw:
                    elements[index] = self._self_contained(stanza)
                    break
        return elements  # type: ignore[return-value]  # a list of stanzas is a list of events

    def _self_contained(self, stanza: Stanza) -> Stanza:
        if self._foreign is None:
            return stanza.reserialised()
        node = xmltree.from_bytes(stanza.raw, (self._foreign, b"</" + self._foreign[1:].split()[0] + b">"))
        return Stanza(stanza.name, stanza.attributes, xmltree.to_bytes(node), stanza.payloads)

    def close(self) -> None:
        """The connection is gone: release what is held."""
        self._failed = True
        self._drop_parser()
        self._holdback = None

    def _drop_parser(self) -> None:
        if self._parser is not None:
            self._parser.close()
            self._parser = None

    def _oversize(self) -> StreamError:
        return StreamError("policy-violation", f"a stanza may have {self.max_bytes} bytes at most")

    def _fail(self, error: StreamError) -> list[Event]:
        self._failed = True
        self._drop_parser()
        if self._holdback is not None:
            self._holdback.clear()
        # The traceback's frames hold the list that the fault is put into: a cycle of kilobytes, made by strangers.
        error.__traceback__ = error.__context__ = None
        return [StreamFault(error)]


def stream_header(stream_id: str, host: str, to: str | None, lang: str) -> bytes:
    """The server's stream header (RFC 6120 section 4.7)."""
    addressed = f" to='{xmltree.escape(to)}'" if to else ""
    return (
        f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' id='{stream_id}' "
        f"from='{xmltree.escape(host)}'{addressed} version='1.0' xml:lang='{xmltree.escape(lang)}'>"
    ).encode()


STREAM_END = b"</stream:stream>"

"""The XML parser of streams: expat behind limits, lent to a stream for as long as it has an unfinished stanza.

A parser is primed with a stream header and then fed whole tags (see :mod:`framing`). Between two stanzas its state is the
same as when it was new, so idle streams need none of their own: :class:`ParserPool` keeps a few for all of them. A parser
that has read its share is thrown away, because expat never forgets a name that it has seen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.parsers import expat
from xml.parsers.expat import errors as expat_errors

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StreamError
from monktalk.xmpp.protocol.framing import COMPLETE_TAG
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, PRESENCE, Stanza

if TYPE_CHECKING:
    from collections.abc import Callable

STANDARD_HEADER = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}'>".encode()
SEPARATOR = "}"
_KINDS = {ns.qname(ns.CLIENT, kind): kind for kind in (MESSAGE, PRESENCE, IQ)}
_RETIRE_AFTER_BYTES = 1 << 20
_POOL_SIZE = 16
_LONG_HEADER = 512
"""Bytes beyond which a header is not remembered."""


@dataclass(frozen=True, slots=True)
class XmlLimits:
    """What one element may hold: nesting (levels), attributes of an element, and characters of a qualified name."""

    depth: int = 64
    attributes: int = 64
    name_length: int = 1024


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """The opening tag of a stream: its attributes by qualified name, and the namespaces that it declares by prefix."""

    attributes: dict[str, str]
    namespaces: dict[str, str]
    raw: bytes


def _refuse(*_: object) -> None:
    raise StreamError("restricted-xml", "comments, processing instructions and declarations are not allowed")


def _restrict(parser: expat.XMLParserType) -> None:
    parser.CommentHandler = _refuse
    parser.ProcessingInstructionHandler = _refuse
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    if hasattr(parser, "SetReparseDeferralEnabled"):
        parser.SetReparseDeferralEnabled(False)


def _release(parser: expat.XMLParserType) -> None:
    """Let go of the handlers: they refer to the parser, and its memory should not wait for the garbage collector."""
    parser.StartElementHandler = None
    parser.EndElementHandler = None
    parser.StartNamespaceDeclHandler = None
    parser.XmlDeclHandler = None


def _stream_error(fault: expat.ExpatError, data: bytes) -> StreamError:
    reason = expat_errors.messages.get(fault.code, "not well-formed")
    if reason == expat_errors.XML_ERROR_UNDEFINED_ENTITY:
        return StreamError("restricted-xml", "entity references are not allowed")
    if reason == expat_errors.XML_ERROR_UNBOUND_PREFIX:
        return StreamError("bad-namespace-prefix", "a namespace prefix is not declared")
    if b"<?" in data or b"<!" in data.replace(b"<![CDATA[", b""):
        return StreamError("restricted-xml", "processing instructions and declarations are not allowed")
    return StreamError("not-well-formed", reason)


class _HeaderRead(Exception):
    """Stops the parser right behind the stream header."""


def read_header(data: bytes, limits: XmlLimits) -> tuple[StreamHeader, bytes] | None:
    """Read a stream header from ``data``, which holds whole tags only.

    Returns the header, which is shared and not to be changed, and the bytes behind it, or None when there is only an XML
    declaration yet. Raises :class:`StreamError` for what may not start a stream (RFC 6120 section 4).
    """
    # Clients of one kind send the same bytes again and again.
    return _read_header(data, limits) if len(data) > _LONG_HEADER else _read_usual_header(data, limits)


def _read_header(data: bytes, limits: XmlLimits) -> tuple[StreamHeader, bytes] | None:
    parser = expat.ParserCreate("utf-8", SEPARATOR)
    namespaces: dict[str, str] = {}
    found: list[StreamHeader] = []
    rest = b""

    def declared(prefix: str | None, uri: str | None) -> None:
        namespaces[prefix or ""] = uri or ""

    def declaration(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() != "utf-8":
            raise StreamError("unsupported-encoding", "only UTF-8 is supported")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal rest
        at = parser.CurrentByteIndex
        tag = COMPLETE_TAG.match(data, at)
        if tag is None:
            raise StreamError("not-well-formed", "the stream header is not complete")
        if name != ns.qname(ns.STREAM, "stream"):
            condition = "invalid-namespace" if name.rpartition(SEPARATOR)[2] == "stream" else "bad-format"
            raise StreamError(condition, f"a stream starts with <stream/> in the namespace {ns.STREAM}")
        if len(attributes) > limits.attributes or len(namespaces) > limits.attributes:
            raise StreamError("policy-violation", "too many attributes")
        if tag[0].endswith(b"/>"):
            raise StreamError("bad-format", "the stream element is empty")
        found.append(StreamHeader(attributes, namespaces, tag[0]))
        rest = data[tag.end() :]
        raise _HeaderRead

    _restrict(parser)
    parser.XmlDeclHandler = declaration
    parser.StartNamespaceDeclHandler = declared
    parser.StartElementHandler = start
    try:
        parser.Parse(data, False)
    except _HeaderRead:
        return found[0], rest
    except expat.ExpatError as fault:
        raise _stream_error(fault, data) from None
    finally:
        _release(parser)
    return None


_read_usual_header = functools.lru_cache(maxsize=256)(_read_header)


class ElementParser:
    """Cuts the input of one stream into top-level elements.

    Attributes: ``pending`` is the number of bytes of the element that is not complete yet; ``clean`` tells that the input
    ended with a complete element, so that the parser may serve another stream; ``closed`` that the stream's
    end tag has come; ``total`` counts all bytes fed.
    """

    __slots__ = ("clean", "close", "closed", "feed", "pending", "total")

    def __init__(self, header: bytes = STANDARD_HEADER, limits: XmlLimits | None = None) -> None:
        self.pending = 0
        self.clean = True
        self.closed = False
        self.total = 0
        self.feed, self.close = self._make_feed(header, limits or XmlLimits())
        """``feed(data) -> list[Stanza]``: parse whole tags and text. Raises :class:`FaultAfter`, which has the elements
        that were complete before the fault. ``close()``: release the memory; the parser can't be used any more."""

    @property
    def worn(self) -> bool:
        """The parser has read its share, and should be replaced between two elements."""
        return self.total > _RETIRE_AFTER_BYTES

    def _make_feed(  # noqa: C901, PLR0915 - apart, its handlers would share their state more slowly; see the comment
        self, header: bytes, limits: XmlLimits
    ) -> tuple[Callable[[bytes], list[Stanza]], Callable[[], None]]:
        # Closures instead of methods: they run four times or more per stanza, and cell variables are the fastest there are.
        parser = expat.ParserCreate("utf-8", SEPARATOR)
        max_depth, max_attributes, max_name = limits.depth, limits.attributes, limits.name_length
        depth = 0
        started = 0  # offset of the current element in the whole input
        finished = 0  # offset behind the last complete element
        base = 0  # offset of data[0]
        data: bytes | bytearray = b""
        tail: bytearray | None = None  # the unfinished element's bytes, when it came in several chunks
        name = ""
        attributes: dict[str, str] = {}
        payloads: list[str] = []
        elements: list[Stanza] = []

        def start(tag: str, attrs: dict[str, str]) -> None:
            nonlocal depth, started, name, attributes, payloads
            if depth == 1:
                started = parser.CurrentByteIndex
                if started != finished and data[finished - base : started - base].strip(b" \t\r\n"):
                    raise StreamError("bad-format", "text between stanzas")
                name = tag
                attributes = attrs
                payloads = []
            elif depth == 2:
                payloads.append(tag)
            elif depth > max_depth:
                raise StreamError("policy-violation", f"elements nested deeper than {max_depth} levels")
            if len(attrs) > max_attributes:
                raise StreamError("policy-violation", f"an element has more than {max_attributes} attributes")
            if len(tag) > max_name:
                raise StreamError("policy-violation", f"an element's name is longer than {max_name} characters")
            depth += 1

        def end(_tag: str) -> None:
            nonlocal depth, finished
            depth -= 1
            if depth == 1:
                first = started - base
                stop = 0
                if not payloads:
                    # Where an empty element's end event points to differs between versions of expat.
                    tag = COMPLETE_TAG.match(data, first)
                    if tag is not None and tag[0].endswith(b"/>"):
                        stop = tag.end()
                if not stop:
                    stop = data.find(b">", parser.CurrentByteIndex - base) + 1
                finished = base + stop
                raw = data[first:stop]
                elements.append(
                    Stanza(
                        _KINDS.get(name, name),
                        attributes,
                        bytes(raw),  # no copy, unless it came in several chunks
                        payloads,
                    )
                )
            elif depth == 0:
                if data[finished - base : parser.CurrentByteIndex - base].strip(b" \t\r\n"):
                    raise StreamError("bad-format", "text between stanzas")
                self.closed = True

        def feed(chunk: bytes) -> list[Stanza]:
            nonlocal base, data, tail, elements
            if tail is None:
                data = chunk
                base = self.total
            else:
                tail += chunk
                data = tail
            self.total += len(chunk)
            try:
                parser.Parse(chunk, False)
            except expat.ExpatError as fault:
                raise FaultAfter(_stream_error(fault, chunk), elements) from None
            except StreamError as error:
                raise FaultAfter(error, elements) from None
            if depth > 1:
                if tail is None:
                    tail = bytearray(chunk[started - base :])
                    base = started
                elif started != base:
                    del tail[: started - base]
                    base = started
                data = tail
                self.pending = len(tail)
                self.clean = False
            else:
                if finished != self.total and not self.closed:
                    left = bytes(data[finished - base :]).strip(b" \t\r\n")
                    if left:
                        # Only a tag with "<" in an attribute leaves a tag unread.
                        condition = "not-well-formed" if left.startswith(b"<") else "bad-format"
                        raise FaultAfter(StreamError(condition, "text between stanzas"), elements)
                tail = None
                data = b""
                self.pending = 0
                self.clean = finished == self.total
            done, elements = elements, []
            return done

        _restrict(parser)
        parser.Parse(header, False)
        self.total = finished = len(header)
        depth = 1
        parser.StartElementHandler = start
        parser.EndElementHandler = end

        def close() -> None:
            _release(parser)
            del self.feed, self.close

        return feed, close


class FaultAfter(Exception):
    """A fault in the input, with the elements that were complete before it."""

    def __init__(self, error: StreamError, elements: list[Stanza]) -> None:
        super().__init__(str(error))
        self.error = error
        self.elements = elements


class ParserPool:
    """Primed parsers for streams with the usual header, shared by all connections of a process."""

    __slots__ = ("_idle", "limits")

    def __init__(self, limits: XmlLimits | None = None) -> None:
        self.limits = limits or XmlLimits()
        self._idle: list[ElementParser] = []

    def take(self) -> ElementParser:
        """A parser that stands between two elements."""
        return self._idle.pop() if self._idle else ElementParser(STANDARD_HEADER, self.limits)

    def give(self, parser: ElementParser) -> None:
        """Take back a parser that is ``clean``; a worn one is dropped."""
        if not parser.worn and len(self._idle) < _POOL_SIZE:
            self._idle.append(parser)
        else:
            parser.close()

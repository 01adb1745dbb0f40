"""Where a stanza ends: cuts the bytes of an XML stream (RFC 6120 section 4) into its top-level elements.

No XML parser: the generator reads what well-behaved servers wrote, hundreds of thousands of times a second, and
has to stay cheaper than the server that it measures.
"""

from __future__ import annotations

import re

# One tag: "/" of an end tag, the name, attributes (a ">" inside quotes does not end it), "/" of an empty element.
_TAG = re.compile(rb"<(/?)([^\s/>?!]+)((?:[^>\"']|\"[^\"]*\"|'[^']*')*?)(/?)>")
# White space between stanzas is a keepalive; the XML declaration comes once.
_BETWEEN = re.compile(rb"\s*(?:<\?[^>]*\?>\s*)?")

INCOMPLETE = -1


class StreamSyntaxError(Exception):
    """The server sent something that is not an XML stream."""


def element_end(data: bytes, start: int) -> int:
    """The position behind the element that begins at `start` (at its "<"), or INCOMPLETE.

    The tags of the stream itself (`<stream:stream ...>`, `</stream:stream>`) count as elements of their own.

    Raises:
        StreamSyntaxError: there is no tag at `start`.
    """
    depth = 0
    position = start
    while True:
        tag = _TAG.search(data, position)
        if tag is None:
            if depth == 0 and data[start : start + 1] not in {b"", b"<"}:
                raise StreamSyntaxError(f"expected a tag, got {data[start : start + 60]!r}")
            return INCOMPLETE
        if depth == 0 and tag.start() != start:
            raise StreamSyntaxError(f"expected a tag, got {data[start : start + 60]!r}")
        closing, name, _, empty = tag.groups()
        position = tag.end()
        if depth == 0 and (closing or name.endswith(b":stream")):
            return position
        if closing:
            depth -= 1
        elif not empty:
            depth += 1
        if depth == 0:
            return position


def skip_white_space(data: bytes, start: int) -> int:
    """The position of the next element at or after `start`."""
    between = _BETWEEN.match(data, start)
    return start if between is None else between.end()


class StreamReader:
    """Collects received bytes and hands out whole top-level elements."""

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def pending(self) -> bytes:
        """What has been received of an element that is not complete yet."""
        return self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; returns the elements that became complete, in order.

        Raises:
            StreamSyntaxError: the bytes are not those of an XML stream.
        """
        buffer = self._buffer + data if self._buffer else data
        elements = []
        start = skip_white_space(buffer, 0)
        while start < len(buffer):
            end = element_end(buffer, start)
            if end == INCOMPLETE:
                break
            elements.append(buffer[start:end])
            start = skip_white_space(buffer, end)
        self._buffer = buffer[start:]
        return elements


def attribute(element: bytes, name: bytes) -> bytes | None:
    """The value of an attribute of the element's first tag, as it stands in the stream (references unresolved)."""
    tag = element[: element.find(b">") + 1]
    match = re.search(rb"\s" + re.escape(name) + rb"\s*=\s*(?:'([^']*)'|\"([^\"]*)\")", tag)
    return None if match is None else match[1] or match[2] or b""

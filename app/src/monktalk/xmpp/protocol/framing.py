"""Hold bytes back until a tag is complete, so that the XML parser never sees part of one.

Two faults of expat make this necessary. Old expat (2.5 and before) scans an unfinished tag again from its start at each
new chunk, so that a long attribute dripped in small pieces costs quadratic time. New expat (2.6 and later) defers an
unfinished tag until much more input has come, so that a stanza may sit unhandled after its last byte. A parser that is
only ever fed complete tags has neither fault, and each byte is looked at here once.

This is no tokeniser: it only finds out whether the last tag in the input has come to its end. What it lets
through still has to please the parser.
"""

from __future__ import annotations

import re

from monktalk.xmpp.protocol.errors import StreamError

COMPLETE_TAG = re.compile(rb"""<[^<>"']*+(?:"[^"<]*+"[^<>"']*+|'[^'<]*+'[^<>"']*+)*+>""")
"""One complete tag. ``<`` can't stand in an attribute value (XML 1.0, 2.4), so that the last ``<`` starts the last tag."""

_UNQUOTED_STOP = re.compile(rb"""[<>"']""")
_QUOTED_STOP = {0x22: re.compile(rb'["<]'), 0x27: re.compile(rb"['<]")}
_REFERENCE_STOP = re.compile(rb"[;<]")
_LONGEST_REFERENCE = 16
_GREATER, _LESS, _SLASH, _AMPERSAND = 0x3E, 0x3C, 0x2F, 0x26


class Holdback:
    """The unfinished end of one stream's input. ``len()`` is the number of bytes held."""

    __slots__ = ("_held", "_position", "_quote")

    def __init__(self) -> None:
        self._held: bytearray | None = None
        self._position = 0
        self._quote = 0

    def __len__(self) -> int:
        return len(self._held) if self._held else 0

    def clear(self) -> None:
        """Forget what is held, as a stream restart demands."""
        self._held = None

    def push(self, data: bytes) -> bytes:
        """Take new input and return what may be fed to the parser now, possibly nothing.

        Raises :class:`StreamError` (``restricted-xml``) for the start of a comment or declaration, which would
        otherwise be held until it ends.
        """
        released = b""
        held = self._held
        if held is not None:
            held += data
            _refuse_declaration(held)
            end = self._find_end(held)
            if end < 0:
                return b""
            released, data = bytes(held[:end]), bytes(held[end:])
            self._held = None
        start = self._unfinished(data)
        if start < 0:
            return released + data if released else data
        self._hold(data[start:])
        return released + data[:start]

    def _hold(self, data: bytes) -> None:
        _refuse_declaration(data)
        self._held = bytearray(data)
        self._position = 1
        self._quote = 0
        self._find_end(self._held)

    @staticmethod
    def _unfinished(data: bytes) -> int:
        """Where an unfinished tag or character reference starts in ``data``, or -1."""
        start = data.rfind(b"<")
        tail = 0
        if start >= 0:
            if data[-1] == _GREATER and data[start + 1] == _SLASH:
                return -1
            tag = COMPLETE_TAG.match(data, start)
            if tag is None:
                return start
            tail = tag.end()
        reference = data.rfind(b"&", tail)
        if reference >= 0 and b";" not in data[reference:] and len(data) - reference < _LONGEST_REFERENCE:
            return reference
        return -1

    def _find_end(self, held: bytearray) -> int:
        """The length of the now finished tag or reference at the start of ``held``, or -1. Goes on where it stopped."""
        if held[0] == _AMPERSAND:
            stop = _REFERENCE_STOP.search(held, 1)
            if stop is not None:
                return stop.end() if held[stop.start()] != _LESS else stop.start()
            return -1 if len(held) < _LONGEST_REFERENCE else len(held)
        position, quote = self._position, self._quote
        while True:
            stop = (_QUOTED_STOP[quote] if quote else _UNQUOTED_STOP).search(held, position)
            if stop is None:
                self._position, self._quote = len(held), quote
                return -1
            position = stop.end()
            found = held[position - 1]
            if found == _LESS:
                return position - 1
            if found == _GREATER:
                return position
            quote = 0 if quote else found


def _refuse_declaration(held: bytes | bytearray) -> None:
    if held[:2] == b"<!" and held[2:3] not in (b"", b"["):
        raise StreamError("restricted-xml", "comments and declarations are not allowed")

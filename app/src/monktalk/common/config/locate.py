"""Where the keys of a TOML text stand: tomllib tells values, but not lines."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Path = tuple[str | int, ...]
"""Keys from the top of the document; a number counts the elements of an array."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}\n#]*")
_STRINGS: Final = (
    re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"(?!"")|""(?!"))?', re.DOTALL),
    re.compile(r"'''.*?'''(?:'(?!'')|''(?!'))?", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


def locate(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of every table and key of `text`, which must be valid TOML.

    A table that several headers build is where it is first named.
    """
    return _Locator(text).run()


class _Locator:
    """A scanner that leans on the text being valid: it finds keys and steps over values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[Path, int] = {}
        self._elements: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._element_header()
            elif self._text.startswith("[", self._at):
                table = self._table_header()
            else:
                self._pair(table)
        return self._lines

    def _table_header(self) -> Path:
        line = self._line()
        self._at += 1
        path = self._note((), self._keys(), line)
        self._at += 1
        return path

    def _element_header(self) -> Path:
        line = self._line()
        self._at += 2
        keys = self._keys()
        self._at += 2
        array = (*self._note((), keys[:-1], line), keys[-1])
        self._lines.setdefault(array, line)
        count = self._elements.get(array, 0)
        self._elements[array] = count + 1
        self._lines[*array, count] = line
        return (*array, count)

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = self._note(table, self._keys(), line)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _note(self, start: Path, keys: list[str], line: int) -> Path:
        """Record a dotted key below `start`; a table that is an array means its last element."""
        path = start
        for key in keys:
            path = (*path, key)
            self._lines.setdefault(path, line)
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
        return path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            if self._text[self._at] in "\"'":
                start = self._at
                self._string()
                keys.append(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])
            else:
                start = self._at
                self._skip(_BARE_KEY)
                keys.append(self._text[start : self._at])
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening in "\"'":
            self._string()
        elif opening == "[":
            count = 0

            def element() -> None:
                nonlocal count
                self._lines[*path, count] = self._line()
                self._value((*path, count))
                count += 1

            self._items("]", element)
        elif opening == "{":
            self._items("}", lambda: self._pair(path))
        else:
            self._skip(_SCALAR)

    def _items(self, closing: str, item: Callable[[], None]) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK)
            if self._text[self._at] == closing:
                self._at += 1
                return
            item()
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1

    def _string(self) -> None:
        for pattern in _STRINGS:
            match = pattern.match(self._text, self._at)
            if match:
                self._at = match.end()
                return
        raise ValueError(f"line {self._line()}: a text that does not end")

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return self._at

    def _line(self) -> int:
        return bisect_right(self._newlines, self._at - 1) + 1

"""What text the databases can store."""

from __future__ import annotations

from typing import Final

MAX_KEY_BYTES: Final = 2_500
"""UTF-8 length of all parts of a key together: an index row of PostgreSQL holds about 2,700 bytes."""


def check_text(*texts: str) -> None:
    """Refuse text that PostgreSQL cannot store, before it reaches SQL.

    Raises:
        ValueError: a text contains a NUL character or a lone surrogate.
    """
    for text in texts:
        if "\0" in text:
            raise ValueError("text with a NUL character (U+0000) cannot be stored")
        if not text.isascii():
            _check_encodable(text)


def check_key(*parts: str) -> None:
    """Refuse the parts of a key that cannot be stored together.

    Raises:
        ValueError: as `check_text`, or the parts are longer than an index can hold.
    """
    check_text(*parts)
    # Four bytes a character at most: the exact length is rarely needed.
    if sum(map(len, parts)) * 4 > MAX_KEY_BYTES:
        length = sum(len(part.encode()) for part in parts)
        if length > MAX_KEY_BYTES:
            raise ValueError(f"a key of {length} bytes cannot be stored; {MAX_KEY_BYTES} is the limit")


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("text with a lone surrogate cannot be stored: it has no UTF-8 form") from None

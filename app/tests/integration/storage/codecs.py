"""A codec for the tests of the key-value store."""

from __future__ import annotations


class TextCodec:
    """Text as UTF-8; counts what it does, and refuses to decode what starts with "bad"."""

    def __init__(self) -> None:
        self.decoded = 0

    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        self.decoded += 1
        if data.startswith(b"bad"):
            raise LookupError(data.decode())
        return data.decode()

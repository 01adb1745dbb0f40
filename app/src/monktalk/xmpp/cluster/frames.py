"""What workers send each other, as bytes: lists of frames, packed by msgpack.

A frame is a tuple that begins with a number saying what it is. Everybody on the bus is a worker of the same cluster, but
perhaps one of another release: frames of an unknown kind are left aside, further fields at the end are ignored.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

Frame = tuple[Any, ...]
"""The kind, and what belongs to it."""

MAX_BATCH: Final = 512 * 1024
"""Bytes of stanzas in one message on the bus, but for a stanza that is larger itself."""


# One for the process: each has a buffer of its own, of a quarter of a megabyte.
_pack: Final = msgpack.Packer(use_bin_type=True).pack


class FrameError(ValueError):
    """The bytes are no frames."""


def pack(frames: list[Frame]) -> bytes:
    """The bytes of frames."""
    packed: bytes = _pack(frames)
    return packed


def unpack(data: bytes) -> list[Frame]:
    """The frames in bytes; sequences come back as tuples. Raises :class:`FrameError`."""
    try:
        frames = msgpack.unpackb(data, raw=False, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise FrameError(f"what came over the bus is no msgpack: {error}") from None
    if frames.__class__ is not tuple:
        raise FrameError("what came over the bus is no list of frames")
    for frame in frames:
        if frame.__class__ is not tuple or not frame:
            raise FrameError("what came over the bus is no list of frames")
    return list(frames)


def weight(frame: Frame) -> int:
    """About how many bytes a frame takes: those of the stanzas in it."""
    total = 0
    for field in frame:
        kind = field.__class__
        if kind is bytes:
            total += len(field)
        elif kind is tuple:
            # Most frames have their stanza here, and no more tuples: one call for each saves half of the time.
            for inner in field:
                kind = inner.__class__
                if kind is bytes:
                    total += len(inner)
                elif kind is tuple:
                    total += weight(inner)
    return total

"""Frames as bytes."""

from __future__ import annotations

import msgpack
import pytest

from monktalk.xmpp.cluster import frames


def test_what_is_packed_is_unpacked():
    sent = [(1, "juliet", b"<message/>", {"type": "chat"}, None, 1.5, True), (2, ("nested", (b"tuple",)))]
    assert frames.unpack(frames.pack(sent)) == sent


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"no msgpack", msgpack.packb({"a": 1}), msgpack.packb([1, 2]), msgpack.packb([[1], []])],
    ids=["nothing", "a byte that means nothing", "text", "no list", "numbers", "an empty frame"],
)
def test_what_is_no_list_of_frames_is_refused(data):
    with pytest.raises(frames.FrameError, match="over the bus"):
        frames.unpack(data)


def test_the_weight_is_that_of_the_bytes_wherever_they_are():
    assert frames.weight((1, "text", b"12345", ("host", (b"123", None)), 7)) == 8

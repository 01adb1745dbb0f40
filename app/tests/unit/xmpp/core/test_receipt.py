"""What a sender waits for."""

from __future__ import annotations

from monktalk.xmpp.core.receipt import Receipt


def test_it_is_settled_once_when_nothing_is_left_to_be_done():
    settled = []
    receipt = Receipt("token", 7, lambda: settled.append(True))
    receipt.hold()
    receipt.hold()
    for _ in range(2):
        receipt.release()
        assert settled == []
    receipt.release()
    assert settled == [True]
    assert (receipt.origin, receipt.number) == ("token", 7)

"""Which messages are kept (XEP-0160 section 3, XEP-0334)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.modules.storable import has_content, is_storable

BODY = "jabber:client}body"
SUBJECT = "jabber:client}subject"
COMPOSING = "http://jabber.org/protocol/chatstates}composing"
RECEIPT = "urn:xmpp:receipts}received"
STORE, NO_STORE = "urn:xmpp:hints}store", "urn:xmpp:hints}no-store"
NO_PERMANENT_STORE = "urn:xmpp:hints}no-permanent-store"


@pytest.mark.parametrize(
    ("payloads", "kind", "kept"),
    [
        ([BODY], "chat", True),
        ([BODY], "normal", True),
        ([BODY, COMPOSING], "chat", True),
        ([RECEIPT], "chat", True),
        ([BODY, NO_PERMANENT_STORE], "chat", True),
        ([COMPOSING, STORE], "chat", True),
        ([SUBJECT], "normal", True),
        ([], "chat", False),
        ([COMPOSING], "chat", False),
        ([COMPOSING, "urn:xmpp:hints}no-copy"], "chat", False),
        (["jabber:client}thread", "urn:xmpp:sid:0}origin-id"], "normal", False),
        ([SUBJECT], "chat", False),
        ([BODY, NO_STORE], "chat", False),
        ([BODY, NO_STORE, STORE], "chat", False),
    ],
)
def test_what_is_kept(payloads, kind, kept):
    assert is_storable(payloads, kind) is kept


def test_content_is_there_whether_it_may_be_kept_or_not():
    assert has_content([BODY, NO_STORE])
    assert not has_content([COMPOSING, STORE])

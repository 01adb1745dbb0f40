"""Presence stanzas that the server makes, and what it reads in those of clients."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.stanza import PRESENCE, Stanza
from monktalk.xmpp.protocol.xmltree import children_to_bytes, escape, text_of

if TYPE_CHECKING:
    from monktalk.common.jid import JID

AVAILABLE: Final = None
UNAVAILABLE: Final = "unavailable"
PROBE: Final = "probe"
ERROR: Final = "error"

LONGEST_REQUEST: Final = 4096
"""Characters of a subscription request's payload that are kept while it waits; a longer one waits without any."""

_BEGIN: Final = b"<presence"
_PRIORITY: Final = ns.qname(ns.CLIENT, "priority")
_BYTE: Final = re.compile(r"[ \t\r\n]*([+-]?0*[0-9]{1,3})[ \t\r\n]*").fullmatch


def make(sender: JID, to: JID, kind: str | None, payload: str = "") -> Stanza:
    """A presence stanza; ``payload`` is its content as XML."""
    attributes = {"from": sender.full, "to": to.full}
    typed = ""
    if kind is not None:
        attributes["type"] = kind
        typed = f" type='{kind}'"
    end = f">{payload}</presence>" if payload else "/>"
    raw = f"<presence from='{escape(sender.full)}' to='{escape(to.full)}'{typed}{end}".encode()
    # What modules look for in presence are payloads of broadcast or directed presence; the server's own has none.
    stanza = Stanza(PRESENCE, attributes, raw, ())
    stanza.sender, stanza.recipient = sender, to
    return stanza


def unavailable(sender: JID) -> Stanza:
    """Unavailable presence for those who are told when a session ends without saying so."""
    raw = f"<presence from='{escape(sender.full)}' type='{UNAVAILABLE}'/>".encode()
    stanza = Stanza(PRESENCE, {"from": sender.full, "type": UNAVAILABLE}, raw, ())
    stanza.sender, stanza.recipient = sender, None
    return stanza


def addressed_bytes(stanza: Stanza, to: JID) -> bytes:
    """A stanza without ``to`` as bytes with one."""
    return b"".join((_BEGIN, b" to='", escape(to.full).encode(), b"'", stanza.raw[len(_BEGIN) :]))


def addressed(stanza: Stanza, to: JID) -> Stanza:
    """A copy of a stanza without ``to``, for one recipient."""
    copy = Stanza(PRESENCE, {**stanza.attributes, "to": to.full}, addressed_bytes(stanza, to), stanza.payloads)
    copy.sender, copy.recipient = stanza.sender, to
    return copy


def kept(stanza: Stanza) -> Stanza:
    """A copy of a broadcast stanza for as long as the session lasts: without its tree, with shared strings."""
    copy = Stanza(PRESENCE, stanza.attributes, stanza.raw, tuple(map(sys.intern, stanza.payloads)))
    copy.sender, copy.recipient = stanza.sender, None
    return copy


def stamped(stanza: Stanza, sender: JID, to: JID) -> Stanza:
    """A client's subscription stanza between bare JIDs, as it is routed (RFC 6121 section 3.1.2).

    Its ``sender`` stays the full JID, so that an error finds the client.
    """
    copy = stanza.with_attributes(from_=sender.bare, to=to.bare)
    copy.recipient = to
    return copy


def priority_of(stanza: Stanza) -> int:
    """The priority that a client gives itself. Raises :class:`StanzaError` (RFC 6121 section 4.7.2.3)."""
    count = stanza.payloads.count(_PRIORITY)
    if not count:
        return 0
    text = text_of(stanza.tree(), ns.CLIENT, "priority") or ""
    found = _BYTE(text)
    priority = int(found[1]) if found is not None else 1000
    if count > 1 or not -128 <= priority <= 127:
        raise StanzaError("bad-request", "the priority is one whole number from -128 to 127")
    return priority


def request_payload(stanza: Stanza) -> str:
    """What a subscription request holds, as XML that stands for itself; empty when it is too long to be kept."""
    if not stanza.payloads:
        return ""
    payload = children_to_bytes(stanza.tree()).decode()
    return payload if len(payload) <= LONGEST_REQUEST else ""

"""Delayed delivery (XEP-0203): saying when a message came, and believing nobody else who says it in our name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monktalk.common.clock import parse_xmpp_datetime, xmpp_datetime
from monktalk.xmpp.protocol import namespaces as ns

if TYPE_CHECKING:
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element

DELAY: Final = ns.qname(ns.DELAY, "delay")
_TAG: Final = "{" + DELAY


def stamped(raw: bytes, domain: str, when: float) -> bytes:
    """A stored message with ``<delay/>`` from the domain."""
    cut = raw.rfind(b"<")
    delay = f"<delay xmlns='{ns.DELAY}' from='{domain}' stamp='{xmpp_datetime(when)}'>Offline Storage</delay>"
    return b"".join((raw[:cut], delay.encode(), raw[cut:]))


def unstamped(stanza: Stanza, domain: str) -> tuple[Stanza, float | None]:
    """The message without what says ``<delay/>`` in the name of the domain, and the time that was said there."""
    if DELAY not in stanza.payloads:
        return stanza, None
    ours = [child for child in stanza.tree() if _is_ours(child, domain)]
    if not ours:
        return stanza, None
    try:
        when = parse_xmpp_datetime(ours[0].get("stamp", ""))
    except ValueError:
        when = None
    return stanza.filtered(lambda child: not _is_ours(child, domain)), when


def _is_ours(child: Element, domain: str) -> bool:
    return child.tag == _TAG and child.get("from") == domain

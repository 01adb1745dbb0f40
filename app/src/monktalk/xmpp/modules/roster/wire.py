"""Rosters on the wire: items, results, pushes, and what a client may ask to be changed (RFC 6121 section 2)."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from monktalk.common.jid import JID, InvalidJID
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monktalk.common.config import Settings
    from monktalk.xmpp.modules.roster.value import Item
    from monktalk.xmpp.protocol.xmltree import Element

_ITEM = f"{{{ns.ROSTER}}}item"
_GROUP = f"{{{ns.ROSTER}}}group"


class RosterSet(NamedTuple):
    """What a client asks for: ``name`` and ``groups`` for a contact, or that he be removed."""

    jid: JID
    remove: bool
    name: str
    groups: tuple[str, ...]


def item_xml(jid: str, item: Item | None) -> str:
    """One item; None for a contact that has been removed."""
    # The characters that XML would want escaped can't stand in a bare JID.
    if item is None:
        return f"<item jid='{jid}' subscription='remove'/>"
    parts = [f"<item jid='{jid}' subscription='{item.subscription}'"]
    if item.name:
        parts.append(f" name='{escape(item.name)}'")
    if item.ask:
        parts.append(" ask='subscribe'")
    if item.approved:
        parts.append(" approved='true'")
    if item.groups:
        parts.append(">")
        parts.extend(f"<group>{escape(group)}</group>" for group in item.groups)
        parts.append("</item>")
    else:
        parts.append("/>")
    return "".join(parts)


def query(items: Mapping[str, Item], version: int) -> bytes:
    """A whole roster, as the payload of a result."""
    shown = "".join([item_xml(jid, item) for jid, item in items.items()])
    return f"<query xmlns='{ns.ROSTER}' ver='{version}'>{shown}</query>".encode()


def push(to: JID, number: int, item: str, version: int) -> bytes:
    """A roster push (section 2.1.6) with one item."""
    return (
        f"<iq type='set' id='push-{number}' to='{escape(to.full)}'>"
        f"<query xmlns='{ns.ROSTER}' ver='{version}'>{item}</query></iq>"
    ).encode()


def read_set(asked: Element, owner: JID, limits: Settings) -> RosterSet:
    """Read the ``<query/>`` of a roster set by ``owner``. Raises :class:`StanzaError` as section 2.3.3 has it.

    A resource in the address is dropped: presence subscriptions are between bare JIDs.
    """
    if len(asked) != 1 or asked[0].tag != _ITEM:
        raise StanzaError("bad-request", "a roster set has one item, and nothing else")
    item = asked[0]
    text = item.get("jid")
    if not text:
        raise StanzaError("bad-request", "the item has no jid")
    try:
        jid = JID.parse(text).to_bare()
    except InvalidJID as error:
        raise StanzaError("jid-malformed", str(error)) from None
    if item.get("subscription") == "remove":
        return RosterSet(jid, remove=True, name="", groups=())
    if jid.bare == owner.bare:
        raise StanzaError("not-allowed", "nobody is a contact of himself")
    name = item.get("name", "")
    _check_length("name", name, limits.max_length)
    return RosterSet(jid, remove=False, name=name, groups=_groups(item, limits))


def _groups(item: Element, limits: Settings) -> tuple[str, ...]:
    groups = tuple(child.text or "" for child in item if child.tag == _GROUP)
    if len(groups) > limits.max_groups:
        raise StanzaError("not-acceptable", f"a contact may be in {limits.max_groups} groups at most")
    for group in groups:
        if not group:
            raise StanzaError("not-acceptable", "a group has no name")
        _check_length("group", group, limits.max_length)
    if len({unicodedata.normalize("NFC", group) for group in groups}) != len(groups):
        raise StanzaError("bad-request", "a group is there twice")
    return groups


def _check_length(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise StanzaError("not-acceptable", f"the {what} is longer than {limit} characters")

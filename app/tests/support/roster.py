"""Rosters as conversations see them (RFC 6121 section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from tests.support.client import Client
from tests.support.matching import show
from tests.support.stanzas import payload_of

ROSTER = "jabber:iq:roster"


@dataclass(frozen=True)
class Item:
    """One item; an item that is missing is one without anything."""

    subscription: str = "none"
    ask: bool = False
    name: str = ""
    groups: frozenset[str] = field(default_factory=frozenset)
    approved: bool = False

    @property
    def state(self) -> tuple[str, bool]:
        """What the subscription state machine is about."""
        return self.subscription, self.ask


def item_of(node: ET.Element) -> Item:
    """Read an ``<item/>``."""
    assert node.tag == f"{{{ROSTER}}}item", show(node)
    assert node.get("ask") in (None, "subscribe"), show(node)
    groups = [child.text or "" for child in node]
    assert len(groups) == len(set(groups)), show(node)
    return Item(
        node.get("subscription", "none"),
        node.get("ask") == "subscribe",
        node.get("name", ""),
        frozenset(groups),
        node.get("approved") in ("true", "1"),
    )


def items_of(answer: ET.Element) -> dict[str, Item]:
    """The items of the answer to a roster request, by JID."""
    query = payload_of(answer)
    assert query.tag == f"{{{ROSTER}}}query", show(answer)
    return {node.get("jid", ""): item_of(node) for node in query}


async def item(client: Client, jid: str) -> Item:
    """What the client's roster says about ``jid`` now. The client is an interested resource afterwards."""
    return items_of(await client.roster()).get(jid, Item())


async def set_item(client: Client, jid: str, *, name: str | None = None, groups: tuple[str, ...] = ()) -> ET.Element:
    """Add or change an item; returns the answer."""
    named = f" name='{name}'" if name is not None else ""
    inner = "".join(f"<group>{group}</group>" for group in groups)
    return await client.set(f"<query xmlns='{ROSTER}'><item jid='{jid}'{named}>{inner}</item></query>")


async def remove_item(client: Client, jid: str) -> ET.Element:
    """Remove an item; returns the answer."""
    return await client.set(f"<query xmlns='{ROSTER}'><item jid='{jid}' subscription='remove'/></query>")


async def receives_push(client: Client) -> tuple[str, Item, str]:
    """The next stanza is a roster push; returns JID, item and version, and acknowledges the push as clients do."""
    node = await client.next()
    assert node.tag == "{jabber:client}iq", f"{client.full}: a roster push was expected: {show(node)}"
    assert node.get("type") == "set", show(node)
    assert node.get("id"), "a request needs an id"
    assert node.get("to") == client.full, show(node)
    assert node.get("from") in (None, client.bare), show(node)
    assert len(node) == 1, show(node)
    query = node[0]
    assert query.tag == f"{{{ROSTER}}}query", show(node)
    assert len(query) == 1, "RFC 6121, 2.1.6: one item in a push"
    await client.send(f"<iq type='result' id='{node.get('id')}'/>")
    return query[0].get("jid", ""), item_of(query[0]), query.get("ver", "")

"""A roster as an immutable value, and the form in which it is stored."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE: Final = "none"
TO: Final = "to"
FROM: Final = "from"
BOTH: Final = "both"

SUBSCRIPTIONS: Final = {word: word for word in (NONE, TO, FROM, BOTH)}


class Item(NamedTuple):
    """What a user's roster says about one contact (RFC 6121 section 2.1.2).

    ``subscription`` is one of the four words; ``ask`` tells that the user has asked and waits for an answer ("Pending Out");
    ``approved`` that he has approved a request that has not come yet.
    """

    subscription: str = NONE
    ask: bool = False
    approved: bool = False
    name: str = ""
    groups: tuple[str, ...] = ()

    @property
    def to(self) -> bool:
        """The user gets the contact's presence."""
        return self.subscription in (TO, BOTH)

    @property
    def from_(self) -> bool:
        """The contact gets the user's presence."""
        return self.subscription in (FROM, BOTH)


@dataclass(frozen=True)
class Roster:
    """A user's contacts by bare JID, and the requests that he has not answered.

    ``requests`` maps the bare JID of somebody who wants to subscribe ("Pending In") to the payload of his request, as XML.
    He need not be in ``items``: until the user has answered, such a contact does not show in the roster (RFC 6121, A.1).
    Both mappings are never changed; the methods return another roster, or this one when nothing is different.
    """

    items: Mapping[str, Item]
    requests: Mapping[str, str]

    @cached_property
    def subscribers(self) -> tuple[str, ...]:
        """The contacts that get the user's presence."""
        return tuple(jid for jid, item in self.items.items() if item.subscription in (FROM, BOTH))

    @cached_property
    def subscriptions(self) -> tuple[str, ...]:
        """The contacts whose presence the user gets."""
        return tuple(jid for jid, item in self.items.items() if item.subscription in (TO, BOTH))

    @cached_property
    def size(self) -> int:
        """Characters of all addresses, names and groups together."""
        return sum(len(jid) + len(item.name) + sum(map(len, item.groups)) for jid, item in self.items.items())

    def shows_presence_to(self, jid: str) -> bool:
        """Whether the entity with that bare JID may see the user's presence."""
        item = self.items.get(jid)
        return item is not None and item.from_

    def relation(self, jid: str) -> frozenset[str]:
        """What there is between user and contact, as the hook ``contact_removed`` tells it."""
        item = self.items.get(jid, Item())
        found = {TO: item.to, FROM: item.from_, "ask": item.ask, "asked": jid in self.requests}
        return frozenset(word for word, there in found.items() if there)

    def with_item(self, jid: str, item: Item) -> Roster:
        """The roster with this item in place of what it said about the contact."""
        if self.items.get(jid) == item:
            return self
        return Roster({**self.items, jid: item}, self.requests)

    def without_item(self, jid: str) -> Roster:
        """The roster without that contact."""
        return Roster(_without(self.items, jid), self.requests) if jid in self.items else self

    def with_request(self, jid: str, payload: str) -> Roster:
        """The roster with a request to be answered."""
        if self.requests.get(jid) == payload:
            return self
        return Roster(self.items, {**self.requests, jid: payload})

    def without_request(self, jid: str) -> Roster:
        """The roster without the request of that contact."""
        return Roster(self.items, _without(self.requests, jid)) if jid in self.requests else self


EMPTY: Final = Roster({}, {})


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {other: value for other, value in mapping.items() if other != key}


class RosterCodec:
    """Rosters as compact JSON; what has its usual value is left out.

    Addresses and groups are interned: the same ones stand in the rosters of many users.
    """

    def encode(self, value: Roster) -> bytes:
        """The bytes to store."""
        stored: dict[str, Any] = {"items": {jid: _pack(item) for jid, item in value.items.items()}}
        if value.requests:
            stored["requests"] = dict(value.requests)
        return json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> Roster:
        """The roster; KeyError, TypeError or ValueError when the bytes are none."""
        stored = json.loads(data)
        return Roster(
            {sys.intern(jid): _unpack(item) for jid, item in stored["items"].items()},
            {sys.intern(jid): str(payload) for jid, payload in stored.get("requests", {}).items()},
        )


def _pack(item: Item) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    if item.subscription != NONE:
        packed["subscription"] = item.subscription
    if item.ask:
        packed["ask"] = True
    if item.approved:
        packed["approved"] = True
    if item.name:
        packed["name"] = item.name
    if item.groups:
        packed["groups"] = item.groups
    return packed


def _unpack(packed: dict[str, Any]) -> Item:
    return Item(
        SUBSCRIPTIONS[packed.get("subscription", NONE)],
        bool(packed.get("ask", False)),
        bool(packed.get("approved", False)),
        packed.get("name", ""),
        tuple(map(sys.intern, packed.get("groups", ()))),
    )


CODEC: Final = RosterCodec()
"""The one instance: hosts share a table, and a table has one codec."""

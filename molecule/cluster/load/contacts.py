"""A client's roster and who of it is online (RFC 6121), and the requests that it has to answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.stream import attribute

if TYPE_CHECKING:
    from collections.abc import Callable

_ROSTER = b"jabber:iq:roster"
_ITEM = re.compile(rb"<item\b[^>]*>")
_SEEING = {b"to", b"both"}


class Contacts:
    """Subscribes to friends by presence stanzas, as people do, and remembers who is seen online.

    Attributes:
        friends: bare addresses that presence is exchanged with.
        online: the available resources of each friend, as full addresses.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._subscriptions: dict[bytes, bytes] = {}
        self.friends: set[bytes] = set()
        self.online: dict[bytes, set[bytes]] = {}

    def begin(self) -> None:
        """A new session has begun: ask for the roster, forget who was online."""
        self.online.clear()
        self._send(b"<iq type='get' id='roster'><query xmlns='%b'/></iq>" % _ROSTER)

    def befriend(self, friend: bytes) -> None:
        """Ask for somebody's presence, unless it comes already."""
        self.friends.add(friend)
        if self._subscriptions.get(friend) not in _SEEING:
            self._send(b"<presence type='subscribe' to='%b'/>" % friend)

    @property
    def befriended(self) -> bool:
        """Whether presence goes both ways with all friends."""
        return all(self._subscriptions.get(friend) == b"both" for friend in self.friends)

    def presence(self, element: bytes) -> None:
        """Presence of somebody, or a request for ours."""
        sender = attribute(element, b"from") or b""
        bare = sender.partition(b"/")[0]
        kind = attribute(element, b"type")
        if kind is None:
            self.online.setdefault(bare, set()).add(sender)
        elif kind == b"unavailable":
            self.online.get(bare, set()).discard(sender)
        elif kind == b"subscribe" and bare in self.friends:
            self._send(b"<presence type='subscribed' to='%b'/>" % bare)

    def iq(self, element: bytes) -> None:
        """The roster, a change of it, or a question."""
        kind = attribute(element, b"type")
        if _ROSTER in element and kind in {b"result", b"set"}:
            for item in _ITEM.findall(element):
                jid = attribute(item, b"jid") or b""
                self._subscriptions[jid] = attribute(item, b"subscription") or b"none"
        if kind in {b"get", b"set"}:
            self._answer(element, kind)

    def _answer(self, element: bytes, kind: bytes) -> None:
        head = b"<iq id='%b'" % (attribute(element, b"id") or b"")
        sender = attribute(element, b"from")
        if sender is not None:
            head += b" to='%b'" % sender
        if kind == b"set" or b"urn:xmpp:ping" in element:
            self._send(head + b" type='result'/>")
        else:
            self._send(
                head + b" type='error'><error type='cancel'><service-unavailable "
                b"xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            )

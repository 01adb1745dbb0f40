"""Ids that the server gives to the messages of its accounts, for archives and for whoever must tell copies apart."""

from __future__ import annotations

import secrets
from time import time_ns
from typing import TYPE_CHECKING, Final

from monktalk.common.jid import JID, InvalidJID
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.modules.storable import BODY, has_content
from monktalk.xmpp.protocol import namespaces as ns

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element

STANZA_ID: Final = ns.qname(ns.STANZA_ID, "stanza-id")
_TAG: Final = "{" + STANZA_ID
_END: Final = b"</message>"
_CACHED_STARTS: Final = 10_000
_RANDOM_BYTES: Final = 4096


class StanzaIds(Module):
    """Unique and stable stanza ids (XEP-0359) on the messages that accounts get.

    An id is a time in nanoseconds, which never repeats nor goes back in a process, and 32 random bits: ids can't be guessed,
    do not collide between processes, and sort in the order in which the messages came.
    """

    name = "stanza_id"
    account_features = (ns.STANZA_ID,)

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._last = 0
        self._random: list[bytes] = []
        self._starts: dict[str, bytes] = {}

    @HostHooks.incoming_message.handler(priority=-10)
    def stamp(self, stanza: Stanza, user: str) -> Stanza:
        """Give a message an id, unless nobody would ever refer to it; take away one that somebody made up in our name."""
        # On the path of every message, hence all in one function, and the bytes put together once.
        payloads = stanza.payloads
        if STANZA_ID in payloads:
            stanza = self._without_forged(stanza, user)
            payloads = stanza.payloads
        if BODY not in payloads and not has_content(payloads):
            return stanza
        now = time_ns()
        if now <= self._last:
            now = self._last + 1
        self._last = now
        raw = stanza.raw
        content = raw[:-10] if raw.endswith(_END) else raw[: raw.rfind(b"<")]  # there may be white space in the end tag
        start = self._starts.get(user) or self._start(user)
        if not self._random:
            self._draw()
        stanza.raw = b"%b%b%x%b'/></message>" % (content, start, now, self._random.pop())
        stanza.payloads = [*payloads, STANZA_ID]
        return stanza

    def _draw(self) -> None:
        """Ask the system for the random parts of many ids at once."""
        digits = secrets.token_hex(_RANDOM_BYTES).encode()
        self._random = [digits[at : at + 8] for at in range(0, len(digits), 8)]

    def _start(self, user: str) -> bytes:
        if len(self._starts) >= _CACHED_STARTS:
            self._starts.clear()
        # A bare JID holds nothing that would have to be escaped.
        start = f"<stanza-id xmlns='{ns.STANZA_ID}' by='{user}@{self.host.domain}' id='".encode()
        self._starts[user] = start
        return start

    def _without_forged(self, stanza: Stanza, user: str) -> Stanza:
        """Ids by others, a room for one, are left in place."""
        ours = (f"{user}@{self.host.domain}", self.host.domain)

        def honest(child: Element) -> bool:
            return child.tag != _TAG or _bare(child.get("by", "")) not in ours

        return stanza if all(map(honest, stanza.tree())) else stanza.filtered(honest)


def _bare(address: str) -> str:
    try:
        return JID.parse(address).bare
    except InvalidJID:
        return ""

"""Which messages are worth keeping for somebody who is not here (XEP-0160 section 3, XEP-0334)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monktalk.xmpp.protocol import namespaces as ns

if TYPE_CHECKING:
    from collections.abc import Sequence

BODY: Final = ns.qname(ns.CLIENT, "body")
_SUBJECT: Final = ns.qname(ns.CLIENT, "subject")
_STORE: Final = ns.qname(ns.HINTS, "store")
_NO_STORE: Final = ns.qname(ns.HINTS, "no-store")

# Decorations of a message: alone they say nothing that is worth reading later.
_SLIGHT: Final = tuple(
    f"{namespace}}}" for namespace in (ns.CLIENT, ns.CHAT_STATES, ns.HINTS, ns.STANZA_ID, ns.DELAY, ns.NICK)
)


def has_content(payloads: Sequence[str]) -> bool:
    """Whether a message with those payloads says something, beyond that somebody is writing."""
    return BODY in payloads or any(not name.startswith(_SLIGHT) for name in payloads)


def is_storable(payloads: Sequence[str], kind: str) -> bool:
    """Whether a message of that type (``chat`` or ``normal``) is kept until the recipient comes.

    The hint ``no-store`` forbids it and ``store`` demands it. ``no-permanent-store`` is about archives and logs, while
    this is a part of delivery (XEP-0334 section 3.3). A subject without a body is worth reading only where it is all
    that such messages usually have: not in a chat.
    """
    if _NO_STORE in payloads:
        return False
    return has_content(payloads) or _STORE in payloads or (kind == "normal" and _SUBJECT in payloads)

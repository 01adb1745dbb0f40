"""The module `presence`: subscriptions and the exchange of presence (RFC 6121 sections 3 and 4)."""

from __future__ import annotations

from monktalk.xmpp.modules.presence.module import Presence

__all__ = ["Presence"]

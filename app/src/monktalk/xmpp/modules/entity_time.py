"""The time of the server."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from monktalk.common.clock import xmpp_datetime
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import element

if TYPE_CHECKING:
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza


class EntityTime(Module):
    """The server's time and its offset from UTC (XEP-0202)."""

    name = "time"
    features = (ns.TIME,)

    @iq("get", ns.TIME, "time", to=Target.HOST)
    def answer(self, _request: Stanza, _session: Session | None) -> Reply:
        """Answer what time it is here."""
        now = self.host.server.clock.now()
        offset = datetime.fromtimestamp(now).astimezone().strftime("%z")
        return element(
            ns.TIME,
            "time",
            None,
            element(ns.TIME, "tzo", None, f"{offset[:3]}:{offset[3:5]}"),
            element(ns.TIME, "utc", None, xmpp_datetime(now)),
        )

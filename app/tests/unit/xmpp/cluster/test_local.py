"""The bus of a server that is alone."""

from __future__ import annotations

from monktalk.xmpp.cluster.bus import Bus
from monktalk.xmpp.cluster.local import LocalBus


async def test_nobody_else_has_users_or_wants_notices():
    bus: Bus = LocalBus()
    heard: list[tuple[str, tuple[str, ...]]] = []
    await bus.start()
    bus.on_notice("invalidate", lambda topic, what: heard.append((topic, what)))
    bus.user_online("example.org", "romeo")
    assert bus.forward("example.org", "romeo", b"<message/>") is False
    bus.notify("invalidate", "roster", "example.org")
    assert heard == []
    bus.user_offline("example.org", "romeo")
    await bus.close()

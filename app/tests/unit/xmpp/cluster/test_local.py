"""The bus of a server that is alone."""

from __future__ import annotations

from unittest import mock

from monktalk.xmpp.cluster.bus import Bus
from monktalk.xmpp.cluster.local import LocalBus


async def test_every_user_is_at_home_and_nobody_else_wants_notices():
    bus: Bus = LocalBus("laptop")
    heard: list[tuple[str, tuple[str, ...]]] = []
    hub = mock.Mock()
    hub.sessions.return_value = 3
    await bus.start(hub)
    bus.on_notice("invalidate", lambda topic, what: heard.append((topic, what)))
    assert await bus.arrive("example.org", "romeo") is None
    assert bus.is_home("example.org", "romeo")
    bus.to_user("example.org", "romeo", 1, (b"<message/>",))
    hub.homeless.assert_called_once_with("example.org", "romeo", 1, (b"<message/>",), certain=True)
    bus.notify("invalidate", "roster", "example.org")
    assert heard == []
    (peer,) = bus.peers()
    assert (peer.name, peer.node, peer.sessions, peer.draining) == (bus.worker, "laptop", 3, False)
    bus.drain()
    assert bus.peers()[0].draining
    await bus.close()

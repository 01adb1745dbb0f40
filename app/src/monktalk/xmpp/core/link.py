"""What a client stream needs of its transport. TCP, BOSH and WebSocket each provide one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from monktalk.xmpp.core.relay import Uplink


class Link(Protocol):
    """A connection to one client."""

    secure: bool
    """TLS is up."""

    peer: str
    """The client's address, without its port."""

    @property
    def port(self) -> int:
        """The client's port; 0 when it has none."""

    kind: str
    """``tcp``, ``bosh`` or ``websocket``, for logs and lists."""

    def write(self, data: bytes) -> None:
        """Queue output; everything queued in one iteration of the loop leaves in one write."""

    def start_tls(self) -> None:
        """Begin a TLS handshake as the server. Input that came before is dropped by the caller."""

    def restart(self) -> None:
        """Expect a new stream header."""

    def authenticated(self) -> None:
        """Apply the limits for authenticated clients from now on."""

    def relay(self, uplink: Uplink) -> None:
        """Hand what comes from now on to ``uplink``, as bytes, instead of to the stream."""

    def bindings(self) -> dict[str, bytes]:
        """Channel bindings of the TLS connection by type; empty without TLS."""

    def close(self) -> None:
        """Send what is queued, then end the connection."""

    def pause(self) -> None:
        """Stop reading until :meth:`resume`."""

    def resume(self) -> None:
        """Read again."""

    active: int
    """The second, of a clock of its own, in which something came from the client last."""

    @property
    def idle(self) -> int:
        """Seconds since then."""

    async def drained(self) -> None:
        """Wait until the client has taken most of what it was sent, or the connection has ended."""


class ClosedLink:
    """What a stream has in the place of a link that is gone: everything sent there is dropped."""

    secure = False
    peer = ""
    port = 0
    kind = "closed"
    active = 0
    idle = 0

    def write(self, data: bytes) -> None:
        """Drop the data."""

    def start_tls(self) -> None:
        """Nothing to encrypt."""

    def restart(self) -> None:
        """Nothing comes any more."""

    def authenticated(self) -> None:
        """Nothing comes any more."""

    def relay(self, uplink: Uplink) -> None:
        """Nothing comes any more."""

    def bindings(self) -> dict[str, bytes]:
        """There is no TLS connection."""
        return {}

    def close(self) -> None:
        """It is closed."""

    def pause(self) -> None:
        """Nothing comes any more."""

    def resume(self) -> None:
        """Nothing comes any more."""

    async def drained(self) -> None:
        """The connection has ended."""


CLOSED = ClosedLink()

"""The server's own entity capabilities, so that clients need not ask what they knew at their last login."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from monktalk.common.config import Kind, Option
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.caps import UnusableInfo, verification_string
from monktalk.xmpp.protocol.xmltree import escape

if TYPE_CHECKING:
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.modules.disco import Disco
    from monktalk.xmpp.protocol.disco import Info, NodeQuery

log = get_logger(__name__)


class Caps(Module):
    """Entity capabilities (XEP-0115) of the server, announced in the features of authenticated streams."""

    name = "caps"
    requires = ("disco",)
    features = (ns.CAPS,)
    options = (
        Option(
            "node",
            Kind.URL,
            None,
            doc="What stands for the software in the announcement, usually its web page; by default the host's.",
        ),
    )

    _feature: bytes | None = None
    _ver = ""

    @HostHooks.features_changed.handler()
    def forget(self) -> None:
        """The hash is out of date."""
        self._feature = None

    @HostHooks.stream_features.handler()
    def announce(self, stream: ClientStream, features: list[bytes]) -> None:
        """Add ``<c/>`` to the features of a stream whose client is known (XEP-0115 section 6.3)."""
        if stream.user is not None:
            features.append(self._current())

    @HostHooks.disco_node.handler()
    def answer(self, query: NodeQuery) -> bool:
        """The node ``node#ver`` is the host as it is now; for other hashes there is no answer (section 6.2)."""
        if query.account:
            return False
        self._current()
        if query.node != f"{self._node}#{self._ver}":
            return False
        query.info = self._info()
        return True

    @property
    def _node(self) -> str:
        return self.settings.node or f"https://{self.host.domain}/"

    def _info(self) -> Info:
        return cast("Disco", self.host.modules["disco"]).info()

    def _current(self) -> bytes:
        if self._feature is None:
            self._ver, self._feature = "", b""
            try:
                self._ver = verification_string(self._info())
            except UnusableInfo as error:
                # A name or a contact address in the configuration: everything works without the announcement.
                log.warning("no_caps", host=self.host.domain, reason=f"the host's disco#info can't be hashed: {error}")
            else:
                node = escape(self._node)
                self._feature = f"<c xmlns='{ns.CAPS}' hash='sha-1' node='{node}' ver='{self._ver}'/>".encode()
        return self._feature

"""What software the server is."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from monktalk.common.config import Kind, Option
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import element

if TYPE_CHECKING:
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza


class Version(Module):
    """Name and version of the server's software (XEP-0092)."""

    name = "version"
    features = (ns.VERSION,)
    options = (
        Option("name", Kind.STRING, "MonkTalk", doc="The name of the software."),
        Option("version", Kind.STRING, None, doc="Its version; by default the installed one, empty hides it."),
        Option("os", Kind.STRING, None, doc="The operating system; by default nothing is said about it."),
    )

    _installed = ""

    async def start(self) -> None:
        """Read the installed version once."""
        self._installed = metadata.version("monktalk")

    @iq("get", ns.VERSION, "query", to=Target.HOST)
    def answer(self, _request: Stanza, _session: Session | None) -> Reply:
        """Answer what is configured to be told."""
        settings = self.settings
        version = self._installed if settings.version is None else settings.version
        parts = {"name": settings.name, "version": version, "os": settings.os}
        children = [element(ns.VERSION, key, None, value) for key, value in parts.items() if value is not None]
        return element(ns.VERSION, "query", None, *children)

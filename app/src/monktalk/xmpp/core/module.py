"""The base of all modules. A module says as data what it is; the host registers it and can undo all of that.

::

    class Ping(Module):
        \"\"\"XMPP Ping (XEP-0199).\"\"\"

        name = "ping"
        features = (ns.PING,)
        options = (Option("interval", Kind.DURATION, "60 s", doc="…"),)

        @iq("get", ns.PING, "ping", to=(Target.HOST, Target.SELF))
        def answer(self, request: Stanza, session: Session | None) -> Reply: ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeVar

from monktalk.common.config import Kind, Option, Section
from monktalk.xmpp.protocol.namespaces import qname
from monktalk.xmpp.protocol.xmltree import Element

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost

Reply = Element | bytes | None
"""What an IQ handler returns: the payload of the result, or None for an empty result. A refusal is a raised StanzaError."""

IqHandler = Callable[..., "Reply | Awaitable[Reply]"]
"""``handler(request: Stanza, session: Session | None)``; ``session`` is the local sender's, if he is one of this server."""

IqKey = tuple[str, "Target", str]
"""Type (get, set), target, and the qualified name of the payload."""

F = TypeVar("F", bound=IqHandler)
_MARK = "_monktalk_iq"

ENABLED = Option("enabled", Kind.BOOLEAN, True, doc="Load the module.")


class Target(Enum):
    """Whom an IQ request is for, as far as the server answers it."""

    HOST = "host"
    """The host itself."""
    SELF = "self"
    """The sender's own account (its bare JID, or no ``to``)."""
    USER = "user"
    """Another user's bare JID; whether he exists is for the handler to hide."""


def iq(
    types: str | tuple[str, ...], namespace: str, local: str, *, to: Target | tuple[Target, ...]
) -> Callable[[F], F]:
    """Mark a method as the handler of IQ requests with that payload."""
    kinds = (types,) if isinstance(types, str) else types
    targets = (to,) if isinstance(to, Target) else to

    def mark(method: F) -> F:
        keys = [(kind, target, qname(namespace, local)) for kind in kinds for target in targets]
        setattr(method, _MARK, [*getattr(method, _MARK, ()), *keys])
        return method

    return mark


def iq_marks(method: object) -> list[IqKey]:
    """The requests that a method was marked for."""
    return list(getattr(method, _MARK, ()))


class Module:
    """One feature of a host. Subclasses set the class attributes and mark methods as handlers.

    ``name`` is the name in the configuration, ``requires`` other modules that must be loaded before, ``features`` the
    disco features of the host, ``account_features`` those of accounts (bare JIDs), ``default`` whether it is loaded when
    the configuration does not mention it.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[Option, ...]] = ()
    features: ClassVar[tuple[str, ...]] = ()
    account_features: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[bool] = True

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        self.host = host
        self.settings = settings

    async def start(self) -> None:
        """Called after the handlers have been registered."""

    async def stop(self) -> None:
        """Called before the handlers are removed: give back whatever was taken elsewhere."""

    def reload(self, settings: Settings) -> None:
        """The configuration of the module has changed."""
        self.settings = settings

    @classmethod
    def section(cls) -> Section:
        """The module's section of the configuration."""
        enabled = ENABLED if cls.default else Option("enabled", Kind.BOOLEAN, False, doc="Load the module.")
        return Section(
            ("modules", cls.name),
            (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " "),
            (enabled, *cls.options),
            per_host=True,
        )

"""When somebody was here last, for those who may know it; and for how long the server has been running."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.modules.access import sees_presence
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import element, text_of
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza

log = get_logger(__name__)

TABLE: Final = "last"
KEY: Final = "logout"
_CACHED_ACCOUNTS: Final = 10_000
_MAX_STATUS: Final = 1024
_STATUS: Final = ns.qname(ns.CLIENT, "status")


@dataclass(frozen=True, slots=True)
class Logout:
    """The end of an account's last session: when it was, and the status text of the unavailable presence."""

    at: float
    status: str = ""


class _Codec:
    """The time, a line break, the status."""

    def encode(self, value: Logout) -> bytes:
        return f"{int(value.at)}\n{value.status}".encode()

    def decode(self, data: bytes) -> Logout:
        at, _, status = data.decode().partition("\n")
        return Logout(float(at), status)


CODEC: Final = _Codec()


class Last(Module):
    """Last activity (XEP-0012) of accounts, for those subscribed to their presence; the uptime of the server."""

    name = "last"
    features = (ns.LAST,)
    account_features = (ns.LAST,)

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._store = host.server.storage.keyvalue(TABLE, CODEC, _CACHED_ACCOUNTS)
        self._writing: dict[str, asyncio.Task[None]] = {}

    @iq("get", ns.LAST, "query", to=Target.HOST)
    def uptime(self, _request: Stanza, _session: Session | None) -> Reply:
        """Answer for how long the server has been running."""
        return self._reply(self.host.server.started)

    @iq("get", ns.LAST, "query", to=Target.SELF)
    async def own(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer when the sender's account was here last."""
        return await self._answer(request.sender.local)

    @iq("get", ns.LAST, "query", to=Target.USER)
    async def user(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer when another was here last; those who may not see his presence learn nothing, not even his existence."""
        assert request.recipient is not None
        user = request.recipient.local
        if not await sees_presence(self.host, user, request.sender):
            raise StanzaError("forbidden")
        return await self._answer(user)

    async def _answer(self, user: str) -> Reply:
        if self.host.available_sessions(user):
            return self._reply(self.host.server.clock.now())
        await self._written(user)
        found = await self._store.get(self.host.domain, user, KEY)
        if found is None:
            raise StanzaError("item-not-found", "the account has not been online yet")
        return self._reply(found.value.at, found.value.status)

    def _reply(self, since: float, status: str = "") -> Reply:
        seconds = max(0, int(self.host.server.clock.now() - since))
        return element(ns.LAST, "query", {"seconds": str(seconds)}, status)

    # -- remembering ---------------------------------------------------------------------------------------------

    @HostHooks.user_presence.handler(priority=-100)
    def presence(self, session: Session, stanza: Stanza) -> None:
        """Remember the status of unavailable presence, the client's last words, until the session ends."""
        if stanza.recipient is not None:
            return
        status = ""
        if stanza.type == "unavailable" and _STATUS in stanza.payloads:
            status = text_of(stanza.tree(), ns.CLIENT, "status") or ""
        if status:
            session.extra = session.extra or {}
            session.extra[self.name] = status
        elif session.extra is not None:
            session.extra.pop(self.name, None)

    @HostHooks.session_closed.handler()
    def closed(self, session: Session, _reason: str) -> None:
        """Note the time, unless the user is still here with another session."""
        user = session.jid.local
        if not self.host.available_sessions(user):
            status = (session.extra or {}).get(self.name, "")
            logout = Logout(self.host.server.clock.now(), status)
            self._writing[user] = self.host.server.spawn(self._write(user, logout))

    async def _write(self, user: str, logout: Logout) -> None:
        try:
            await self.remember(user, logout)
        except StorageUnavailable as error:
            log.warning("logout_not_stored", host=self.host.domain, user=user, reason=str(error))
        finally:
            if self._writing.get(user) is asyncio.current_task():
                del self._writing[user]

    async def _written(self, user: str) -> None:
        """Wait until it is stored that the user has just left."""
        writing = self._writing.get(user)
        if writing is not None:
            await asyncio.wait([writing])

    async def remember(self, user: str, logout: Logout) -> None:
        """Store when the account was here last. Raises :class:`StorageUnavailable`."""
        status = logout.status[:_MAX_STATUS]
        await self._store.put(self.host.domain, user, KEY, Logout(logout.at, status), None)

    @HostHooks.account_removed.handler()
    async def removed(self, user: str) -> None:
        """Forget the account; its last session has just ended."""
        await self._written(user)
        await self._store.delete_owner(self.host.domain, user)

"""XML that clients keep on the server for themselves: preferences, old-style bookmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monktalk.common.config import Kind, Option
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import element, to_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element

TABLE: Final = "private"
_CACHED_ELEMENTS: Final = 10_000
_MAX_KEY_BYTES: Final = 1_000
_QUERY_START: Final = f"<query xmlns='{ns.PRIVATE}'>".encode()
_QUERY_END: Final = b"</query>"


class _Codec:
    """The elements as they stand inside of the query."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


CODEC: Final = _Codec()


def key_of(node: Element) -> str:
    """The key under which an element is stored: ``namespace|local``."""
    namespace, _, local = node.tag[1:].rpartition("}")
    return f"{namespace}|{local}"


class Private(Module):
    """Private XML storage (XEP-0049)."""

    name = "private"
    features = (ns.PRIVATE,)
    account_features = (ns.PRIVATE,)
    options = (
        Option("max_size", Kind.SIZE, "128 KiB", minimum=1024, doc="The largest element that is stored."),
        Option("max_elements", Kind.INTEGER, 100, minimum=1, doc="Elements (by name and namespace) of one account."),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._store = host.server.storage.keyvalue(TABLE, CODEC, _CACHED_ELEMENTS)

    @iq("get", ns.PRIVATE, "query", to=Target.SELF)
    async def get(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer with the element that is stored under the name in the request, empty when there is none."""
        wanted = list(_query(request))
        if len(wanted) != 1:
            raise StanzaError("bad-request", "ask for one element at a time")
        key = _checked_key(wanted[0])
        found = await self._store.get(self.host.domain, request.sender.local, key)
        stored = found.value if found is not None else to_bytes(element(*_name(wanted[0])), ns.PRIVATE)
        return _QUERY_START + stored + _QUERY_END

    @iq("set", ns.PRIVATE, "query", to=Target.SELF)
    async def set(self, request: Stanza, _session: Session | None) -> Reply:
        """Store the elements in the request, in place of those that had their names."""
        parts: dict[str, list[bytes]] = {}
        for child in _query(request):
            parts.setdefault(_checked_key(child), []).append(to_bytes(child, ns.PRIVATE))
        if not parts:
            raise StanzaError("not-acceptable", "there is no element to store")
        values = {key: b"".join(elements) for key, elements in parts.items()}
        if any(len(value) > self.settings.max_size for value in values.values()):
            raise StanzaError("not-acceptable", f"an element may have {self.settings.max_size} bytes")
        user = request.sender.local
        await self._check_number(user, values)
        for key, value in values.items():
            await self._store.put(self.host.domain, user, key, value, None)
        return None

    async def _check_number(self, user: str, keys: Collection[str]) -> None:
        limit = self.settings.max_elements
        if len(keys) <= limit:
            new = [key for key in keys if await self._store.get(self.host.domain, user, key) is None]
            if not new or len(await self._store.keys(self.host.domain, user)) + len(new) <= limit:
                return
        raise StanzaError("policy-violation", f"an account may store {limit} elements")

    @iq(("get", "set"), ns.PRIVATE, "query", to=Target.USER)
    def refuse(self, _request: Stanza, _session: Session | None) -> Reply:
        """Nobody has access to what others keep, whether there is something or not."""
        raise StanzaError("forbidden")

    @HostHooks.account_removed.handler()
    async def removed(self, user: str) -> None:
        """Delete what the account kept."""
        await self._store.delete_owner(self.host.domain, user)


def _query(request: Stanza) -> Element:
    payload = request.payload()
    assert payload is not None
    return payload


def _name(node: Element) -> tuple[str, str]:
    namespace, _, local = node.tag[1:].rpartition("}")
    return namespace, local


def _checked_key(node: Element) -> str:
    """The key of an element. It needs a namespace of its own (XEP-0049)."""
    if not node.tag.startswith("{") or _name(node)[0] == ns.PRIVATE:
        raise StanzaError("not-acceptable", "the element needs a namespace of its own")
    key = key_of(node)
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise StanzaError("not-acceptable", f"name and namespace may have {_MAX_KEY_BYTES} bytes")
    return key

"""Service discovery: what the host and its accounts are, what they can do, and what belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.config import Kind, Option
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.modules.access import sees_presence
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.disco import Identity, Info, Item, NodeQuery, items_element, result_form
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import to_bytes

if TYPE_CHECKING:
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element


class Disco(Module):
    """Service discovery (XEP-0030) of the host and its accounts, with contact addresses (XEP-0157)."""

    name = "disco"
    features = (ns.DISCO_INFO, ns.DISCO_ITEMS)
    account_features = (ns.DISCO_INFO, ns.DISCO_ITEMS)
    options = (
        Option("name", Kind.STRING, "MonkTalk", maximum=200, doc="The name of the server, as clients show it."),
        Option("items", Kind.JIDS, (), doc="Addresses of other services, listed as items of the host."),
    )

    _info: Info | None = None
    _answer: bytes | None = None
    _account_answer: bytes | None = None

    @HostHooks.features_changed.handler(priority=-100)
    def forget(self) -> None:
        """What has been put together is out of date."""
        self._info = self._answer = self._account_answer = None

    def info(self) -> Info:
        """What the host answers to disco#info. It is shared: don't change it."""
        if self._info is None:
            self._info = self._collect()
        return self._info

    def _collect(self) -> Info:
        identities = [
            Identity(category, kind, name=self.settings.name if (category, kind) == ("server", "im") else name)
            for category, kind, name in self.host.identities
        ]
        features = {feature for module in self.host.modules.values() for feature in module.features}
        forms: list[Element] = []
        contacts = self._contacts()
        if contacts:
            forms.append(result_form(ns.SERVER_INFO, contacts))
        self.host.hooks.disco_forms(forms)
        return Info(identities, features, forms)

    def _contacts(self) -> dict[str, tuple[str, ...]]:
        contacts = self.host.settings("contacts")
        return {f"{kind}-addresses": getattr(contacts, kind) for kind in contacts if getattr(contacts, kind)}

    # -- the host ------------------------------------------------------------------------------------------------

    @iq("get", ns.DISCO_INFO, "query", to=Target.HOST)
    def host_info(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer disco#info for the host."""
        node = _node(request)
        if node:
            return self._ask(request, "", node).info.to_element(node)
        if self._answer is None:
            self._answer = to_bytes(self.info().to_element())
        return self._answer

    @iq("get", ns.DISCO_ITEMS, "query", to=Target.HOST)
    def host_items(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer disco#items for the host."""
        node = _node(request)
        if node:
            return items_element(self._ask(request, "", node).items, node)
        items = [Item(jid.full) for jid in self.settings.items]
        self.host.hooks.disco_items(items, request.sender)
        return items_element(items)

    # -- accounts ------------------------------------------------------------------------------------------------

    @iq("get", ns.DISCO_INFO, "query", to=Target.SELF)
    def own_info(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer disco#info for the sender's account."""
        return self._account_info(request, request.sender.local)

    @iq("get", ns.DISCO_ITEMS, "query", to=Target.SELF)
    def own_items(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer disco#items for the sender's account."""
        return self._account_items(request, request.sender.local)

    @iq("get", ns.DISCO_INFO, "query", to=Target.USER)
    async def user_info(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer disco#info for another's account to those who may see his presence; for others there is none."""
        return self._account_info(request, await self._permitted(request))

    @iq("get", ns.DISCO_ITEMS, "query", to=Target.USER)
    async def user_items(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer disco#items for another's account, to the same people."""
        return self._account_items(request, await self._permitted(request))

    async def _permitted(self, request: Stanza) -> str:
        """The account that is asked for. Whether it exists must not show (XEP-0030 section 8)."""
        assert request.recipient is not None
        user = request.recipient.local
        if not await sees_presence(self.host, user, request.sender):
            raise StanzaError("service-unavailable")
        return user

    def _account_info(self, request: Stanza, user: str) -> Reply:
        node = _node(request)
        if node:
            return self._ask(request, user, node).info.to_element(node)
        if self._account_answer is None:
            features = {feature for module in self.host.modules.values() for feature in module.account_features}
            self._account_answer = to_bytes(Info([Identity("account", "registered")], features).to_element())
        return self._account_answer

    def _account_items(self, request: Stanza, user: str) -> Reply:
        node = _node(request)
        return items_element(self._ask(request, user, node).items if node else (), node)

    def _ask(self, request: Stanza, user: str, node: str) -> NodeQuery:
        query = NodeQuery(user, node, request.sender)
        if not self.host.hooks.disco_node(query):
            raise StanzaError("item-not-found")
        return query


def _node(request: Stanza) -> str | None:
    payload = request.payload()
    assert payload is not None
    return payload.get("node") or None

"""Requests for rosters, pushes, and what other modules and administrators do with rosters."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.config import Kind, Option
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Reply, Target, iq
from monktalk.xmpp.modules.roster import wire
from monktalk.xmpp.modules.roster.store import Change, Edit, RosterStore
from monktalk.xmpp.modules.roster.value import SUBSCRIPTIONS, Item, Roster
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from monktalk.common.config import Settings
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element
    from monktalk.xmpp.storage.interfaces import Versioned

QUERY: Final = ns.qname(ns.ROSTER, "query")
_VERSIONING: Final = f"<ver xmlns='{ns.ROSTER_VERSIONING}'/>".encode()
_PUSH: Final = "roster.push"
"""The topic of a note that a contact of a user has changed."""

_numbers = itertools.count(1)


class RosterModule(Module):
    """Rosters, with versions and pushes (RFC 6121 section 2).

    Contacts are named by their bare JIDs, users by their localparts.
    """

    name = "roster"
    features = (ns.ROSTER,)
    options = (
        Option("max_items", Kind.INTEGER, 1000, minimum=1, doc="Contacts that a roster may have."),
        Option(
            "max_size",
            Kind.SIZE,
            "512 KiB",
            minimum=4096,
            doc="Characters that all addresses, names and groups of a roster may have together.",
        ),
        Option("max_groups", Kind.INTEGER, 50, minimum=0, doc="Groups that a contact may be in."),
        Option(
            "max_length", Kind.INTEGER, 1023, minimum=1, doc="Characters that the name of a contact or group may have."
        ),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._store = RosterStore(host.server.storage, host.domain)

    @classmethod
    def of(cls, host: VirtualHost) -> RosterModule:
        """The roster module of a host, which must be loaded there."""
        module = host.modules[cls.name]
        assert isinstance(module, cls)
        return module

    # -- for other modules and administrators ----------------------------------------------------------------------

    def peek(self, user: str) -> Roster | None:
        """The user's roster if that is known without waiting, else None. Without a stored one it is empty."""
        known = self._store.peek(user)
        return known.value if known is not None else None

    async def get_roster(self, user: str) -> Roster:
        """The user's roster. Raises :class:`StorageUnavailable`."""
        return (await self._store.get(user)).value

    async def has_roster(self, user: str) -> bool:
        """Whether the user has ever had a contact. Raises :class:`StorageUnavailable`."""
        return (await self._store.get(user)).version > 0

    async def users(self) -> list[str]:
        """Everybody who has ever had a contact. Raises :class:`StorageUnavailable`."""
        return await self._store.users()

    async def shows_presence_to(self, user: str, jid: str) -> bool:
        """Whether the entity with that bare JID may see the user's presence; he himself may.

        Raises :class:`StorageUnavailable`.
        """
        if jid == f"{user}@{self.host.domain}":
            return True
        return (await self.get_roster(user)).shows_presence_to(jid)

    async def change(self, user: str, edit: Edit) -> Change:
        """Edit a roster (see :meth:`RosterStore.change`); pushing is up to the caller.

        Raises :class:`StanzaError` (``resource-constraint``) also when the roster would become larger than is allowed.
        """

        def limited(roster: Roster) -> Roster:
            after = edit(roster)
            limits = self.settings
            if len(after.items) > max(limits.max_items, len(roster.items)):
                raise StanzaError(
                    "resource-constraint", f"a roster may have {limits.max_items} contacts at most", kind="cancel"
                )
            if after.size > max(limits.max_size, roster.size):
                raise StanzaError(
                    "resource-constraint", f"a roster may have {limits.max_size} characters at most", kind="cancel"
                )
            return after

        return await self._store.change(user, limited)

    async def set_item(
        self,
        user: str,
        jid: str,
        *,
        name: str | None = None,
        groups: Iterable[str] | None = None,
        subscription: str | None = None,
    ) -> Item:
        """Add or change a contact, push the item, and return it. None leaves a value as it is.

        To set ``subscription`` (``none``, ``to``, ``from``, ``both``) is for administrators: the contact is neither asked
        nor told. It settles requests that are open. Raises :class:`ValueError` for another word and for the user's own
        address, and as :meth:`change`.
        """
        if jid == f"{user}@{self.host.domain}":
            raise ValueError(f"{jid} can't be a contact of himself")
        if subscription is not None and subscription not in SUBSCRIPTIONS:
            raise ValueError(f"{subscription!r} is no subscription: it is none, to, from or both")
        named = tuple(groups) if groups is not None else None

        def edit(roster: Roster) -> Roster:
            item = roster.items.get(jid, Item())
            if name is not None:
                item = item._replace(name=name)
            if named is not None:
                item = item._replace(groups=named)
            if subscription is not None:
                item = item._replace(subscription=SUBSCRIPTIONS[subscription], ask=False)
                roster = roster.without_request(jid)
            return roster.with_item(jid, item)

        change = await self.change(user, edit)
        self.push(user, jid, change)
        return change.after.items[jid]

    async def remove_item(self, user: str, jid: str) -> bool:
        """Remove a contact, push that, and end the subscriptions both ways (section 2.5.2). False: he is not there.

        Raises as :meth:`change`.
        """

        def edit(roster: Roster) -> Roster:
            return roster.without_item(jid).without_request(jid) if jid in roster.items else roster

        change = await self.change(user, edit)
        if jid not in change.before.items:
            return False
        self.push(user, jid, change)
        await self.host.hooks.contact_removed(user, jid, change.before.relation(jid))
        return True

    def push(self, user: str, jid: str, change: Change) -> None:
        """Tell the user's interested resources what the roster says about a contact now (section 2.1.6)."""
        self._push(user, wire.item_xml(jid, change.after.items.get(jid)), change.version)

    async def push_all(self, user: str) -> int:
        """Push every item to the user's interested resources again and return how many there are."""
        found = await self._store.get(user)
        for jid, item in found.value.items.items():
            self._push(user, wire.item_xml(jid, item), found.version)
        return len(found.value.items)

    def _push(self, user: str, item: str, version: int) -> None:
        for session in self.host.user_sessions(user):
            if session.interested:
                session.send(wire.push(session.jid, next(_numbers), item, version))
        exchange = self.host.server.exchange
        if exchange is not None and user not in self.host.sessions:
            exchange.tell(self.host, user, _PUSH, item, version)

    @HostHooks.note.handler()
    def told(self, user: str, topic: str, arguments: tuple[Any, ...]) -> bool:
        """Another worker has changed the roster of a user whose resources are here."""
        if topic != _PUSH:
            return False
        self._push(user, *arguments[:2])
        return True

    # -- requests --------------------------------------------------------------------------------------------------

    @iq("get", ns.ROSTER, "query", to=Target.SELF)
    def answer_get(self, request: Stanza, session: Session | None) -> Reply | Awaitable[Reply]:
        """A client wants its roster (section 2.1.3), unless it has the present version already (section 2.6)."""
        known = self._store.peek(request.sender.local)
        if known is None:
            return self._read_and_answer(request, session)
        return self._answer(request, session, known)

    async def _read_and_answer(self, request: Stanza, session: Session | None) -> Reply:
        return self._answer(request, session, await self._store.get(request.sender.local))

    @staticmethod
    def _answer(request: Stanza, session: Session | None, roster: Versioned[Roster]) -> Reply:
        if session is not None:
            # From now on, and not before: no push may come in front of the roster that it changes.
            session.interested = True
            session.host.server.continuity.changed(session)
        if _query_of(request).get("ver") == str(roster.version):
            return None
        return wire.query(roster.value.items, roster.version)

    @iq("set", ns.ROSTER, "query", to=Target.SELF)
    async def answer_set(self, request: Stanza, session: Session | None) -> Reply:
        """A client adds, changes or removes one contact (sections 2.3 to 2.5)."""
        wanted = wire.read_set(_query_of(request), request.sender, self.settings)
        user, jid = request.sender.local, wanted.jid.bare
        if not wanted.remove:
            await self.set_item(user, jid, name=wanted.name, groups=wanted.groups)
        elif not await self.remove_item(user, jid):
            raise StanzaError("item-not-found", f"{jid} is not in the roster")
        return None

    @iq(("get", "set"), ns.ROSTER, "query", to=Target.USER)
    def refuse_others(self, request: Stanza, session: Session | None) -> Reply:
        """Nobody reads or changes the roster of somebody else, whether there is such an account or not."""
        raise StanzaError("forbidden")

    @HostHooks.incoming_iq.handler()
    def refuse_forged_push(self, stanza: Stanza, session: Session) -> bool:
        """Roster pushes come from the server alone: one that a user sends to a client is not delivered (section 2.1.6)."""
        if stanza.attributes.get("type") == "set" and QUERY in stanza.payloads:
            raise StanzaError("service-unavailable")
        return False

    @HostHooks.stream_features.handler()
    def announce(self, stream: ClientStream, features: list[bytes]) -> None:
        """Tell authenticated clients that rosters have versions (section 2.6.1)."""
        if stream.user is not None:
            features.append(_VERSIONING)

    # -- the end of an account ---------------------------------------------------------------------------------------

    @HostHooks.account_removed.handler()
    async def remove_account(self, user: str) -> None:
        """Delete the roster and end all subscriptions."""
        roster = await self._store.delete(user)
        for jid in {**roster.items, **roster.requests}:
            await self.host.hooks.contact_removed(user, jid, roster.relation(jid))


def _query_of(request: Stanza) -> Element:
    return request.tree()[0]

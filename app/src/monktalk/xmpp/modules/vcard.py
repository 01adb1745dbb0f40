"""Cards of accounts: stored as they are, read by everybody. The hash of the photo is put into presence."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import ParseError

from monktalk.common.config import Kind, Option
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import find, from_bytes, text_of, to_bytes
from monktalk.xmpp.storage.interfaces import UNKNOWN, StorageUnavailable, StoredValueError, Unknown

if TYPE_CHECKING:
    from monktalk.common.config import Settings
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element

log = get_logger(__name__)

TABLE: Final = "vcard"
KEY: Final = "vcard"
_CACHED_CARDS: Final = 10_000
_UPDATE: Final = ns.qname(ns.VCARD_UPDATE, "x")


class BadPhoto(ValueError):
    """The photo of a card is not base64."""


def photo_of(card: Element) -> bytes:
    """The image in a ``<vCard/>``, empty when it has none. Raises :class:`BadPhoto`."""
    photo = find(card, ns.VCARD, "PHOTO")
    encoded = text_of(photo, ns.VCARD, "BINVAL") if photo is not None else None
    if not encoded:
        return b""
    try:
        # Line breaks are allowed (XEP-0153 section 4.5).
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadPhoto("the photo is not base64") from None


class Card:
    """A stored card: its XML, and the SHA-1 hash of its photo in hexadecimal, empty without one.

    The hash is computed when it is asked for first, and kept with the card in the cache.
    """

    __slots__ = ("_photo_hash", "xml")

    def __init__(self, xml: bytes, photo: bytes | None = None) -> None:
        self.xml = xml
        self._photo_hash = None if photo is None else _hash(photo)

    @property
    def photo_hash(self) -> str:
        """What presence says about the photo (XEP-0153)."""
        if self._photo_hash is None:
            try:
                self._photo_hash = _hash(photo_of(from_bytes(self.xml)))
            except (BadPhoto, ParseError):  # a card that was imported, perhaps
                self._photo_hash = ""
        return self._photo_hash


def _hash(photo: bytes) -> str:
    return hashlib.sha1(photo, usedforsecurity=False).hexdigest() if photo else ""


class _Codec:
    """The XML of the card."""

    def encode(self, value: Card) -> bytes:
        return value.xml

    def decode(self, data: bytes) -> Card:
        return Card(data)


CODEC: Final = _Codec()


class Vcard(Module):
    """vCards (vcard-temp, XEP-0054), and their photos in presence (XEP-0153, XEP-0398)."""

    name = "vcard"
    features = (ns.VCARD,)
    account_features = (ns.VCARD,)
    options = (
        Option("max_size", Kind.SIZE, "192 KiB", minimum=1024, doc="The largest card that is stored, photo included."),
        Option("max_photo_size", Kind.SIZE, "96 KiB", minimum=0, doc="The largest photo in a card, as an image file."),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._store = host.server.storage.keyvalue(TABLE, CODEC, _CACHED_CARDS)
        self._looked_up: set[Session] = set()

    # -- requests ------------------------------------------------------------------------------------------------

    @iq("get", ns.VCARD, "vCard", to=Target.SELF)
    async def own(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer with the sender's own card."""
        return await self._get(request.sender.local)

    @iq("get", ns.VCARD, "vCard", to=Target.USER)
    async def other(self, request: Stanza, _session: Session | None) -> Reply:
        """Answer with another's card: anybody may read it. An absent account has none, as many existing ones."""
        assert request.recipient is not None
        return await self._get(request.recipient.local)

    async def _get(self, user: str) -> Reply:
        found = await self._store.get(self.host.domain, user, KEY)
        if found is None:
            raise StanzaError("item-not-found")
        return found.value.xml

    @iq("set", ns.VCARD, "vCard", to=Target.SELF)
    async def set(self, request: Stanza, _session: Session | None) -> Reply:
        """Store the sender's card."""
        card = request.payload()
        assert card is not None
        xml = to_bytes(card)
        try:
            photo = photo_of(card)
        except BadPhoto as error:
            raise StanzaError("bad-request", str(error)) from None
        for what, data, limit in (
            ("photo", photo, self.settings.max_photo_size),
            ("card", xml, self.settings.max_size),
        ):
            if len(data) > limit:
                raise StanzaError("not-acceptable", f"the {what} has {len(data)} bytes, and may have {limit}")
        user = request.sender.local
        before = await self._store.get(self.host.domain, user, KEY)
        after = Card(xml, photo)
        await self._store.put(self.host.domain, user, KEY, after, None)
        if after.photo_hash != (before.value.photo_hash if before is not None else ""):
            await self._tell(user, after.photo_hash)
        return None

    async def _tell(self, user: str, photo_hash: str) -> None:
        """The photo is another one: say so in the presence of the sessions that leave saying it to the server."""
        presence = self.host.modules.get(Presence.name)
        concerned = any(
            session.presence is not None and self._completes(session.presence, session, photo_hash)
            for session in self.host.available_sessions(user)
        )
        if concerned and isinstance(presence, Presence):
            try:
                await presence.refresh(user)
            except StorageUnavailable as error:
                log.warning("photo_not_announced", host=self.host.domain, user=user, reason=str(error))

    @iq("set", ns.VCARD, "vCard", to=Target.USER)
    def refuse(self, _request: Stanza, _session: Session | None) -> Reply:
        """Nobody changes the card of somebody else, whether there is such an account or not."""
        raise StanzaError("forbidden")

    @HostHooks.account_removed.handler()
    async def removed(self, user: str) -> None:
        """Delete the card."""
        await self._store.delete_owner(self.host.domain, user)

    # -- presence ------------------------------------------------------------------------------------------------

    @HostHooks.user_presence.handler(priority=-50)
    def prepare(self, session: Session, stanza: Stanza) -> bool:
        """Fetch the card before the presence is handled, when it is needed for it and not in the cache."""
        if session in self._looked_up:
            self._looked_up.discard(session)
            return False
        if stanza.type is not None or self._peek(session) is not UNKNOWN:
            return False
        self._looked_up.add(session)
        session.run_before(stanza, self._look_up(session.jid.local))
        return True

    async def _look_up(self, user: str) -> None:
        try:
            await self._store.get(self.host.domain, user, KEY)
        except (StorageUnavailable, StoredValueError) as error:
            log.warning("no_photo_in_presence", host=self.host.domain, user=user, reason=str(error))

    @HostHooks.session_closed.handler()
    def closed(self, session: Session, _reason: str) -> None:
        """Forget that a card was being fetched for the session."""
        self._looked_up.discard(session)

    @HostHooks.outgoing_presence.handler()
    def advertise(self, stanza: Stanza, session: Session) -> Stanza:
        """Say in presence which photo the user has (XEP-0398 section 4).

        A client that says by an empty ``<photo/>`` that there is none is left alone. What others say is completed (when they
        say nothing, or that they don't know yet) and corrected.
        """
        known = self._peek(session)
        if known is UNKNOWN or stanza.type is not None:
            return stanza
        photo_hash = known.photo_hash if known is not None else ""
        if not self._completes(stanza, session, photo_hash):
            return stanza
        session.extra = session.extra or {}
        session.extra[self.name] = photo_hash
        if _UPDATE in stanza.payloads:
            stanza = stanza.without_payloads((_UPDATE,))
        photo = f"<photo>{photo_hash}</photo>" if photo_hash else "<photo/>"
        return stanza.with_payload(f"<x xmlns='{ns.VCARD_UPDATE}'>{photo}</x>".encode(), _UPDATE)

    def _completes(self, stanza: Stanza, session: Session, photo_hash: str) -> bool:
        """Whether it is up to the server to say in this presence which photo there is."""
        update = stanza.child(ns.VCARD_UPDATE, "x")
        said = text_of(update, ns.VCARD_UPDATE, "photo") if update is not None else None
        if said is None:
            return bool(photo_hash)
        if said and photo_hash:
            return said != photo_hash
        # Presence that is broadcast again has what the server said before; that there is no photo is the client's to say.
        return said == (session.extra or {}).get(self.name)

    def _peek(self, session: Session) -> Card | Unknown | None:
        known = self._store.peek(self.host.domain, session.jid.local, KEY)
        return known if known is UNKNOWN or known is None else known.value

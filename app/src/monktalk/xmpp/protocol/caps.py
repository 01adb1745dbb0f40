"""Entity capabilities (XEP-0115): the hash that stands for what an entity answers to disco#info.

Whoever makes up an answer can choose what is hashed, so only answers within bounds are hashed, and none in which a
value holds the separator ``<``: otherwise two different answers could have the same input.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.disco import Identity, Info

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from monktalk.xmpp.protocol.xmltree import Element

MAX_PARTS: Final = 1_000
"""Identities, features, fields and values together."""

MAX_BYTES: Final = 64 * 1024
"""Length of the text that is hashed."""

HASHES: Final = {"sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512"}
"""Names of hash functions (IANA's registry of textual names) and what Python calls them."""

_FIELD: Final = f"{{{ns.DATA_FORMS}}}field"
_VALUE: Final = f"{{{ns.DATA_FORMS}}}value"


class UnusableInfo(ValueError):
    """An answer that has no verification string: ill-formed (XEP-0115 section 5.4), or out of bounds."""


def verification_text(info: Info) -> str:
    """The text that is hashed (XEP-0115 section 5.1).

    Raises :class:`UnusableInfo`.
    """
    parts: list[str] = []
    for identity in sorted(info.identities, key=_identity_key):
        _check((identity.category, identity.type, identity.lang), "/")
        parts.append(f"{identity.category}/{identity.type}/{identity.lang}/{identity.name}")
    parts += sorted(info.features, key=str.encode)
    for form_type, fields in sorted(_forms(info.forms), key=lambda form: form[0].encode()):
        parts.append(form_type)
        for name, values in sorted(fields, key=lambda field: field[0].encode()):
            parts += [name, *sorted(values, key=str.encode)]
    if len(parts) > MAX_PARTS:
        raise UnusableInfo(f"more than {MAX_PARTS} identities, features and values")
    _check(parts, "<")
    text = "".join(f"{part}<" for part in parts)
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise UnusableInfo(f"more than {MAX_BYTES} bytes")
    return text


def verification_string(info: Info, hash_name: str = "sha-1") -> str:
    """The value of the attribute ``ver``. ``hash_name`` is one of :data:`HASHES`.

    Raises :class:`UnusableInfo`.
    """
    digest = hashlib.new(HASHES[hash_name], verification_text(info).encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def verify(query: Element, ver: str, hash_name: str) -> Info | None:
    """What a disco#info answer says if its hash is ``ver``; None when it is not, or can't be told."""
    if hash_name not in HASHES or len(query) > MAX_PARTS:
        return None
    try:
        info = Info.from_element(query)
        right = hmac.compare_digest(verification_string(info, hash_name).encode(), ver.encode())
    except ValueError:
        return None
    return info if right else None


def _identity_key(identity: Identity) -> tuple[bytes, bytes, bytes]:
    return identity.category.encode(), identity.type.encode(), identity.lang.encode()


def _check(parts: Iterable[str], separator: str) -> None:
    if any(separator in part for part in parts):
        raise UnusableInfo(f"a value contains {separator}, which separates values")


def _forms(forms: Iterable[Element]) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """The forms with a hidden FORM_TYPE: its value, and the other fields with their values."""
    seen: set[str] = set()
    for form in forms:
        form_type = None
        fields: list[tuple[str, list[str]]] = []
        for field in form.iterfind(_FIELD):
            values = [value.text or "" for value in field.iterfind(_VALUE)]
            if field.get("var") != "FORM_TYPE":
                fields.append((field.get("var", ""), values))
            elif len(set(values)) > 1 or form_type is not None:
                raise UnusableInfo("a form has several types")
            elif field.get("type") == "hidden" and values:
                form_type = values[0]
        if form_type is None:
            continue
        if form_type in seen:
            raise UnusableInfo("two forms have the same type")
        seen.add(form_type)
        yield form_type, fields

"""vCards, field by field. What a client may store, and how large, holds here too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from monktalk.xmpp.admin.registry import CommandError, UsageError, command
from monktalk.xmpp.core.administration import ask_as
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import Element, element, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monktalk.xmpp.admin.context import Context
    from monktalk.xmpp.core.host import VirtualHost

GROUP: Final = "vCards"

_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*").fullmatch


@command("get_vcard", "USER HOST NAME", "Print a field of a vCard: FN, NICKNAME, BDAY, TITLE …")
async def get_vcard(context: Context, user: str, domain: str, name: str) -> str:
    """The first field of that name."""
    return (await _read(context, user, domain, (name,)))[0]


@command("get_vcard2", "USER HOST NAME SUBNAME", "Print a field within a field: N FAMILY, ORG ORGUNIT …")
async def get_vcard2(context: Context, user: str, domain: str, *path: str) -> str:
    """The first field of that name."""
    return (await _read(context, user, domain, path))[0]


@command("get_vcard2_multi", "USER HOST NAME SUBNAME", "As get_vcard2, but all fields of that name, one a line.")
async def get_vcard2_multi(context: Context, user: str, domain: str, *path: str) -> list[str]:
    """All fields of that name."""
    return await _read(context, user, domain, path)


@command("set_vcard", "USER HOST NAME CONTENT", "Set a field of a vCard.")
async def set_vcard(context: Context, user: str, domain: str, name: str, content: str) -> str:
    """Other fields stay."""
    return await _write(context, user, domain, (name,), [content])


@command("set_vcard2", "USER HOST NAME SUBNAME CONTENT", "Set a field within a field.")
async def set_vcard2(context: Context, user: str, domain: str, *field: str) -> str:
    """Other fields stay, within that field too."""
    return await _write(context, user, domain, field[:-1], field[-1:])


@command("set_vcard2_multi", "USER HOST NAME SUBNAME CONTENTS", "Set several fields of one name; `;` is between them.")
async def set_vcard2_multi(context: Context, user: str, domain: str, *field: str) -> str:
    """As ``set_vcard2``, for a field that may be there several times."""
    return await _write(context, user, domain, field[:-1], [text for text in field[-1].split(";") if text])


async def _card(host: VirtualHost, local: str) -> Element | None:
    try:
        return await ask_as(host, local, "get", element(ns.VCARD, "vCard"))
    except StanzaError as error:
        if error.condition == "item-not-found":
            return None
        raise CommandError(f"The vCard can't be read: {error}") from None


async def _read(context: Context, user: str, domain: str, path: Sequence[str]) -> list[str]:
    """The texts of all fields at ``path``; :class:`CommandError` when there is none."""
    host, local = await context.existing(user, domain)
    card = await _card(host, local)
    if card is None:
        raise CommandError("Vcard not found")
    found = card.findall("/".join(f"{{{ns.VCARD}}}{_checked(name)}" for name in path))
    if not found:
        raise CommandError("Value not found in vcard")
    return ["".join(node.itertext()) for node in found]


async def _write(context: Context, user: str, domain: str, path: Sequence[str], contents: Sequence[str]) -> str:
    """Put fields with those contents in place of the ones that are there."""
    host, local = await context.existing(user, domain)
    card = await _card(host, local)
    if card is None:
        card = element(ns.VCARD, "vCard")
    parent = card
    for name in path[:-1]:
        inner = find(parent, ns.VCARD, _checked(name))
        if inner is None:
            inner = element(ns.VCARD, name)
            parent.append(inner)
        parent = inner
    name = _checked(path[-1])
    for old in parent.findall(f"{{{ns.VCARD}}}{name}"):
        parent.remove(old)
    parent.extend(element(ns.VCARD, name, None, content) for content in contents)
    try:
        await ask_as(host, local, "set", card)
    except StanzaError as error:
        raise CommandError(f"The vCard can't be stored: {error}") from None
    return f"vCard of {local}@{host.domain} changed"


def _checked(name: str) -> str:
    if _FIELD(name) is None:
        raise UsageError(f"{name!r} can't be the name of a field in a vCard.")
    return name

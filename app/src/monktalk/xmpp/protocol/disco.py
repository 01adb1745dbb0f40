"""Service discovery (XEP-0030, XEP-0128) as values: what an entity tells about itself, and a node that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import Element, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monktalk.common.jid import JID

_LANG = f"{{{ns.XML}}}lang"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """What an entity is: a category and type of the registry, and a name for people."""

    category: str
    type: str
    lang: str = ""
    name: str = ""

    def to_element(self) -> Element:
        """``<identity/>``."""
        attributes = {"category": self.category, "type": self.type}
        if self.lang:
            attributes[_LANG] = self.lang
        if self.name:
            attributes["name"] = self.name
        return element(ns.DISCO_INFO, "identity", attributes)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that belongs to an entity: an address, and perhaps a node of it and a name."""

    jid: str
    name: str = ""
    node: str = ""

    def to_element(self) -> Element:
        """``<item/>``."""
        attributes = {"jid": self.jid, "node": self.node, "name": self.name}
        return element(ns.DISCO_ITEMS, "item", {key: value for key, value in attributes.items() if value})


@dataclass(slots=True)
class Info:
    """What an entity answers to disco#info: identities, features, and forms (``jabber:x:data``)."""

    identities: list[Identity] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    forms: list[Element] = field(default_factory=list)

    def to_element(self, node: str | None = None) -> Element:
        """``<query/>``, everything in a fixed order."""
        return element(
            ns.DISCO_INFO,
            "query",
            {"node": node} if node is not None else None,
            *(identity.to_element() for identity in self.identities),
            *(element(ns.DISCO_INFO, "feature", {"var": feature}) for feature in sorted(self.features)),
            *self.forms,
        )

    @classmethod
    def from_element(cls, query: Element) -> Info:
        """Read a disco#info answer.

        Raises ValueError for an identity without category or type, a feature without a name, and for what is there twice.
        """
        info = cls()
        known: set[Identity] = set()
        for child in query:
            if child.tag == f"{{{ns.DISCO_INFO}}}identity":
                category, kind = child.get("category"), child.get("type")
                if not category or not kind:
                    raise ValueError("an identity lacks its category or type")
                identity = Identity(category, kind, child.get(_LANG, ""), child.get("name", ""))
                if identity in known:
                    raise ValueError("an identity is there twice")
                known.add(identity)
                info.identities.append(identity)
            elif child.tag == f"{{{ns.DISCO_INFO}}}feature":
                feature = child.get("var")
                if not feature:
                    raise ValueError("a feature lacks its name")
                if feature in info.features:
                    raise ValueError("a feature is there twice")
                info.features.add(feature)
            elif child.tag == f"{{{ns.DATA_FORMS}}}x":
                info.forms.append(child)
        return info


@dataclass(slots=True)
class NodeQuery:
    """A request for a node, and what is known of it so far.

    ``account`` is the localpart of the account that is asked about, empty for the host; ``requester`` is who asks.
    Whoever knows the node fills in ``info`` and ``items``, whichever was asked for.
    """

    account: str
    node: str
    requester: JID
    info: Info = field(default_factory=Info)
    items: list[Item] = field(default_factory=list)


def items_element(items: Iterable[Item], node: str | None = None) -> Element:
    """The ``<query/>`` of a disco#items answer."""
    attributes = {"node": node} if node is not None else None
    return element(ns.DISCO_ITEMS, "query", attributes, *(item.to_element() for item in items))


def result_form(form_type: str, fields: Mapping[str, Iterable[str]]) -> Element:
    """A form of type ``result`` (XEP-0068, XEP-0128): the values of every field by its name."""
    children = [_field("FORM_TYPE", (form_type,), {"type": "hidden"})]
    children += [_field(name, values, {"type": "list-multi"}) for name, values in fields.items()]
    return element(ns.DATA_FORMS, "x", {"type": "result"}, *children)


def _field(name: str, values: Iterable[str], attributes: Mapping[str, str]) -> Element:
    content = [element(ns.DATA_FORMS, "value", None, value) for value in values]
    return element(ns.DATA_FORMS, "field", {"var": name, **attributes}, *content)

"""The stanza: an envelope that is known, around bytes that are only looked into on demand.

What routing needs (name, ``to``, ``type``, ``id``, the names of the payloads) comes from the stream parser. The bytes are
forwarded as they came; :meth:`Stanza.tree` builds a tree only for a module that asks for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol import xmltree
from monktalk.xmpp.protocol.framing import COMPLETE_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monktalk.common.jid import JID
    from monktalk.xmpp.protocol.errors import StanzaError

MESSAGE = "message"
PRESENCE = "presence"
IQ = "iq"
XML_LANG = ns.qname(ns.XML, "lang")

_LITERAL = re.compile(rb"[A-Za-z0-9+/=]*+")
"""Text in which XML has no other way to write anything."""

_OPEN_TAGS = {kind: f"<{kind}".encode() for kind in (MESSAGE, PRESENCE, IQ)}


class Stanza:
    """One top-level element of a stream.

    ``name`` is ``message``, ``presence`` or ``iq``; any other element has its qualified name (``namespace}local``).
    ``attributes`` are those of the element, by name (``xml:lang`` by its qualified name). ``raw`` is the element's
    serialisation, which needs no declaration outside itself but ``xmlns='jabber:client'``. ``payloads`` are the
    qualified names of its children. ``sender`` and ``recipient`` are set by the core when it has checked them;
    ``recipient`` stays None for a stanza without ``to``. ``receipt`` is the core's, where the sender waits for an
    acknowledgement.
    """

    __slots__ = ("_parsed", "_tree", "attributes", "name", "payloads", "raw", "receipt", "recipient", "sender")

    sender: JID
    recipient: JID | None

    def __init__(self, name: str, attributes: dict[str, str], raw: bytes, payloads: Sequence[str]) -> None:
        self.name = name
        self.attributes = attributes
        self.raw = raw
        self.payloads = payloads
        self.receipt: Any = None
        self._tree: xmltree.Element | None = None
        self._parsed = b""  # what the tree was made of

    def __repr__(self) -> str:
        shown = {key: self.attributes[key] for key in ("type", "id", "from", "to") if key in self.attributes}
        return f"<Stanza {self.name} {shown} {list(self.payloads)}>"

    @classmethod
    def from_tree(cls, node: xmltree.Element, raw: bytes | None = None) -> Stanza:
        """Wrap a tree whose root is in the namespace ``jabber:client``; ``raw`` is its serialisation, if that is at hand."""
        local = node.tag.partition("}")[2]
        attributes = {key.lstrip("{"): value for key, value in node.attrib.items()}
        if raw is None:
            raw = xmltree.to_bytes(node)
        stanza = cls(local, attributes, raw, [child.tag[1:] for child in node])
        stanza._tree, stanza._parsed = node, raw
        return stanza

    @classmethod
    def from_bytes(cls, raw: bytes) -> Stanza:
        """Read back a stanza that the server itself wrote or stored."""
        return cls.from_tree(xmltree.from_bytes(raw), raw)

    @property
    def type(self) -> str | None:
        """The ``type`` attribute."""
        return self.attributes.get("type")

    @property
    def id(self) -> str | None:
        """The ``id`` attribute."""
        return self.attributes.get("id")

    def tree(self) -> xmltree.Element:
        """The tree of the stanza, built when it is asked for. Treat it as read-only: ``raw`` does not follow it."""
        if self._tree is None or self._parsed is not self.raw:
            self._tree, self._parsed = xmltree.from_bytes(self.raw), self.raw
        return self._tree

    def text(self) -> str:
        """The text in front of the first child element; the tree is not built for one like Base64."""
        start = COMPLETE_TAG.match(self.raw)
        if start is not None and not self.payloads:
            content = self.raw[start.end() : self.raw.rfind(b"<")]
            if _LITERAL.fullmatch(content):
                return content.decode()
        return self.tree().text or ""

    def payload(self) -> xmltree.Element | None:
        """The first child element that is no ``<error/>``, or None."""
        for child in self.tree():
            if child.tag != f"{{{ns.CLIENT}}}error":
                return child
        return None

    def child(self, namespace: str, local: str) -> xmltree.Element | None:
        """The first child of that name, or None; the tree is not built when there is none."""
        if ns.qname(namespace, local) not in self.payloads:
            return None
        return xmltree.find(self.tree(), namespace, local)

    def with_attributes(self, **changes: str | None) -> Stanza:
        """A copy with attributes set (or, by None, removed), the rest of the bytes being kept.

        ``from_`` stands for ``from``. The copy has the sender and recipient of the original.
        """
        attributes = dict(self.attributes)
        for name, value in changes.items():
            key = name.rstrip("_")
            if value is None:
                attributes.pop(key, None)
            else:
                attributes[key] = value
        return self._rebuilt(attributes)

    def with_payload(self, payload: bytes, name: str) -> Stanza:
        """A copy with one more child, ``payload``, whose qualified name is ``name``, at its end."""
        raw = self.raw
        if raw.endswith(b"/>"):
            raw = raw[:-2] + b">" + payload + f"</{self.name}>".encode()
        else:
            cut = raw.rfind(b"<")
            raw = raw[:cut] + payload + raw[cut:]
        return self._copy(self.attributes, raw, [*self.payloads, name])

    def without_payloads(self, unwanted: Sequence[str]) -> Stanza:
        """A copy without the children of those qualified names."""
        return self.filtered(lambda child: child.tag[1:] not in unwanted)

    def filtered(self, keep: Callable[[xmltree.Element], bool]) -> Stanza:
        """A copy with those children only for which ``keep`` is true."""
        source = self.tree()
        node = xmltree.Element(source.tag)
        for key, value in self.attributes.items():
            node.set("{" + key if "}" in key else key, value)
        node.text = source.text
        node.extend(child for child in source if keep(child))
        return self._copy(self.attributes, xmltree.to_bytes(node), [child.tag[1:] for child in node])

    def reserialised(self) -> Stanza:
        """A copy in canonical form, for a stanza that leans on prefixes declared outside of itself."""
        return self._copy(self.attributes, xmltree.to_bytes(self.tree()), self.payloads)

    def _copy(self, attributes: dict[str, str], raw: bytes, payloads: Sequence[str]) -> Stanza:
        copy = Stanza(self.name, attributes, raw, payloads)
        if hasattr(self, "sender"):
            copy.sender = self.sender
        if hasattr(self, "recipient"):
            copy.recipient = self.recipient
        copy.receipt = self.receipt
        return copy

    def _rebuilt(self, attributes: dict[str, str]) -> Stanza:
        raw = self.raw
        start = COMPLETE_TAG.match(raw)
        if start is None or b"xmlns" in start[0] or not raw.startswith(_OPEN_TAGS[self.name]):
            source = self.tree()
            node = xmltree.Element(source.tag)
            for key, value in attributes.items():
                node.set("{" + key if "}" in key else key, value)
            node.text = source.text
            node.extend(source)
            return self._copy(attributes, xmltree.to_bytes(node), self.payloads)
        end = b"/>" if start[0].endswith(b"/>") else b">"
        return self._copy(attributes, open_tag(self.name, attributes) + end + raw[start.end() :], self.payloads)


def open_tag(name: str, attributes: dict[str, str]) -> bytes:
    """``<name key='value' …`` without its closing ``>``."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        shown = "xml:lang" if key == XML_LANG else key
        parts.append(f" {shown}='{xmltree.escape(value)}'")
    return "".join(parts).encode()


def reply_attributes(stanza: Stanza, kind: str) -> dict[str, str]:
    """The attributes of an answer to ``stanza``: its addresses exchanged, its id kept (RFC 6120 section 8.1)."""
    attributes = {"type": kind}
    source = stanza.attributes
    if "to" in source:
        attributes["from"] = source["to"]
    if "from" in source:
        attributes["to"] = source["from"]
    if "id" in source:
        attributes["id"] = source["id"]
    return attributes


def iq_result(request: Stanza, payload: xmltree.Element | bytes | None = None) -> bytes:
    """The result of an IQ request, as bytes ready to be sent."""
    if payload is None:
        return open_tag(IQ, reply_attributes(request, "result")) + b"/>"
    body = payload if isinstance(payload, bytes) else xmltree.to_bytes(payload)
    return open_tag(IQ, reply_attributes(request, "result")) + b">" + body + b"</iq>"


def error_reply(stanza: Stanza, error: StanzaError) -> bytes | None:
    """The answer of type ``error``, or None where RFC 6120 section 8.3.1 forbids one (errors, IQ results)."""
    kind = stanza.attributes.get("type")
    if kind == "error" or (stanza.name == IQ and kind == "result"):
        return None
    return (
        open_tag(stanza.name, reply_attributes(stanza, "error"))
        + b">"
        + error.to_bytes()
        + f"</{stanza.name}>".encode()
    )

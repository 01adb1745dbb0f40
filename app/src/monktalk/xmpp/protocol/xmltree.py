"""Trees of XML elements: parsing a self-contained element and writing one back in canonical form.

The tree is the standard library's :class:`xml.etree.ElementTree.Element`. Its own writer invents ``ns0`` prefixes, which
many XMPP clients do not understand, so :func:`to_bytes` writes default namespace declarations instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, XMLParser

from monktalk.xmpp.protocol import namespaces as ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Element", "element", "escape", "find", "from_bytes", "text_of", "to_bytes"]

_XML_BRACE = "{" + ns.XML + "}"
_OPEN = f"<x xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}'>".encode()
_CLOSE = b"</x>"
_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_ATTRIBUTE = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "'": "&apos;",
        '"': "&quot;",
        "\n": "&#10;",
        "\r": "&#13;",
        "\t": "&#9;",
    }
)


def escape(value: str) -> str:
    """``value`` as it may stand in an attribute in either kind of quotes, or in text."""
    return value.translate(_ATTRIBUTE)


def from_bytes(raw: bytes, wrapper: tuple[bytes, bytes] = (_OPEN, _CLOSE)) -> Element:
    """The tree of one element whose default namespace is ``jabber:client`` where it declares none itself.

    ``raw`` must come from the stream parser, which has checked it already: this function sets no limits of its own.
    """
    parser = XMLParser()  # noqa: S314 - the stream parser refused DTDs, entities and oversize input before
    parser.feed(wrapper[0])
    parser.feed(raw)
    parser.feed(wrapper[1])
    root: Element = parser.close()
    return root[0]


def element(
    namespace: str,
    local: str,
    attributes: Mapping[str, str] | None = None,
    *content: Element | str,
) -> Element:
    """Build an element: strings in ``content`` become text, elements become children, in that order."""
    node = Element(f"{{{namespace}}}{local}", dict(attributes or {}))
    for item in content:
        if isinstance(item, str):
            if len(node):
                node[-1].tail = (node[-1].tail or "") + item
            else:
                node.text = (node.text or "") + item
        else:
            node.append(item)
    return node


def find(parent: Element, namespace: str, local: str) -> Element | None:
    """The first child of that name, or None."""
    return parent.find(f"{{{namespace}}}{local}")


def text_of(parent: Element, namespace: str, local: str) -> str | None:
    """The text of the first child of that name (empty string when it has none), or None when there is no such child."""
    child = find(parent, namespace, local)
    return None if child is None else (child.text or "")


def to_bytes(node: Element, default: str = ns.CLIENT) -> bytes:
    """Serialise ``node`` for a place where ``default`` is the default namespace. Its tail is left out."""
    parts: list[str] = []
    _write(parts.append, node, default)
    return "".join(parts).encode()


def children_to_bytes(nodes: Iterable[Element], default: str = ns.CLIENT) -> bytes:
    """Serialise several elements one after the other."""
    return b"".join(to_bytes(node, default) for node in nodes)


def _split(name: str) -> tuple[str, str]:
    if name[0] == "{":
        namespace, _, local = name[1:].partition("}")
        return namespace, local
    return "", name


def _attributes(node: Element) -> Iterator[str]:
    prefixes = 0
    for name, value in node.attrib.items():
        if name[0] != "{":
            yield f" {name}='{value.translate(_ATTRIBUTE)}'"
        elif name.startswith(_XML_BRACE):
            yield f" xml:{name[len(_XML_BRACE) :]}='{value.translate(_ATTRIBUTE)}'"
        else:
            namespace, local = _split(name)
            prefixes += 1
            yield f" xmlns:a{prefixes}='{namespace.translate(_ATTRIBUTE)}'"
            yield f" a{prefixes}:{local}='{value.translate(_ATTRIBUTE)}'"


def _write(put: Callable[[str], None], node: Element, default: str) -> None:
    namespace, local = _split(node.tag)
    put(f"<{local}")
    if namespace != default:
        put(f" xmlns='{namespace.translate(_ATTRIBUTE)}'")
    for attribute in _attributes(node):
        put(attribute)
    if node.text or len(node):
        put(">")
        if node.text:
            put(node.text.translate(_TEXT))
        for child in node:
            _write(put, child, namespace)
            if child.tail:
                put(child.tail.translate(_TEXT))
        put(f"</{local}>")
    else:
        put("/>")

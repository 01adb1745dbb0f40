"""Compare XML the way a reader of a conversation does: attribute order, whitespace and chatter do not matter.

An expected stanza is written as XML in the namespace ``jabber:client``. In it

* the attribute value or text ``{any}`` matches any value that is there,
* the text ``{more}`` in an element allows further attributes, children and text in it,
* a child that every server may add on its own (:data:`IGNORABLE`) needs not be mentioned.

The order of children does not matter, except that of children that look the same.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

ANY = "{any}"
MORE = "{more}"

CLIENT = "jabber:client"
STREAM = "http://etherx.jabber.org/streams"
STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"
STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
SM = "urn:xmpp:sm:3"

IGNORABLE = frozenset(
    {
        "{urn:xmpp:sid:0}stanza-id",  # added to every message that is delivered
        "{vcard-temp:x:update}x",  # added to presence by the server of the user
        f"{{{STANZA_ERRORS}}}text",  # explanations for people
        f"{{{STREAM_ERRORS}}}text",
    }
)
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_PREFIXES = f"xmlns='{CLIENT}' xmlns:stream='{STREAM}'"


def parse(xml: str) -> ET.Element:
    """The element that ``xml`` describes, read as a child of a client's stream."""
    root = ET.fromstring(f"<stream:stream {_PREFIXES}>{xml}</stream:stream>")
    if len(root) != 1:
        raise ValueError(f"one element expected, {len(root)} found in {xml}")
    root[0].tail = None
    return root[0]


def show(node: ET.Element, parent: str = CLIENT) -> str:
    """``node`` as XML without prefixes, for failure messages."""
    namespace, _, local = node.tag[1:].rpartition("}") if node.tag.startswith("{") else ("", "", node.tag)
    declared = f" xmlns='{escape(namespace)}'" if namespace != parent else ""
    attributes = "".join(
        f" {'xml:lang' if key == _LANG else key}='{escape(value, {chr(39): '&apos;'})}'"
        for key, value in node.attrib.items()
    )
    inside = escape(node.text or "")
    inside += "".join(show(child, namespace) + escape(child.tail or "") for child in node)
    return f"<{local}{declared}{attributes}>{inside}</{local}>" if inside else f"<{local}{declared}{attributes}/>"


def difference(actual: ET.Element, expected: ET.Element, where: str = "") -> str | None:
    """What makes ``actual`` another thing than ``expected``, as a sentence, or None when they match."""
    where = f"{where}/{actual.tag.rpartition('}')[2]}"
    if actual.tag != expected.tag:
        return f"{where}: the element is {actual.tag}, expected {expected.tag}"
    text = _text(expected)
    more = MORE in text
    text = text.replace(MORE, "").strip()
    return (
        _attribute_difference(actual, expected, where, more=more)
        or _text_difference(_text(actual), text, where, more=more)
        or _child_difference(list(actual), list(expected), where, more=more)
    )


def matches(actual: ET.Element, expected: str) -> bool:
    """Tell whether ``actual`` is what ``expected`` describes."""
    return difference(actual, parse(expected)) is None


def assert_matches(actual: ET.Element, expected: str, context: str = "") -> None:
    """Fail with both elements and the first difference, unless they match."""
    reason = difference(actual, parse(expected))
    if reason is not None:
        raise AssertionError(f"{context}{reason}\n  received: {show(actual)}\n  expected: {expected}")


def find(node: ET.Element, condition: Callable[[ET.Element], bool]) -> ET.Element | None:
    """The first descendant that fulfils the condition."""
    return next((each for each in node.iter() if condition(each)), None)


def _text(node: ET.Element) -> str:
    return "".join([node.text or "", *(child.tail or "" for child in node)]).strip()


def _attribute_difference(actual: ET.Element, expected: ET.Element, where: str, *, more: bool) -> str | None:
    for key, value in expected.attrib.items():
        found = actual.get(key)
        if found is None:
            return f"{where}: the attribute {key!r} is missing"
        if value not in (ANY, found):
            return f"{where}: the attribute {key!r} is {found!r}, expected {value!r}"
    surplus = set(actual.attrib) - set(expected.attrib) - {_LANG}
    return f"{where}: unexpected attributes {sorted(surplus)}" if surplus and not more else None


def _text_difference(actual: str, expected: str, where: str, *, more: bool) -> str | None:
    if expected in (ANY, actual) or (more and not expected):
        return None
    return f"{where}: the text is {actual!r}, expected {expected!r}"


def _child_difference(actual: list[ET.Element], expected: list[ET.Element], where: str, *, more: bool) -> str | None:
    left = list(actual)
    for child in expected:
        match = next((each for each in left if difference(each, child) is None), None)
        if match is None:
            alike = [difference(each, child, where) for each in left if each.tag == child.tag]
            return alike[0] if len(alike) == 1 else f"{where}: no child matches {show(child)}"
        left.remove(match)
    surplus = [child for child in left if child.tag not in IGNORABLE]
    return f"{where}: unexpected child {show(surplus[0])}" if surplus and not more else None

"""Expected answers that many conversations have in common."""

from __future__ import annotations

from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from tests.support.matching import CLIENT, MORE, STANZA_ERRORS, show

ERROR_TYPES = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "internal-server-error": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "modify",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "policy-violation": "modify",
    "registration-required": "auth",
    "remote-server-not-found": "cancel",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "subscription-required": "auth",
    "unexpected-request": "wait",
}
"""Stanza error conditions with the types that RFC 6120 section 8.3.3 gives them."""


def error(condition: str, kind: str | None = None) -> str:
    """An ``<error/>`` element; a text and application conditions may be in it."""
    return f"<error type='{kind or ERROR_TYPES[condition]}'><{condition} xmlns='{STANZA_ERRORS}'/>{MORE}</error>"


def refusal(name: str, condition: str, *, sender: str, to: str, stanza_id: str | None = None) -> str:
    """The error that answers a stanza called ``name``; the payload of the stanza may be repeated in it."""
    shown_id = f" id={quoteattr(stanza_id)}" if stanza_id else ""
    return (
        f"<{name} type='error' from={quoteattr(sender)} to={quoteattr(to)}{shown_id}>{MORE}{error(condition)}</{name}>"
    )


def condition_of(node: ET.Element) -> str:
    """The condition of a stanza of type ``error``; fails when it is none."""
    assert node.get("type") == "error", f"an error was expected: {show(node)}"
    found = node.find(f"{{{CLIENT}}}error")
    assert found is not None, show(node)
    conditions = [child.tag for child in found if child.tag.startswith(f"{{{STANZA_ERRORS}}}")]
    named = [tag.rpartition("}")[2] for tag in conditions if not tag.endswith("}text")]
    assert len(named) == 1, show(node)
    return named[0]


def payload_of(node: ET.Element) -> ET.Element:
    """The payload of a result; fails when the answer is another one."""
    assert node.get("type") == "result", f"a result was expected: {show(node)}"
    assert len(node) == 1, show(node)
    return node[0]

"""Ad-hoc commands (XEP-0050) on the wire: requests, answers, and the errors of section 4.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import Element, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXECUTE: Final = "execute"
CANCEL: Final = "cancel"
PREVIOUS: Final = "prev"
NEXT: Final = "next"
COMPLETE: Final = "complete"
ACTIONS: Final = (EXECUTE, CANCEL, PREVIOUS, NEXT, COMPLETE)

EXECUTING: Final = "executing"
COMPLETED: Final = "completed"
CANCELED: Final = "canceled"


@dataclass(frozen=True, slots=True)
class Request:
    """``<command/>`` as a client sends it. ``session`` is empty in the first request of a command."""

    node: str
    action: str
    session: str
    form: Element | None

    @classmethod
    def from_element(cls, node: Element) -> Request:
        """Read a request. Raises :class:`StanzaError`."""
        action = node.get("action", EXECUTE)
        if action not in ACTIONS:
            raise problem("malformed-action", f"there is no action {action}")
        name = node.get("node", "")
        if not name:
            raise StanzaError("bad-request", "the command has no node")
        forms = node.findall(f"{{{ns.DATA_FORMS}}}x")
        if len(forms) > 1:
            raise problem("bad-payload", "a command has one form")
        return cls(name, action, node.get("sessionid", ""), forms[0] if forms else None)


@dataclass(frozen=True, slots=True)
class Note:
    """What people are told: ``kind`` is info, warn or error."""

    text: str
    kind: str = "info"


def answer(
    request: Request,
    status: str,
    *,
    session: str = "",
    actions: Sequence[str] = (),
    notes: Iterable[Note] = (),
    payload: Iterable[Element] = (),
) -> Element:
    """``<command/>`` as the server sends it; the first of ``actions`` is what ``execute`` means next (section 3.4)."""
    attributes = {"node": request.node, "status": status}
    if session:
        attributes["sessionid"] = session
    content: list[Element] = []
    if actions:
        offered = [element(ns.ADHOC, action) for action in (PREVIOUS, NEXT, COMPLETE) if action in actions]
        content.append(element(ns.ADHOC, "actions", {"execute": actions[0]}, *offered))
    content += payload
    content += [element(ns.ADHOC, "note", {"type": note.kind}, note.text) for note in notes]
    return element(ns.ADHOC, "command", attributes, *content)


_CONDITIONS: Final = {
    "malformed-action": "bad-request",
    "bad-action": "bad-request",
    "bad-locale": "bad-request",
    "bad-payload": "bad-request",
    "bad-sessionid": "bad-request",
    "session-expired": "not-allowed",
}


def problem(name: str, text: str) -> StanzaError:
    """An error of section 4.3, by the name of its own condition."""
    return StanzaError(_CONDITIONS[name], text, application=f"<{name} xmlns='{ns.ADHOC}'/>".encode())

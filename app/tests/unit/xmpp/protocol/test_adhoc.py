"""Ad-hoc commands on the wire (XEP-0050)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol import adhoc
from monktalk.xmpp.protocol.adhoc import Note, Request, answer, problem
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import element, from_bytes, to_bytes

NS = "http://jabber.org/protocol/commands"


def read(xml: str) -> Request:
    return Request.from_element(from_bytes(xml.encode()))


def test_the_first_request():
    assert read(f"<command xmlns='{NS}' node='n'/>") == Request("n", "execute", "", None)


def test_going_on():
    request = read(
        f"<command xmlns='{NS}' node='n' action='next' sessionid='s'><x xmlns='jabber:x:data' type='submit'/></command>"
    )
    assert (request.node, request.action, request.session) == ("n", "next", "s")
    assert request.form is not None
    assert request.form.get("type") == "submit"


@pytest.mark.parametrize(
    ("xml", "condition", "specific"),
    [
        (f"<command xmlns='{NS}' node='n' action='dance'/>", "bad-request", b"<malformed-action "),
        (f"<command xmlns='{NS}'/>", "bad-request", b""),
        (
            f"<command xmlns='{NS}' node='n'><x xmlns='jabber:x:data'/><x xmlns='jabber:x:data'/></command>",
            "bad-request",
            b"<bad-payload ",
        ),
    ],
)
def test_wrong_requests(xml, condition, specific):
    with pytest.raises(StanzaError) as caught:
        read(xml)
    assert caught.value.condition == condition
    assert caught.value.application.startswith(specific)


def test_answers():
    request = Request("n", "execute", "", None)
    executing = answer(
        request, adhoc.EXECUTING, session="s", actions=[adhoc.NEXT, adhoc.PREVIOUS], payload=[element("urn:f", "x")]
    )
    assert to_bytes(executing).decode() == (
        f"<command xmlns='{NS}' node='n' status='executing' sessionid='s'>"
        "<actions execute='next'><prev/><next/></actions><x xmlns='urn:f'/></command>"
    )
    completed = answer(request, adhoc.COMPLETED, notes=[Note("done"), Note("but", "warn")])
    assert to_bytes(completed).decode() == (
        f"<command xmlns='{NS}' node='n' status='completed'>"
        "<note type='info'>done</note><note type='warn'>but</note></command>"
    )


def test_problems():
    error = problem("session-expired", "too late")
    assert (error.condition, error.kind) == ("not-allowed", "cancel")
    assert error.application == f"<session-expired xmlns='{NS}'/>".encode()

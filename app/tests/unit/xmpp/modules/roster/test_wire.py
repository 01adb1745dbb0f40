"""Rosters on the wire."""

from __future__ import annotations

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.modules.roster import RosterModule, wire
from monktalk.xmpp.modules.roster.value import BOTH, Item
from monktalk.xmpp.protocol import xmltree
from monktalk.xmpp.protocol.errors import StanzaError
from tests.support.inproc import configuration
from tests.support.matching import assert_matches

ROMEO = JID.parse("romeo@montague.example")
JULIET = "juliet@capulet.example"


def settings(text: str = ""):
    return configuration({"roster": RosterModule}, f"[modules.roster]\n{text}").section("modules", "roster")


def read(items: str, text: str = ""):
    asked = xmltree.from_bytes(f"<query xmlns='jabber:iq:roster'>{items}</query>".encode())
    return wire.read_set(asked, ROMEO, settings(text))


def refused(items: str, text: str = "") -> str:
    with pytest.raises(StanzaError) as error:
        read(items, text)
    return error.value.condition


def parsed(raw: bytes | str):
    return xmltree.from_bytes(raw.encode() if isinstance(raw, str) else raw)


def test_items():
    assert_matches(
        parsed(f"<query xmlns='jabber:iq:roster'>{wire.item_xml(JULIET, Item(BOTH, groups=('A & B', 'C')))}</query>"),
        f"<query xmlns='jabber:iq:roster'><item jid='{JULIET}' subscription='both'>"
        "<group>A &amp; B</group><group>C</group></item></query>",
    )
    assert wire.item_xml(JULIET, Item(ask=True)) == f"<item jid='{JULIET}' subscription='none' ask='subscribe'/>"
    assert wire.item_xml(JULIET, Item(approved=True)) == f"<item jid='{JULIET}' subscription='none' approved='true'/>"
    assert wire.item_xml(JULIET, Item(name="<J> '\"")).count("&") == 4
    assert wire.item_xml(JULIET, None) == f"<item jid='{JULIET}' subscription='remove'/>"


def test_whole_rosters():
    query = parsed(wire.query({JULIET: Item(), "nurse@capulet.example": Item(BOTH)}, 42))
    assert query.get("ver") == "42"
    assert [(item.get("jid"), item.get("subscription")) for item in query] == [
        (JULIET, "none"),
        ("nurse@capulet.example", "both"),
    ]


def test_pushes():
    pushed = parsed(wire.push(JID.parse("romeo@montague.example/it's"), 7, wire.item_xml(JULIET, Item()), 42))
    assert_matches(
        pushed,
        "<iq type='set' id='push-7' to=\"romeo@montague.example/it's\"><query xmlns='jabber:iq:roster' ver='42'>"
        f"<item jid='{JULIET}' subscription='none'/></query></iq>",
    )


def test_what_a_client_asks_for():
    wanted = read(f"<item jid='{JULIET}' name='Juliet'><group>Friends</group><group>Verona</group></item>")
    assert wanted == (JID.parse(JULIET), False, "Juliet", ("Friends", "Verona"))
    assert read(f"<item jid='{JULIET}' subscription='remove' name='x'/>") == (JID.parse(JULIET), True, "", ())


@pytest.mark.parametrize("ignored", ["subscription='both'", "ask='subscribe'", "approved='true'"])
def test_what_is_not_a_client_s_business_is_ignored(ignored):
    assert read(f"<item jid='{JULIET}' {ignored}/>") == (JID.parse(JULIET), False, "", ())


def test_addresses_are_prepared_and_made_bare():
    assert read("<item jid='JULIET@Capulet.Example/balcony'/>").jid.full == JULIET
    assert read("<item jid='Gateway.Example'/>").jid.full == "gateway.example"


@pytest.mark.parametrize(
    ("items", "condition"),
    [
        ("", "bad-request"),
        ("<item jid='a@b'/><item jid='c@d'/>", "bad-request"),
        ("<item jid='a@b'/><x xmlns='y'/>", "bad-request"),
        ("<item xmlns='other' jid='a@b'/>", "bad-request"),
        ("<item/>", "bad-request"),
        ("<item jid=''/>", "bad-request"),
        ("<item jid='@b'/>", "jid-malformed"),
        ("<item jid='a b@c'/>", "jid-malformed"),
        ("<item jid='romeo@montague.example'/>", "not-allowed"),
        ("<item jid='ROMEO@montague.example/x'/>", "not-allowed"),
        ("<item jid='a@b'><group/></item>", "not-acceptable"),
        ("<item jid='a@b'><group>x</group><group>y</group><group>x</group></item>", "bad-request"),
        ("<item jid='a@b'><group>\u00e9</group><group>e\u0301</group></item>", "bad-request"),
    ],
)
def test_refused(items, condition):
    assert refused(items) == condition


def test_one_may_remove_oneself_from_a_roster_of_old():
    assert read("<item jid='romeo@montague.example' subscription='remove'/>").remove


def test_limits():
    name, group = "<item jid='a@b' name='{}'/>", "<item jid='a@b'><group>{}</group></item>"
    assert read(name.format("x" * 10), "max_length = 10").name == "x" * 10
    assert refused(name.format("x" * 11), "max_length = 10") == "not-acceptable"
    assert read(group.format("x" * 10), "max_length = 10").groups == ("x" * 10,)
    assert refused(group.format("x" * 11), "max_length = 10") == "not-acceptable"
    two = "<item jid='a@b'><group>1</group><group>2</group></item>"
    assert len(read(two, "max_groups = 2").groups) == 2
    assert refused(two, "max_groups = 1") == "not-acceptable"

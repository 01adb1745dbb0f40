"""Service discovery as values (XEP-0030, XEP-0128)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.disco import Identity, Info, Item, items_element, result_form
from monktalk.xmpp.protocol.xmltree import from_bytes, to_bytes


def test_info_is_written_in_a_fixed_order_and_read_back():
    form = result_form("urn:example:form", {"colours": ("red", "green"), "none": ()})
    info = Info([Identity("server", "im", "en", "A & B")], {"urn:b", "urn:a"}, [form])
    written = to_bytes(info.to_element("node"))
    assert written == (
        b"<query xmlns='http://jabber.org/protocol/disco#info' node='node'>"
        b"<identity category='server' type='im' xml:lang='en' name='A &amp; B'/>"
        b"<feature var='urn:a'/><feature var='urn:b'/>"
        b"<x xmlns='jabber:x:data' type='result'>"
        b"<field var='FORM_TYPE' type='hidden'><value>urn:example:form</value></field>"
        b"<field var='colours' type='list-multi'><value>red</value><value>green</value></field>"
        b"<field var='none' type='list-multi'/></x></query>"
    )
    read = Info.from_element(from_bytes(written))
    assert (read.identities, read.features, len(read.forms)) == (info.identities, info.features, 1)


@pytest.mark.parametrize(
    "inner",
    [
        "<identity category='client'/>",
        "<identity type='pc'/>",
        "<feature/>",
        "<feature var=''/>",
        "<feature var='urn:a'/><feature var='urn:a'/>",
        "<identity category='client' type='pc' name='x'/><identity category='client' type='pc' name='x'/>",
    ],
)
def test_ill_formed_info_is_refused(inner):
    with pytest.raises(ValueError, match=r"lacks|twice"):
        Info.from_element(from_bytes(f"<query xmlns='{ns.DISCO_INFO}'>{inner}</query>".encode()))


def test_items():
    query = items_element([Item("chat.example.org", "Rooms"), Item("a@example.org", node="n")])
    assert to_bytes(query) == (
        b"<query xmlns='http://jabber.org/protocol/disco#items'><item jid='chat.example.org' name='Rooms'/>"
        b"<item jid='a@example.org' node='n'/></query>"
    )

"""Verification strings (XEP-0115 section 5)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol import caps
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.caps import UnusableInfo, verification_string, verification_text, verify
from monktalk.xmpp.protocol.disco import Info
from monktalk.xmpp.protocol.xmltree import Element, from_bytes

MUC = "http://jabber.org/protocol/muc"
FEATURES = "".join(f"<feature var='{var}'/>" for var in (ns.DISCO_INFO, MUC, ns.CAPS, ns.DISCO_ITEMS))
SIMPLE = f"<identity category='client' name='Exodus 0.9.1' type='pc'/>{FEATURES}"
SIMPLE_VER = "QgayPKawpkPSDYmwT/WM94uAlu0="
COMPLEX_FORM = """<x xmlns='jabber:x:data' type='result'>
    <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
    <field var='ip_version' type='text-multi'><value>ipv6</value><value>ipv4</value></field>
    <field var='os'><value>Mac</value></field>
    <field var='os_version'><value>10.5.1</value></field>
    <field var='software'><value>Psi</value></field>
    <field var='software_version'><value>0.11</value></field>
  </x>"""
COMPLEX = (
    "<identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>"
    f"<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>{FEATURES}{COMPLEX_FORM}"
)
COMPLEX_VER = "q07IKJEyjvHSyhy//CH0CxmKi8w="


def query(inner: str) -> Element:
    return from_bytes(f"<query xmlns='{ns.DISCO_INFO}'>{inner}</query>".encode())


def info(inner: str) -> Info:
    return Info.from_element(query(inner))


@pytest.mark.parametrize(("inner", "ver"), [(SIMPLE, SIMPLE_VER), (COMPLEX, COMPLEX_VER)])
def test_the_examples_of_the_specification(inner, ver):
    assert verification_string(info(inner)) == ver
    assert verify(query(inner), ver, "sha-1") is not None


def test_the_text_of_the_simple_example():
    assert verification_text(info(SIMPLE)) == (
        "client/pc//Exodus 0.9.1<http://jabber.org/protocol/caps<http://jabber.org/protocol/disco#info<"
        "http://jabber.org/protocol/disco#items<http://jabber.org/protocol/muc<"
    )


def test_values_are_sorted_by_their_bytes():
    # U+FFFD comes behind U+10000 in UTF-16, in front of it in UTF-8.
    text = verification_text(info("<feature var='\U00010000'/><feature var='\ufffd'/><feature var='a'/>"))
    assert text == "a<\ufffd<\U00010000<"


def test_other_hash_functions():
    assert verification_string(info(SIMPLE), "sha-256") == "Wr6IGEKhx6b9627gBmi/cCmpxXBc/GYq5zWuYfWGWoc="
    assert verify(query(SIMPLE), verification_string(info(SIMPLE), "sha-512"), "sha-512") is not None
    assert verify(query(SIMPLE), SIMPLE_VER, "md5") is None


def test_forms_without_a_hidden_type_are_left_out():
    form = COMPLEX_FORM.replace(" type='hidden'", "")
    assert verification_text(info(FEATURES + form)) == verification_text(info(FEATURES))


@pytest.mark.parametrize(
    "inner",
    [
        FEATURES + "<feature var='urn:x'/>",  # another feature
        SIMPLE.replace("Exodus 0.9.1", "Exodus 0.9.2"),
        SIMPLE + SIMPLE,  # everything twice
        SIMPLE + "<feature/>",
        COMPLEX_FORM + COMPLEX_FORM,  # two forms of one type
        COMPLEX_FORM.replace("softwareinfo</value>", "softwareinfo</value><value>urn:other</value>"),
    ],
)
def test_a_forged_or_ill_formed_answer_is_not_believed(inner):
    assert verify(query(inner), SIMPLE_VER, "sha-1") is None
    assert verify(query(inner), COMPLEX_VER, "sha-1") is None


@pytest.mark.parametrize(
    "inner",
    [
        "<feature var='urn:a&lt;urn:b'/>",
        "<identity category='client' type='pc' name='x&lt;urn:a'/>",
        "<identity category='client/pc' type='x'/>",
        COMPLEX_FORM.replace("Mac", "Mac&lt;x"),
    ],
)
def test_a_value_that_holds_a_separator_has_no_verification_string(inner):
    """Otherwise ``a<b`` would stand for two features as well as for one (the second-preimage attack on XEP-0115)."""
    with pytest.raises(UnusableInfo):
        verification_string(info(inner))


def test_what_is_hashed_is_bounded():
    many = "".join(f"<feature var='urn:{number}'/>" for number in range(caps.MAX_PARTS + 1))
    with pytest.raises(UnusableInfo):
        verification_string(info(many))
    assert verify(query(many), SIMPLE_VER, "sha-1") is None
    with pytest.raises(UnusableInfo):
        verification_string(info(f"<feature var='{'x' * caps.MAX_BYTES}'/>"))

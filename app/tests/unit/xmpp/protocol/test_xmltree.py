"""Trees and their canonical form."""

from __future__ import annotations

from monktalk.xmpp.protocol.xmltree import element, escape, find, from_bytes, text_of, to_bytes


def test_namespaces_are_declared_where_they_change():
    node = element("urn:a", "a", None, element("urn:a", "b"), element("urn:c", "c", None, element("urn:a", "d")))
    assert to_bytes(node) == b"<a xmlns='urn:a'><b/><c xmlns='urn:c'><d xmlns='urn:a'/></c></a>"
    assert to_bytes(element("jabber:client", "body", None, "x")) == b"<body>x</body>"


def test_content_keeps_its_order():
    assert to_bytes(element("jabber:client", "a", None, "1", element("jabber:client", "b"), "2", "3")) == (
        b"<a>1<b/>23</a>"
    )


def test_special_characters_survive():
    node = element("jabber:client", "a", {"b": "<'\"&>\n\t\r"}, "<&>\r\n")
    again = from_bytes(to_bytes(node))
    assert again.get("b") == "<'\"&>\n\t\r"
    assert again.text == "<&>\r\n"


def test_attributes_in_namespaces_get_prefixes():
    node = element("jabber:client", "a", {"{urn:x}b": "1", "{http://www.w3.org/XML/1998/namespace}lang": "en"})
    assert to_bytes(node) == b"<a xmlns:a1='urn:x' a1:b='1' xml:lang='en'/>"
    assert from_bytes(to_bytes(node)).attrib == node.attrib


def test_finding():
    node = element("urn:a", "a", None, element("urn:a", "b", None, "x"), element("urn:a", "c"))
    assert find(node, "urn:a", "b") is not None
    assert (text_of(node, "urn:a", "b"), text_of(node, "urn:a", "c"), text_of(node, "urn:a", "d")) == ("x", "", None)


def test_escape_is_for_attributes():
    assert escape("a'b\"<c>&") == "a&apos;b&quot;&lt;c&gt;&amp;"

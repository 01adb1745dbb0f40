"""The tools that the conversations are made of: what they must tell apart, and what they must not."""

from __future__ import annotations

import tomllib

import pytest

from tests.support.matching import difference, matches, parse
from tests.support.sasl import Scram
from tests.support.toml import dumps, merged

ALIKE = {
    "order of attributes": ("<a x='1' y='2'/>", "<a y='2' x='1'/>"),
    "order of children": ("<a><b/><c/></a>", "<a><c/><b/></a>"),
    "whitespace": ("<a> <b> text </b> </a>", "<a><b>text</b></a>"),
    "prefixes": ("<p:a xmlns:p='urn:x' p:y='1'/>", "<q:a xmlns:q='urn:x' q:y='1'/>"),
    "any value": ("<a x='1'>text</a>", "<a x='{any}'>{any}</a>"),
    "more of everything": ("<a x='1'><b/><c/>text</a>", "<a>{more}<b/></a>"),
    "a stanza id": ("<message><stanza-id xmlns='urn:xmpp:sid:0' id='1'/></message>", "<message/>"),
    "a language": ("<message xml:lang='en'/>", "<message/>"),
}
DIFFERENT = {
    "name": ("<a/>", "<b/>"),
    "namespace": ("<a xmlns='urn:x'/>", "<a/>"),
    "value": ("<a x='1'/>", "<a x='2'/>"),
    "missing attribute": ("<a/>", "<a x='{any}'/>"),
    "further attribute": ("<a x='1'/>", "<a/>"),
    "text": ("<a>1</a>", "<a>2</a>"),
    "text of nothing": ("<a>1</a>", "<a/>"),
    "missing child": ("<a/>", "<a><b/></a>"),
    "missing child with more": ("<a><c/></a>", "<a><b/>{more}</a>"),
    "further child": ("<a><b/></a>", "<a/>"),
    "child once too often": ("<a><b/><b/></a>", "<a><b/></a>"),
    "child once too seldom": ("<a><b/></a>", "<a><b/><b/></a>"),
    "deep inside": ("<a><b><c x='1'/></b></a>", "<a><b><c x='2'/></b></a>"),
    "other text with more": ("<a>1<b/></a>", "<a>2{more}</a>"),
}


@pytest.mark.parametrize(("actual", "expected"), ALIKE.values(), ids=ALIKE.keys())
def test_alike(actual, expected):
    assert difference(parse(actual), parse(expected)) is None


@pytest.mark.parametrize(("actual", "expected"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_different(actual, expected):
    assert difference(parse(actual), parse(expected)) is not None
    assert not matches(parse(actual), expected)


def test_scram_of_the_rfc():
    """The exchange of RFC 5802 section 5."""
    exchange = Scram("sha1", "user", "pencil", nonce="fyko+d2lbbFgONRv9qkxdawL")
    assert exchange.first() == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    server_nonce = "fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
    final = exchange.final(f"r={server_nonce},s=QSXCR+Q6sek8bf92,i=4096".encode())
    assert final == f"c=biws,r={server_nonce},p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=".encode()
    exchange.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")
    with pytest.raises(AssertionError):
        exchange.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKR=")


def test_configurations_are_laid_over_each_other():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": {"z": "text"}}
    assert merged(base, {"a": {"x": 2}, "b": None}) == {"a": {"x": 2, "y": [1, 2]}}
    assert base["a"] == {"x": 1, "y": [1, 2]}


def test_configurations_are_written_as_toml():
    table = {"a": {"x": 1, "on": True, "text": 'quote " and \\'}, "host": {"b.example": {"c": {"d": ["e"]}}}}
    table["l"] = {"c2s": [{"port": 0}, {"port": 1}]}
    assert tomllib.loads(dumps(table)) == table

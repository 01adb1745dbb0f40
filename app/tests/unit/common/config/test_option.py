from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from monktalk.common.config import Kind, Option
from monktalk.common.jid import JID


def convert(kind: Kind, raw: object, **bounds):
    return Option("name", kind, None, **bounds).convert(raw)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (Kind.STRING, "text", "text"),
        (Kind.INTEGER, -3, -3),
        (Kind.NUMBER, 1.5, 1.5),
        (Kind.NUMBER, 2, 2.0),
        (Kind.BOOLEAN, True, True),
        (Kind.SIZE, 0, 0),
        (Kind.SIZE, 65536, 65536),
        (Kind.SIZE, "512", 512),
        (Kind.SIZE, "512 B", 512),
        (Kind.SIZE, "256 KiB", 256 * 1024),
        (Kind.SIZE, "256kib", 256 * 1024),
        (Kind.SIZE, "1.5 MiB", 1536 * 1024),
        (Kind.SIZE, "2 GiB", 2 * 1024**3),
        (Kind.SIZE, "10 kB", 10_000),
        (Kind.SIZE, "10 MB", 10_000_000),
        (Kind.SIZE, "1 GB", 1_000_000_000),
        (Kind.DURATION, 5, 5.0),
        (Kind.DURATION, 0.25, 0.25),
        (Kind.DURATION, "250 ms", 0.25),
        (Kind.DURATION, "30 s", 30.0),
        (Kind.DURATION, "30s", 30.0),
        (Kind.DURATION, "5 min", 300.0),
        (Kind.DURATION, "1.5 h", 5400.0),
        (Kind.DURATION, "1 h 30 min", 5400.0),
        (Kind.DURATION, "7 d", 604_800.0),
        (Kind.PATH, "/etc/mongooseim/ca.cer", Path("/etc/mongooseim/ca.cer")),
        (Kind.URL, "http://127.0.0.1:3300/authorize/", "http://127.0.0.1:3300/authorize/"),
        (Kind.URL, "sqlite:///var/monktalk.db", "sqlite:///var/monktalk.db"),
        (Kind.URL, "postgresql://monk:x@db1,db2/xmpp", "postgresql://monk:x@db1,db2/xmpp"),
        (Kind.STRINGS, ["a", "b"], ("a", "b")),
        (Kind.STRINGS, [], ()),
        (Kind.JID, "Admin@Example.org", JID.parse("admin@example.org")),
        (Kind.JIDS, ["a@example.org"], (JID.parse("a@example.org"),)),
        (Kind.NETWORKS, ["127.0.0.0/8", "::1"], (ip_network("127.0.0.0/8"), ip_network("::1/128"))),
        (Kind.DOMAINS, ["Example.org", "xn--mnchen-3ya.example"], ("example.org", "münchen.example")),
    ],
)
def test_a_value_is_converted(kind, raw, value):
    result = convert(kind, raw)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("kind", "raw", "reason"),
    [
        (Kind.STRING, 1, "must be a text in quotes"),
        (Kind.INTEGER, True, "must be a whole number"),
        (Kind.INTEGER, 1.0, "must be a whole number"),
        (Kind.INTEGER, "1", "must be a whole number"),
        (Kind.NUMBER, "1", "must be a number"),
        (Kind.NUMBER, False, "must be a number"),
        (Kind.NUMBER, float("nan"), "must be a number"),
        (Kind.NUMBER, float("inf"), "must be a number"),
        (Kind.BOOLEAN, 1, "must be true or false"),
        (Kind.BOOLEAN, "true", "must be true or false"),
        (Kind.SIZE, -1, "must be a number of bytes"),
        (Kind.SIZE, True, "must be a number of bytes"),
        (Kind.SIZE, "1 XB", "must be a number of bytes"),
        (Kind.SIZE, "", "must be a number of bytes"),
        (Kind.SIZE, "-1 KiB", "must be a number of bytes"),
        (Kind.SIZE, "٣ KiB", "must be a number of bytes"),
        (Kind.SIZE, "0.1 KiB", "must be a whole number of bytes"),
        (Kind.DURATION, -1, "must be a number of seconds"),
        (Kind.DURATION, True, "must be a number of seconds"),
        (Kind.DURATION, float("inf"), "must be a number of seconds"),
        (Kind.DURATION, "30", "must be a number of seconds"),
        (Kind.DURATION, "30 m", "must be a number of seconds"),
        (Kind.DURATION, "1 h, 2 min", "must be a number of seconds"),
        (Kind.DURATION, "", "must be a number of seconds"),
        (Kind.PATH, "", "must be a path"),
        (Kind.PATH, "a\0b", "must be a path"),
        (Kind.URL, "127.0.0.1:3300", "must be a URL"),
        (Kind.URL, "http://", "must be a URL"),
        (Kind.URL, "http://a:99999/", "must be a URL"),
        (Kind.URL, "http://a b/", "must be a URL"),
        (Kind.URL, "http://[::1/", "must be a URL"),
        (Kind.STRINGS, "a", "must be a list of texts"),
        (Kind.STRINGS, ["a", 1], "must be a list of texts"),
        (Kind.JID, "@", "must be an XMPP address: The localpart is empty"),
        (Kind.JIDS, ["a b@c"], "must be an XMPP address"),
        (Kind.NETWORKS, ["10.0.0.1/8"], 'must be a list of networks like "192.0.2.0/24"'),
        (Kind.NETWORKS, ["everywhere"], "must be a list of networks"),
        (Kind.DOMAINS, ["a b"], "must be a list of domains: The domainpart 'a b' is not a domain name"),
        (Kind.DOMAINS, ["example.org", "EXAMPLE.org"], 'names "example.org" twice'),
    ],
)
def test_what_is_no_value_is_refused_with_what_would_be(kind, raw, reason):
    with pytest.raises(ValueError, match=reason):
        convert(kind, raw)


def test_a_choice_names_its_choices():
    assert convert(Kind.CHOICE, "plain", choices=("plain", "scram")) == "plain"
    with pytest.raises(ValueError, match='must be one of "plain", "scram", not "crypt"'):
        convert(Kind.CHOICE, "crypt", choices=("plain", "scram"))


def test_choices_limit_the_items_of_a_list_and_the_schemes_of_a_url():
    assert convert(Kind.STRINGS, ["b"], choices=("a", "b")) == ("b",)
    with pytest.raises(ValueError, match='must be made of "a", "b", not "c"'):
        convert(Kind.STRINGS, ["a", "c"], choices=("a", "b"))
    assert convert(Kind.URL, "https://a/", choices=("http", "https")) == "https://a/"
    with pytest.raises(ValueError, match="begins with http:// or https://"):
        convert(Kind.URL, "ftp://a/", choices=("http", "https"))


@pytest.mark.parametrize(
    ("kind", "low", "good", "high", "bounds"),
    [
        (Kind.INTEGER, 0, [1, 65535], 65536, (1, 65535)),
        (Kind.NUMBER, 0.4, [0.5, 1.0], 1.1, (0.5, 1)),
        (Kind.SIZE, "9 KiB", ["10 KiB", "1 MiB"], "1025 KiB", ("10 KiB", "1 MiB")),
        (Kind.DURATION, "59 s", ["1 min", 3600], "61 min", ("1 min", "1 h")),
    ],
)
def test_bounds_hold_and_are_written_like_values(kind, low, good, high, bounds):
    option = Option("name", kind, None, minimum=bounds[0], maximum=bounds[1])
    for value in good:
        option.convert(value)
    with pytest.raises(ValueError, match=f"must be at least {bounds[0]}"):
        option.convert(low)
    with pytest.raises(ValueError, match=f"must be at most {bounds[1]}"):
        option.convert(high)


@pytest.mark.parametrize(
    ("kind", "bound", "value", "text"),
    [
        (Kind.STRING, 1, "", "at least 1 character"),
        (Kind.STRING, 2, "a", "at least 2 characters"),
        (Kind.STRINGS, 1, [], "at least 1 item"),
        (Kind.DOMAINS, 2, ["a"], "at least 2 items"),
        (Kind.SIZE, 65536, 1, "at least 64 KiB"),
        (Kind.SIZE, 1000, 1, "at least 1000 bytes"),
        (Kind.DURATION, 0.5, 0, "at least 0.5 s"),
        (Kind.DURATION, 1, 0, "at least 1 s"),
        (Kind.INTEGER, 1, 0, "at least 1"),
    ],
)
def test_a_bound_is_told_with_its_unit(kind, bound, value, text):
    with pytest.raises(ValueError, match=f"^must be {text}$"):
        Option("name", kind, None, minimum=bound).convert(value)


def test_defaults_are_written_like_values():
    assert Option("size", Kind.SIZE, "256 KiB").initial() == 262_144
    assert Option("names", Kind.STRINGS, ("a", "b")).initial() == ("a", "b")
    assert Option("names", Kind.STRINGS, None).initial() is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("size", Kind.SIZE, "much"), "The default of the option 'size' must be a number of bytes"),
        (("Size", Kind.SIZE), "a name is lower case"),
        (("format", Kind.CHOICE), "a choice of nothing"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Option(*arguments)


def test_only_texts_can_be_secret():
    with pytest.raises(ValueError, match="only texts and URLs"):
        Option("port", Kind.INTEGER, secret=True)

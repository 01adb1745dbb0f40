from __future__ import annotations

import contextlib
import copy
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monktalk.common import jid as jid_module
from monktalk.common.jid import (
    JID,
    MAX_PART_BYTES,
    InvalidJID,
    prepare_domain,
    prepare_local,
    prepare_resource,
)

EXCLUDED_FROM_LOCALPARTS = "\"&'/:<>@"

locals_ascii = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=EXCLUDED_FROM_LOCALPARTS),
    min_size=1,
    max_size=60,
)
resources_ascii = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60)
labels = st.from_regex(r"[a-z]([a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)


@pytest.mark.parametrize(
    ("text", "local", "domain", "resource"),
    [
        ("juliet@example.com", "juliet", "example.com", ""),
        ("juliet@example.com/foo", "juliet", "example.com", "foo"),
        ("juliet@example.com/foo bar", "juliet", "example.com", "foo bar"),
        ("juliet@example.com/foo@bar", "juliet", "example.com", "foo@bar"),
        ("foo\\20bar@example.com", "foo\\20bar", "example.com", ""),
        ("fussball@example.com", "fussball", "example.com", ""),
        ("fußball@example.com", "fußball", "example.com", ""),
        ("π@example.com", "π", "example.com", ""),
        ("Σ@example.com/foo", "σ", "example.com", "foo"),
        ("king@example.com/♚", "king", "example.com", "♚"),
        ("example.com", "", "example.com", ""),
        ("example.com/foobar", "", "example.com", "foobar"),
        ("a.example.com/b@example.net", "", "a.example.com", "b@example.net"),
    ],
)
def test_the_examples_of_rfc_7622_section_3_5_are_addresses(text, local, domain, resource):
    jid = JID.parse(text)
    assert (jid.local, jid.domain, jid.resource) == (local, domain, resource)


@pytest.mark.parametrize(
    "text",
    [
        '"juliet"@example.com',
        "foo bar@example.com",
        "@example.com",
        "henry\u2163@example.com",
        "♚@example.com",
        "juliet@",
        "/foobar",
        "juliet@example.com/",
        "",
    ],
)
def test_the_counterexamples_of_rfc_7622_section_3_5_are_not(text):
    with pytest.raises(InvalidJID):
        JID.parse(text)


def test_forms():
    full = JID.parse("Alice@Example.ORG/Phone")
    assert full.bare == "alice@example.org"
    assert full.full == str(full) == "alice@example.org/Phone"
    assert JID.parse("Example.org").full == JID.parse("example.org").bare == "example.org"
    assert repr(full) == "JID('alice@example.org/Phone')"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("Alice@EXAMPLE.org", "alice@example.org"),
        ("ａｌｉｃｅ@ｅｘａｍｐｌｅ．org", "alice@example.org"),
        ("A\u030angstrom@example.org", "\u00e5ngstrom@example.org"),
        ("alice@example.org.", "alice@example.org"),
        ("alice@xn--mnchen-3ya.example", "alice@münchen.example"),
        ("alice@XN--MNCHEN-3YA.example", "alice@münchen.example"),
        ("alice@MÜNCHEN.example", "alice@münchen.example"),
        ("alice@example.org/a\u00a0b", "alice@example.org/a b"),
        ("alice@example.org/é", "alice@example.org/é"),
        ("alice@127.0.0.1", "alice@127.0.0.1"),
        ("alice@[2001:DB8:0:0::1]/x", "alice@[2001:db8::1]/x"),
        ("שלום@example.org", "שלום@example.org"),
        ("a@שלום.example", "a@שלום.example"),
    ],
)
def test_addresses_are_brought_into_their_canonical_form(text, full):
    assert JID.parse(text).full == full
    assert JID.parse(full).full == full


@pytest.mark.parametrize(
    "text",
    [
        "a@b@example.org",
        "a＠b@example.org",
        "a@example＠org",
        "a@example／org",
        "a@example..org",
        "a@.example.org",
        "a@example.org..",
        "a@.",
        "a@-example.org",
        "a@example-.org",
        "a@ex_ample.org",
        "a@ex ample.org",
        "a@ab--cd.example",
        "a@xn--.example",
        "a@xn--a.example",
        "a@xn--zzzzé.example",
        "a@[::1",
        "a@[::1]x",
        "a@[fe80::1%eth0]",
        "a@[127.0.0.1]",
        "a@1.שלום",
        "a\n@example.org",
        "a@example.org\n",
        "a@example.org/\n",
        "a@example.org/\x7f",
        "a@example.org/\u200b",
        "\ud800@example.org",
        "a@\ud800.org",
        "a@example.org/\ud800",
        "a\u0301\u05d0@example.org",
        "・@example.org",
        "\u0660\u06f0@example.org",
    ],
)
def test_what_is_not_an_address_is_refused_with_a_sentence(text):
    with pytest.raises(InvalidJID) as caught:
        JID.parse(text)
    assert str(caught.value).startswith("The ")
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("character", EXCLUDED_FROM_LOCALPARTS)
def test_eight_characters_are_excluded_from_localparts(character):
    with pytest.raises(InvalidJID):
        prepare_local(f"a{character}b")
    with pytest.raises(InvalidJID):
        prepare_local(f"é{character}b")


@pytest.mark.parametrize("prepare", [prepare_local, prepare_resource])
def test_a_part_may_have_1023_bytes_and_no_more(prepare):
    assert prepare("a" * MAX_PART_BYTES) == "a" * MAX_PART_BYTES
    assert prepare("é" * 511 + "a") == "é" * 511 + "a"
    for text in ("a" * (MAX_PART_BYTES + 1), "é" * 512, "é" * 1_000_000):
        with pytest.raises(InvalidJID, match="longer than 1023 bytes"):
            prepare(text)


def test_a_part_counts_after_normalization():
    assert prepare_resource("u\u0308\u0301" * 511) == "\u01d8" * 511


def test_a_domain_may_have_1023_bytes_and_labels_of_63():
    longest = ".".join(["a" * 63] * 15 + ["b" * 63])
    assert len(longest) == MAX_PART_BYTES
    assert prepare_domain(longest) == longest
    for text in (f"{longest}c", f"{longest}.c", "a" * 64, "é" * 64, "é." * 600):
        with pytest.raises(InvalidJID, match="longer than"):
            prepare_domain(text)


def test_errors_show_a_bounded_piece_of_the_text():
    with pytest.raises(InvalidJID) as caught:
        JID.parse("\n" * 100_000)
    assert len(str(caught.value)) < 400


def test_of_prepares_parts():
    assert JID.of("Alice", "Example.org", "x").full == "alice@example.org/x"
    assert JID.of("", "example.org").full == "example.org"
    assert JID.of("", "example.org", "x").full == "example.org/x"
    assert JID.of("a", "example.org", "b/c@d").resource == "b/c@d"
    for local, domain, resource in (("a/b", "example.org", ""), ("a", "", ""), ("a", "example.org", "\n")):
        with pytest.raises(InvalidJID):
            JID.of(local, domain, resource)


def test_with_resource_and_to_bare():
    bare = JID.parse("alice@example.org")
    full = bare.with_resource("phone")
    assert full == JID.parse("alice@example.org/phone")
    assert full.with_resource("tablet").full == "alice@example.org/tablet"
    assert full.with_resource("") == full.to_bare() == bare
    assert bare.to_bare() is bare
    with pytest.raises(InvalidJID):
        bare.with_resource("\n")


def test_equality_and_hash_go_by_the_full_form():
    assert JID.parse("Alice@example.org") == JID.parse("alice@example.org")
    assert len({JID.parse("Alice@example.org"), JID.of("alice", "example.org")}) == 1
    assert JID.parse("alice@example.org") != JID.parse("alice@example.org/x")
    assert JID.parse("alice@example.org") != "alice@example.org"


def test_an_address_does_not_change():
    jid = JID.parse("alice@example.org")
    with pytest.raises(AttributeError, match="does not change"):
        jid.local = "mallory"
    with pytest.raises(AttributeError, match="does not change"):
        del jid.local
    with pytest.raises(AttributeError):
        jid.nickname = "al"


def test_addresses_survive_copying_and_pickling():
    jid = JID.parse("alice@münchen.example/x")
    assert copy.deepcopy(jid) == pickle.loads(pickle.dumps(jid)) == jid  # noqa: S301 - made in this line


def test_a_text_seen_before_gives_the_same_object():
    assert JID.parse("cached@example.org/x") is JID.parse("cached@example.org/x")


def test_the_cache_is_bounded_in_entries_and_in_size(monkeypatch):
    monkeypatch.setattr(jid_module, "_cache", {})
    monkeypatch.setattr(jid_module, "_CACHE_ENTRIES", 10)
    for number in range(35):
        assert JID.parse(f"user{number}@example.org").local == f"user{number}"
        assert JID.parse(f"user{number}@example.org/x").to_bare().local == f"user{number}"
        assert len(jid_module._cache) <= 10
    long = f"{'a' * 300}@example.org"
    JID.parse(long)
    assert long not in jid_module._cache


def test_refused_texts_are_not_cached(monkeypatch):
    monkeypatch.setattr(jid_module, "_cache", {})
    with pytest.raises(InvalidJID):
        JID.parse("a b@example.org")
    assert jid_module._cache == {}


@pytest.mark.parametrize(
    "text",
    [
        "カ" + "・" * 340,
        "カ" + "a・" * 250,
        "٠" * 511,
        "ب\u200c" * 200 + "ب",
        "\u0327\u0301" * 1000,
        "\u1100\u1161\u11a8" * 341,
        "é." * 1000,
        "xn--a." * 300,
        "a." * 1000,
        "a-" * 1000,
        "a@" * 1000,
    ],
)
def test_no_text_costs_more_than_linear_time(text):
    started = time.process_time()
    for prepare in (prepare_local, prepare_domain, prepare_resource, JID.parse):
        with contextlib.suppress(InvalidJID):  # being refused is fine, being slow is not
            prepare(text)
    assert time.process_time() - started < 0.05


@given(locals_ascii, domains, st.one_of(st.just(""), resources_ascii))
def test_ascii_parts_come_back_and_only_the_resource_keeps_its_case(local, domain, resource):
    text = f"{local}@{domain}/{resource}" if resource else f"{local}@{domain}"
    jid = JID.parse(text)
    assert (jid.local, jid.domain, jid.resource) == (local.lower(), domain, resource)
    assert JID.of(local, domain.upper(), resource) == jid


@given(st.text(max_size=80))
def test_any_text_is_refused_or_has_one_canonical_form(text):
    try:
        jid = JID.parse(text)
    except InvalidJID:
        return
    again = JID.parse(jid.full)
    assert (again.local, again.domain, again.resource) == (jid.local, jid.domain, jid.resource)
    assert JID.of(jid.local, jid.domain, jid.resource) == jid


@given(st.text(st.characters(max_codepoint=0x7E), min_size=1, max_size=40))
def test_the_ascii_fast_path_decides_as_the_tables_do(text):
    def outcome(prepare, enforce):
        try:
            return prepare(text) == enforce(text)
        except (InvalidJID, UnicodeEncodeError):
            pass
        with pytest.raises(InvalidJID):
            prepare(text)
        with pytest.raises(UnicodeEncodeError):
            enforce(text)
        return True

    assert outcome(prepare_resource, jid_module._opaque.enforce)
    if not set(text) & set(EXCLUDED_FROM_LOCALPARTS):
        assert outcome(prepare_local, jid_module._username.enforce)


@given(st.text("ab٠٣۰۷・カ漢ا\u200cب", min_size=1, max_size=12))
def test_checking_context_once_decides_as_checking_it_everywhere(text):
    try:
        expected = jid_module._opaque.enforce(text)
    except UnicodeEncodeError:
        with pytest.raises(InvalidJID):
            prepare_resource(text)
    else:
        assert prepare_resource(text) == expected

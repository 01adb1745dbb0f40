from __future__ import annotations

import hashlib
import hmac

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from monktalk.common import scram
from monktalk.common.scram import InvalidPassword, InvalidScram, ScramKeys

SINGLE = "==SCRAM==,tmi5IE+9pceRV/jkPLFHEaVY33c=,MiWNa8T3dniVDwmh77ufJ41fpAQ=,inKXODlSY5y5SCsLxibi0w==,4096"
"""The password `misio`, from MongooseIM's documentation."""

MULTI = (
    "==MULTI_SCRAM==,4096,"
    "===SHA1===QClQsw/sfPEnwj4AEp6E1w==|ys1104hRhqMoRputBY5sLHKXoSw=|EJvxXWM42tO7BgW21lNZyBc1dD0=,"
    "==SHA224==dk0ImXFVPoUfqD5FveV7YA==|G0ibQ/YYuCtoun4I+1IF2zJ7Q8x2T23ETnq5Gg==|"
    "EvE2EkZcUb3k4CooeOcVFy95P32t+NDX0xbQUA==,"
    "==SHA256==M7BYKSo04XbzBr4C7b056g==|A779MC05nSGQln5no0hKTGHFSaQ7oguKBZgORW3s+es=|"
    "XhtGFf6NDWsnVSCO4xkzPD3qc046fPL0pATZi7RmaWo=,"
    "==SHA384==Ryu0fA29gbwgqFOBk5Mczw==|k3QwC0Lb1y1/V/31byC5KML5t3mH4JTPjFyeAz7lV2l4SPfzi3JHvLEdoNB5K/VY|"
    "kR+LMI/E0QBG3oF405/MTAT6NAlCOfPrFOaWH3WBVGM0Viu9Brk6kGwVwXjSP8v0,"
    "==SHA512==SLNuVNcWiNBmnYZNIdj+zg==|"
    "3ey3gzSsmbxcLnoc1VKCR/739uKX6uuPCyAzn6x8o87ibcjOdUaU8qhL5X4MUI9UPTt667GagNpVTmAWTFNsjA==|"
    "jUUDbuQ9ae4UnAWS6RV6W4yifX3La3ESjfZjGol+TBROIb/ihR8UawPHrSHkp4yyDJXtRhR9RlHCHy4bcCm1Yg=="
)
"""The password `padthai` with a salt for each hash, from the documentation of MongooseIM since 4.1."""

MULTI_OLD = (
    "==MULTI_SCRAM==,glF/hUXiCWD6TaJLpgVaaw==,4096,"
    "===SHA1===Hxfegcj54A6p/ZzWkw7BjJsLZpM=|ztvci4eBktO3NLviLhwN3ktF15Q=,"
    "==SHA256==S4XiSkYI81m688nMuCgFGUBIGbW6oG1a9rlTKktzS/A=|0Tm46vWQyO/XWpAtcDCUH++7ImWVDe0VDx274zMzMXQ="
)
"""The password `padthai` with one salt for all, from the documentation of MongooseIM 3.7."""

ALL_HASHES = ["sha1", "sha224", "sha256", "sha384", "sha512"]


def test_the_check_vector_of_the_contract_is_what_the_password_gives():
    keys = scram.parse(SINGLE)["sha1"]
    assert scram.derive("misio", "sha1", iterations=4096, salt=keys.salt) == keys
    assert scram.format_single(keys) == SINGLE
    assert scram.verify_password("misio", keys)
    assert not scram.verify_password("Misio", keys)


@pytest.mark.parametrize(
    ("text", "hashes"), [(MULTI, ALL_HASHES), (MULTI_OLD, ["sha1", "sha256"])], ids=["salt for each", "salt for all"]
)
def test_both_forms_with_several_hashes_are_read(text, hashes):
    credentials = scram.parse(text)
    assert list(credentials) == hashes
    for name, keys in credentials.items():
        assert keys.hash_name == name
        assert scram.verify_password("padthai", keys)
        assert not scram.verify_password("padthay", keys)


def test_the_newest_form_is_written_as_mongooseim_writes_it():
    assert scram.format_multi(scram.parse(MULTI)) == MULTI


def test_the_line_breaks_of_the_documentation_are_taken():
    assert scram.parse(MULTI.replace(",", ",\n") + "\n") == scram.parse(MULTI)


def test_hashes_that_nobody_knows_are_left_out():
    text = MULTI_OLD + ",=SHA3-512=abc|def"
    with pytest.raises(InvalidScram):
        scram.parse(text)
    assert scram.parse(MULTI + ",==SHA3-512==YWJj|YWJj|YWJj") == scram.parse(MULTI)


def test_new_keys_have_three_hashes_and_salts_of_their_own():
    first, second = scram.derive_all("sesame"), scram.derive_all("sesame")
    assert list(first) == ["sha1", "sha256", "sha512"]
    salts = {keys.salt for keys in (*first.values(), *second.values())}
    assert len(salts) == 6
    assert {len(salt) for salt in salts} == {16}
    assert all(scram.verify_password("sesame", keys) for keys in first.values())
    assert scram.parse(scram.format_multi(first)) == first


@pytest.mark.parametrize(
    ("name", "mechanism"), [("sha1", "SCRAM-SHA-1"), ("sha256", "SCRAM-SHA-256"), ("sha512", "SCRAM-SHA-512")]
)
def test_a_client_that_we_did_not_write_can_log_in_with_the_keys(name, mechanism):
    keys = scram.derive("pass wörd", name, iterations=5000)
    client = scramp.ScramClient([mechanism], "alice", "pass wörd")
    server = scramp.ScramMechanism(mechanism).make_server(
        lambda user: (keys.salt, keys.stored_key, keys.server_key, keys.iterations)
    )
    server.set_client_first(client.get_client_first())
    client.set_server_first(server.get_server_first())
    server.set_client_final(client.get_client_final())
    client.set_server_final(server.get_server_final())


def test_iterations_are_used():
    keys = scram.derive("sesame", "sha256", iterations=1234, salt=b"salt")
    salted = hashlib.pbkdf2_hmac("sha256", b"sesame", b"salt", 1234)
    assert keys.server_key == hmac.digest(salted, b"Server Key", "sha256")


def test_sha1_is_checked_first():
    """Other hashes of some MongooseIM versions are wrong."""
    credentials = scram.parse(MULTI)
    assert scram.checking_keys(credentials).hash_name == "sha1"
    del credentials["sha1"]
    assert scram.checking_keys(credentials).hash_name == "sha256"
    with pytest.raises(InvalidScram):
        scram.checking_keys({})


@pytest.mark.parametrize(
    ("password", "prepared"),
    [("plain", "plain"), ("I\u00adX", "IX"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b"), ("Ä", "Ä")],
)
def test_passwords_are_prepared_by_saslprep(password, prepared):
    assert scram.prepare_password(password) == prepared
    assert scram.verify_password(prepared, scram.derive(password, "sha1"))


@pytest.mark.parametrize(
    "password", ["", "\u0007", "\u0627\u0031", "\u00ad", "\U0001f600", "\ud800", "x" * 1024, "ä" * 512]
)
def test_what_cannot_be_a_password_is_refused(password):
    with pytest.raises(InvalidPassword) as caught:
        scram.prepare_password(password)
    assert not password or password not in str(caught.value)
    assert not scram.verify_password(password, scram.derive("other", "sha1"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "==SCRAM==",
        "==SCRAM==,",
        SINGLE + ",more",
        SINGLE.replace("4096", "0"),
        SINGLE.replace("4096", "-1"),
        SINGLE.replace("4096", "4096.0"),
        SINGLE.replace("4096", "1000001"),
        SINGLE.replace("4096", "9" * 5000),
        SINGLE.replace("4096", "\u0664"),
        SINGLE.replace("tmi5", "????"),
        SINGLE.replace("tmi5IE+9pceRV/jkPLFHEaVY33c=", "dG9vIHNob3J0"),
        SINGLE.replace("inKXODlSY5y5SCsLxibi0w==", ""),
        "==MULTI_SCRAM==,",
        "==MULTI_SCRAM==,4096",
        "==MULTI_SCRAM==,4096,",
        "==MULTI_SCRAM==,4096,==SHA3-512==YQ==|YQ==|YQ==",
        "==MULTI_SCRAM==,4096,===SHA1===YQ==|YQ==",
        MULTI + "," + MULTI.split(",")[2],
        MULTI.replace("==SHA512==", "SHA512"),
    ],
)
def test_what_is_no_stored_credentials_is_refused_without_being_quoted(text):
    with pytest.raises(InvalidScram) as caught:
        scram.parse(text)
    assert "tmi5" not in str(caught.value)


def test_passwords_and_credentials_are_told_apart():
    assert scram.is_scram(SINGLE)
    assert scram.is_scram(MULTI)
    assert not scram.is_scram("secret")
    assert not scram.is_scram("==SCRAM==")


def test_keys_do_not_show_in_messages():
    assert "tmi5" not in repr(scram.parse(SINGLE)["sha1"])
    assert repr(scram.parse(SINGLE)["sha1"].stored_key) not in repr(scram.parse(SINGLE))


def test_forms_refuse_what_they_cannot_hold():
    with pytest.raises(InvalidScram):
        scram.format_single(scram.derive("sesame", "sha256"))
    with pytest.raises(InvalidScram):
        scram.format_multi({})
    with pytest.raises(InvalidScram):
        scram.format_multi({"sha1": scram.derive("s", "sha1"), "sha256": scram.derive("s", "sha256", iterations=5000)})


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    for start in ("", scram.SINGLE_PREFIX, scram.MULTI_PREFIX, scram.MULTI_PREFIX + "4096,===SHA1==="):
        try:
            credentials = scram.parse(start + text)
        except InvalidScram:
            continue
        assert credentials


@settings(max_examples=20)
@given(st.binary(min_size=1, max_size=64), st.integers(1, 50))
def test_what_is_written_is_read_again(salt, iterations):
    keys = {name: scram.derive("sesame", name, iterations=iterations, salt=salt) for name in scram.HASHES}
    assert scram.parse(scram.format_multi(keys)) == keys
    assert scram.parse(scram.format_single(keys["sha1"])) == {"sha1": keys["sha1"]}


def test_keys_compare_by_value():
    assert ScramKeys("sha1", b"s", 1, b"a", b"b") == ScramKeys("sha1", b"s", 1, b"a", b"b")

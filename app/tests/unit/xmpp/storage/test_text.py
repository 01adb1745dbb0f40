from __future__ import annotations

import pytest

from monktalk.xmpp.storage.text import MAX_KEY_BYTES, check_key, check_text


def test_text_of_all_planes_is_accepted() -> None:
    check_text("", "alice", "ä", "☃", "😀", "\ufffd", "\x01")


@pytest.mark.parametrize("bad", ["\0", "a\0b", "ä\0"])
def test_nul_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"NUL character \(U\+0000\) cannot be stored"):
        check_text("good", bad)


@pytest.mark.parametrize("bad", ["\ud800", "a\udfff", "\ude00\ud83d"])
def test_surrogates_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="lone surrogate cannot be stored"):
        check_text("good", bad)


@pytest.mark.parametrize("character", ["a", "ä", "☃", "😀"])
def test_the_length_of_a_key_counts_bytes_of_all_its_parts(character: str) -> None:
    longest = MAX_KEY_BYTES // len(character.encode())
    check_key("", character * (longest - 1), character)
    with pytest.raises(ValueError, match=f"{MAX_KEY_BYTES} is the limit"):
        check_key(character, character * (longest - 1), character)


def test_the_text_itself_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="cannot be stored") as caught:
        check_text("secret\0")
    assert "secret" not in str(caught.value)

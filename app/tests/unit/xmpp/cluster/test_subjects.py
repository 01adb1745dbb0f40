"""The names of the subjects."""

from __future__ import annotations

import pytest

from monktalk.xmpp.cluster.subjects import Subjects, token


def test_all_begin_with_the_name_of_the_cluster():
    subjects = Subjects("verona")
    names = [
        subjects.everybody,
        subjects.beats,
        subjects.worker("one"),
        subjects.user("example.org", "juliet"),
        subjects.answers("one"),
        subjects.returns("one"),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith(b"verona.") for name in names)


@pytest.mark.parametrize("user", ["juliet", "Дж ульетта.*>", "a" * 1023, ""])
def test_a_user_s_name_becomes_one_short_token(user):
    subject = Subjects("verona").user("example.org", user)
    assert subject.count(b".") == 2
    assert len(subject) < 64
    assert token(subject.rpartition(b".")[2].decode())


def test_host_and_user_are_kept_apart():
    subjects = Subjects("verona")
    assert subjects.user("a.example", "b") != subjects.user("a.exampleb", "")
    assert subjects.user("one.example", "juliet") != subjects.user("two.example", "juliet")


@pytest.mark.parametrize("name", ["", "two words", "a.b", "*", ">", "müller"])
def test_what_can_not_be_part_of_a_subject_is_refused(name):
    with pytest.raises(ValueError, match="letters, digits"):
        Subjects(name)

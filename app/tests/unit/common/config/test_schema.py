from __future__ import annotations

import pytest

from monktalk.common.config import Kind, Option, Schema, Section

PORT = Option("port", Kind.INTEGER)


def test_sections_are_found_by_path():
    limits = Section(("limits",), "Limits.", (PORT,))
    schema = Schema([limits])
    assert schema.section(("limits",)) is limits
    assert schema.section(("limit",)) is None
    assert not schema.has_hosts


def test_tables_are_those_that_lead_to_a_section():
    schema = Schema([Section(("listen", "c2s"), "C2S.", (PORT,)), Section(("listen", "s2s"), "S2S.")])
    assert schema.tables(()) == {"listen"}
    assert schema.tables(("listen",)) == {"c2s", "s2s"}
    assert schema.tables(("listen", "c2s")) == frozenset()


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ([Section(("a",), "A."), Section(("a",), "B.")], "two sections"),
        ([Section(("a",), "A.", (PORT,)), Section(("a", "port"), "B.")], "both an option and a section"),
        ([Section(("host", "a"), "A.")], "is for what hosts override"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(sections, reason):
    with pytest.raises(ValueError, match=reason):
        Schema(sections)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"options": (PORT, PORT)}, "same name"),
        (
            {"options": (Option("key", Kind.STRING, secret=True), Option("key_file", Kind.PATH))},
            "same name",
        ),
        ({"multiple": True, "per_host": True}, "cannot be"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Section(("a",), "A.", **arguments)

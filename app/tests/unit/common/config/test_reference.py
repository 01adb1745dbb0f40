from __future__ import annotations

from monktalk.common.config import Kind, Option, Schema, Section, reference

SCHEMA = Schema(
    [
        Section((), "What it serves.", (Option("hosts", Kind.DOMAINS, doc="The hosts.", minimum=1),)),
        Section(
            ("limits",),
            "Limits.",
            (
                Option(
                    "size",
                    Kind.SIZE,
                    "256 KiB",
                    "Largest stanza,\n  in bytes.",
                    minimum="10 KiB",
                    maximum="1 MiB",
                ),
                Option("format", Kind.CHOICE, "a", "One | other.", choices=("a", "b")),
                Option("names", Kind.STRINGS, ("x", "y"), restart=True),
                Option("check", Kind.BOOLEAN, True),
                Option("password", Kind.STRING, None, "The password.", secret=True),
            ),
        ),
        Section(("listen", "c2s"), "Listeners.", (Option("port", Kind.INTEGER, 5222),), multiple=True),
        Section(("modules", "roster"), "Roster.", per_host=True, optional=True),
    ]
)


def test_every_option_is_in_the_reference_with_kind_default_and_bounds():
    page = reference(SCHEMA)
    assert "| `hosts` | list of domains, at least 1 item | **required** | The hosts. |" in page
    assert '| `size` | size, at least 10 KiB, at most 1 MiB | `"256 KiB"` | Largest stanza, in bytes. |' in page
    assert '| `format` | one of `a`, `b` | `"a"` | One \\| other. |' in page
    assert '| `names` | list of texts | `["x", "y"]` | Takes effect at the next start. |' in page
    assert "| `check` | true or false | `true` |  |" in page
    assert "| `password` | text | not set | The password. Secret. |" in page


def test_every_section_has_a_heading_and_its_notes():
    page = reference(SCHEMA)
    assert "## Top of the file\n\nWhat it serves.\n" in page
    assert "## `[limits]`\n\nLimits.\n" in page
    assert "## `[[listen.c2s]]`\n\nListeners.\n\n*May be repeated.*\n" in page
    assert "## `[modules.roster]`\n\nRoster.\n\n*Per host, optional.*\n" in page

from __future__ import annotations

import pytest

from monktalk.common.config import Kind, Option, Schema, Section
from monktalk.common.config.__main__ import main, page


def schema() -> Schema:
    return Schema([Section(("limits",), "Limits.", (Option("idle", Kind.DURATION, "5 min", "When to close."),))])


def nothing() -> None:
    """Returns no schema."""


def test_the_page_has_a_title_and_every_option(capsys):
    assert main([f"{__name__}:schema"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# Configuration\n")
    assert '| `idle` | duration | `"5 min"` | When to close. |' in printed


def test_a_wrong_call_says_how_it_goes(capsys):
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "reason"), [("x", "is not of the form"), (f"{__name__}:nothing", "no configuration")])
def test_a_name_that_is_no_schema_is_refused(name, reason):
    with pytest.raises(ValueError, match=reason):
        page(name)

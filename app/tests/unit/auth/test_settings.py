from __future__ import annotations

from pathlib import Path

from monktalk.common.config.__main__ import page

ROOT = Path(__file__).parents[4]


def test_the_reference_of_the_configuration_is_up_to_date():
    """Write it anew with: python -m monktalk.common.config monktalk.auth.settings:schema > docs/reference/auth-service.md."""
    written = (ROOT / "docs/reference/auth-service.md").read_text("utf-8")
    assert written == page("monktalk.auth.settings:schema")

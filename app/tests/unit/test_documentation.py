"""The documentation says what the code does: generated pages are up to date, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monktalk.common.config.__main__ import page

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/README.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_the_reference_of_the_configuration_is_up_to_date():
    written = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    assert written == page("monktalk.xmpp.configuration:schema"), "run `make docs`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path):
    targets = [target.partition("#")[0] for target in LINK.findall(path.read_text("utf-8"))]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_every_decision_is_listed():
    index = (ROOT / "docs/index.md").read_text("utf-8")
    decisions = sorted(path.name for path in ROOT.glob("docs/adr/*.md"))
    assert decisions
    assert [name for name in decisions if f"adr/{name}" not in index] == []

"""The variables of an embedded run on free ports, in a directory of its own."""

from __future__ import annotations

import pytest

from tests.support.stack import free_port


@pytest.fixture
def variables(tmp_path) -> dict[str, str]:
    return {
        "MONKTALK_DATA_DIR": str(tmp_path / "var"),
        "MONKTALK_PORT_XMPP": "0",
        "MONKTALK_PORT_AUTH": str(free_port()),
    }

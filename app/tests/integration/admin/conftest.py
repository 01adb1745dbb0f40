"""A server, and mongooseimctl for it."""

from __future__ import annotations

import pytest

from tests.support.ctl import Ctl


@pytest.fixture
def ctl(server) -> Ctl:
    return Ctl(server.program.config)

from __future__ import annotations

import pytest_asyncio

from tests.unit.xmpp.core.auth.service import running


@pytest_asyncio.fixture
async def service():
    async with running() as service:
        yield service

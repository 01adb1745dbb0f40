"""The tests of the cluster run on the event loop of production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of the server."""
    return {"uvloop": uvloop.new_event_loop}

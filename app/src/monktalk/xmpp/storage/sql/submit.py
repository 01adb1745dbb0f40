"""How the stores hand work to the threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.sql.writer import Applier

R = TypeVar("R")


class SubmitWrite(Protocol):
    """`Writer.submit`."""

    def __call__(self, applier: Applier, request: Any, size: int = 0, /) -> asyncio.Future[Any]:
        """Queue a write; the future resolves when it is durable, or is refused already when it is returned."""
        ...


class SubmitRead(Protocol):
    """`ReaderPool.submit`."""

    def __call__(self, work: Callable[[Connection], R], /) -> asyncio.Future[R]:
        """Queue a read; the future resolves to what `work` returns, or is refused already."""
        ...

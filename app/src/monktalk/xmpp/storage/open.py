"""Chooses the back end of the storage by its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monktalk.xmpp.storage.interfaces import Storage

MEMORY = "memory:"


def open_storage(url: str, *, patience: float = 0.0) -> Storage:
    """A storage that has not been started.

    Args:
        url: ``memory:`` keeps nothing, all else is a database's address.
        patience: seconds for which operations wait while the database is away.

    Raises DatabaseURLError (a ValueError) for an address that can't be used.
    """
    if url == MEMORY:
        from monktalk.xmpp.storage.memory import MemoryStorage  # noqa: PLC0415 - only the chosen back end is loaded

        return MemoryStorage()
    from monktalk.xmpp.storage.sql.storage import SqlStorage  # noqa: PLC0415 - see above

    return SqlStorage(url, patience=patience)

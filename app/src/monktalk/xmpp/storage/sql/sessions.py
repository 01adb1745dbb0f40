"""Sessions in SQL, as the event loop sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, select

from monktalk.db.query import Query
from monktalk.db.schema import sessions
from monktalk.xmpp.storage.sql.requests import Adopt, Close, Open, Progress
from monktalk.xmpp.storage.text import check_key, check_text

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy import Connection

    from monktalk.xmpp.storage.interfaces import Adopted
    from monktalk.xmpp.storage.sql.messages import MessagesApplier
    from monktalk.xmpp.storage.sql.submit import SubmitRead, SubmitWrite

_OTHERS = Query(
    select(sessions.c.id)
    .where(
        sessions.c.host == bindparam("p_host"),
        sessions.c.username == bindparam("p_user"),
        sessions.c.owner != bindparam("p_owner"),
    )
    .limit(1)
)
_OWNERS = select(sessions.c.owner, func.count()).group_by(sessions.c.owner)


class SqlSessions:
    """A `SessionStore` on SQL."""

    def __init__(self, write: SubmitWrite, read: SubmitRead, applier: MessagesApplier) -> None:
        self._write = write
        self._read = read
        self._applier = applier

    def open(  # noqa: PLR0917 - the signature of the interface
        self, token: str, host: str, user: str, resource: str, owner: str, resumable: bool, state: bytes
    ) -> asyncio.Future[int]:
        """See `SessionStore.open`."""
        check_key(host, user)
        check_key(token, owner)
        check_text(resource)
        request = Open(token, (host, user), resource, owner, resumable, bytes(state))
        return self._write(self._applier, request, len(state))

    def update(self, id: int, state: bytes, *, resumable: bool | None = None) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.update`."""
        return self._write(self._applier, Progress(id, state=bytes(state), resumable=resumable), len(state))

    def handled(self, id: int, count: int) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.handled`."""
        return self._write(self._applier, Progress(id, handled=count))

    def acknowledged(self, id: int, count: int) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.acknowledged`."""
        return self._write(self._applier, Progress(id, acknowledged=count))

    def close(self, id: int) -> asyncio.Future[bool]:  # noqa: A002
        """See `SessionStore.close`."""
        return self._write(self._applier, Close(id))

    async def adopt(self, host: str, user: str, owner: str) -> list[Adopted]:
        """See `SessionStore.adopt`."""
        check_text(host, user)
        check_key(owner)
        # Whoever logs in asks, and hardly anybody has left something: no transaction that others wait for.
        where = {"p_host": host, "p_user": user, "p_owner": owner}
        if not self._applier.has_lost and not await self._read(lambda connection: _OTHERS.rows(connection, where)):
            return []
        return await self._adopt(Adopt(owner, (host, user)))

    async def adopt_from(self, dead_owner: str, owner: str, limit: int) -> list[Adopted]:
        """See `SessionStore.adopt_from`."""
        check_text(dead_owner)
        check_key(owner)
        return await self._adopt(Adopt(owner, dead_owner=dead_owner, limit=limit))

    async def owners(self) -> dict[str, int]:
        """See `SessionStore.owners`."""

        def work(connection: Connection) -> dict[str, int]:
            return {owner: int(number) for owner, number in connection.execute(_OWNERS)}

        return await self._read(work)

    async def _adopt(self, request: Adopt) -> list[Adopted]:
        adopted: list[Adopted] = await self._write(self._applier, request)
        return adopted

"""Sessions and messages for the tests of the message and session stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monktalk.xmpp.storage.interfaces import Adopted, Delivered, Storage

HOST = "example.org"


async def opened(storage: Storage, token: str = "token", *, user: str = "bob", owner: str = "worker-1") -> int:
    """A new session."""
    return await storage.sessions.open(token, HOST, user, "phone", owner, True, b"state")


async def delivered(
    storage: Storage, body: str, *sessions: tuple[int, int], number: int, user: str = "bob", origin: str = "alice's"
) -> Delivered:
    """A message stored for sessions."""
    return await storage.offline.deliver(HOST, user, body.encode(), 1.0, sessions, origin, number)


async def waiting(storage: Storage, user: str = "bob") -> list[str]:
    """What the mailbox holds."""
    return [message.stanza.decode() for message in await storage.offline.load(HOST, user, 1000)]


def contents(session: Adopted) -> list[tuple[int, str]]:
    """What an adopted session has for its client."""
    return [(message.out_seq, message.stanza.decode()) for message in session.messages]


async def left(storage: Storage, user: str = "bob", owner: str = "the next one") -> dict[str, list[tuple[int, str]]]:
    """What the sessions of a user have for their clients, by token; they are superseded then."""
    return {session.token: contents(session) for session in await storage.sessions.adopt(HOST, user, owner)}

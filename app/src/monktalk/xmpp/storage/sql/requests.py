"""What the stores of messages and sessions ask the writer to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement

    from monktalk.xmpp.storage.interfaces import Move

Mailbox = tuple[str, str]
"""Host and user."""

Source = tuple[str, int]
"""Origin and number of a message."""


class Request:
    """A write. `batched`: those of a group are carried out together, before those that are not."""

    __slots__ = ()
    batched: ClassVar[bool] = False

    def sessions_named(self) -> Iterable[int]:
        """Ids of the sessions that must not be superseded."""
        return ()


@dataclass(slots=True, eq=False)
class Append(Request):
    """Store one message, if the mailbox holds less than `limit`."""

    batched = True

    mailbox: Mailbox
    stanza: bytes
    stamp: float
    expires: float | None
    limit: int
    source: Source | None = None

    def rows(self) -> list[tuple[Any, ...]]:
        """What is inserted."""
        origin, number = self.source or (None, None)
        return [(*self.mailbox, self.stanza, self.stamp, self.expires, None, None, origin, number, 0)]


@dataclass(slots=True, eq=False)
class Deliver(Request):
    """Store one message for each of some sessions."""

    batched = True

    mailbox: Mailbox
    stanza: bytes
    stamp: float
    expires: float | None
    sessions: Sequence[tuple[int, int]]
    source: Source

    def sessions_named(self) -> Iterable[int]:
        """See `Request`."""
        return [session for session, _ in self.sessions]

    def rows(self) -> list[tuple[Any, ...]]:
        """What is inserted."""
        return [
            (*self.mailbox, self.stanza, self.stamp, self.expires, session, out_seq, *self.source, part)
            for part, (session, out_seq) in enumerate(self.sessions)
        ]


@dataclass(slots=True, eq=False)
class Open(Request):
    """Write a session down."""

    batched = True

    token: str
    mailbox: Mailbox
    resource: str
    owner: str
    resumable: bool
    state: bytes


@dataclass(slots=True, eq=False)
class Progress(Request):
    """Change a session; what is None stays."""

    batched = True

    id: int
    handled: int | None = None
    acknowledged: int | None = None
    state: bytes | None = None
    resumable: bool | None = None

    def sessions_named(self) -> Iterable[int]:
        """See `Request`."""
        return (self.id,)


@dataclass(slots=True, eq=False)
class Close(Request):
    """Forget a session. `repeated`: an earlier attempt may have done it."""

    id: int
    repeated: bool = False

    def sessions_named(self) -> Iterable[int]:
        """See `Request`."""
        return (self.id,)


@dataclass(slots=True, eq=False)
class Assign(Request):
    """Give what waits in a mailbox to a session."""

    mailbox: Mailbox
    ids: tuple[int, ...]
    session: int
    first_out_seq: int

    def sessions_named(self) -> Iterable[int]:
        """See `Request`."""
        return (self.session,)


@dataclass(slots=True, eq=False)
class Reassign(Request):
    """Give messages of a session to others.

    `repeated`: an earlier attempt may have done it; `placed` is what it did: ids of rows, and where they went.
    """

    mailbox: Mailbox
    session: int
    moves: Sequence[Move]
    close: bool
    repeated: bool = False
    placed: list[tuple[int, int | None, int]] = field(default_factory=list)

    def sessions_named(self) -> Iterable[int]:
        """See `Request`."""
        return {self.session, *(session for _, session, _ in self.moves if session is not None)}


@dataclass(slots=True, eq=False)
class Renumber(Request):
    """Number what the client of a session has not had anew."""

    session: int
    delivered_up_to: int

    def sessions_named(self) -> Iterable[int]:
        """See `Request`."""
        return (self.session,)


@dataclass(slots=True, eq=False)
class Remove(Request):
    """Delete the messages that meet a condition, of one mailbox or (None) of any.

    With `given`, those given to sessions go too; the outcome is the number of the others.
    """

    condition: ColumnElement[bool]
    mailbox: Mailbox | None
    given: bool = False


@dataclass(slots=True, eq=False)
class Forget(Request):
    """Delete at most `limit` delivered messages that arrived before a time."""

    before: float
    limit: int


@dataclass(slots=True, eq=False)
class Adopt(Request):
    """Take over the sessions of a user (all of them) or of an owner (at most `limit`)."""

    owner: str
    mailbox: Mailbox | None = None
    dead_owner: str = ""
    limit: int = 0

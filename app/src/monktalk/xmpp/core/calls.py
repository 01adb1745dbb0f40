"""What a worker has others do, and what they answer: administration that reaches sessions wherever they are.

A worker offers operations by name; another one calls them at one worker, at the home of a user, or everywhere. Arguments
and answers are what msgpack can hold. A call that is not answered in time has perhaps been carried out all the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgpack

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monktalk.xmpp.cluster.bus import Peer
    from monktalk.xmpp.core.server import Server

log = get_logger(__name__)

KINDS: Final = range(40, 42)
CALL, ANSWER = KINDS
"""Kinds of frames: do this (to a worker or to a user's home), and a part of the answer."""

CALL_SECONDS: Final = 5.0
"""How long an answer may take, unless the caller says something else."""

RETRY_SECONDS: Final = 0.25
"""How long to wait before looking for a user's home again."""

MAX_ARGUMENTS: Final = 512 * 1024
"""Bytes of the arguments of a call."""

MAX_ANSWER: Final = 32 * 1024 * 1024
"""Bytes of an answer."""

PART: Final = 256 * 1024
"""Bytes of an answer in one frame."""

MAX_RUNNING: Final = 256
"""Calls of others that are carried out at once."""

Operation = Callable[..., Awaitable[Any]]
"""``operation(*arguments)``; sequences among the arguments and in answers may come as lists or as tuples."""

_DONE, _RAISED, _REFUSED = 0, 1, 2
_CARRIED: Final = {
    kind.__name__: kind for kind in (AccountExists, AccountMissing, AuthUnavailable, NotAllowed, StorageUnavailable)
}
"""Exceptions that a caller gets as they were raised."""


class CallFailed(Exception):
    """An operation could not be carried out by another worker; the message is a sentence."""


class NoAnswer(CallFailed):
    """Nobody has answered in time: whether the operation was carried out is unknown."""


@dataclass
class Replies:
    """What came of a call to several workers: answers by worker, and why there is none."""

    answers: list[tuple[Peer, Any]] = field(default_factory=list)
    failures: list[tuple[Peer, str]] = field(default_factory=list)

    def values(self) -> list[Any]:
        """The answers."""
        return [answer for _, answer in self.answers]


@dataclass
class _Pending:
    """A call that waits for its answer. The worker is not known when it is for a user's home."""

    worker: str | None
    answered: asyncio.Future[bytes]
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class Calls:
    """The calls of this worker, and those of others to it. A server that is alone calls itself."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._bus = server.bus
        self._operations: dict[str, Operation] = {}
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._running = 0

    def offer(self, name: str, operation: Operation) -> None:
        """Have ``operation`` carried out when it is called by that name, here or by another worker."""
        self._operations[name] = operation

    # -- calling -------------------------------------------------------------------------------------------------

    async def at_home(self, host: str, user: str, name: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        """Have the home of a user do it, or this worker when he has none.

        Raises :class:`CallFailed`, and what the operation raises of the exceptions of accounts and storage.
        """
        if self._bus.is_home(host, user):
            return await self._operations[name](*arguments)
        packed = _pack_arguments(arguments)
        try:
            async with asyncio.timeout(seconds):
                answer = await self._find_home(host, user, name, packed)
        except TimeoutError:
            raise NoAnswer(
                f"The worker that {user}@{host} is connected to has not answered within {seconds:g} s."
            ) from None
        return await self._operations[name](*arguments) if answer is None else _open(answer)

    async def _find_home(self, host: str, user: str, name: str, packed: bytes) -> bytes | None:
        """The answer of a user's home, None when that is here or nowhere. Asks again while nobody knows where it is."""
        while True:
            number, pending = self._begin(None)
            self._bus.to_user(host, user, CALL, (self._bus.worker, number, name, packed))
            try:
                return await self._answer(number, pending)
            except _Homeless:
                return None
            except _Unknown:
                # His worker is perhaps dead, and another one is about to adopt his sessions.
                await asyncio.sleep(RETRY_SECONDS)
                if self._bus.is_home(host, user):
                    return None

    async def at(self, peer: Peer, name: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        """Have a worker do it. Raises as :meth:`at_home`."""
        if peer.name == self._bus.worker:
            return await self._operations[name](*arguments)
        packed = _pack_arguments(arguments)
        number, pending = self._begin(peer.name)
        self._bus.send(peer.name, CALL, number, name, packed)
        try:
            async with asyncio.timeout(seconds):
                answer = await self._answer(number, pending)
        except TimeoutError:
            raise NoAnswer(f"{describe(peer)} has not answered within {seconds:g} s.") from None
        except _Gone:
            raise NoAnswer(f"{describe(peer)} has ended, or can't be reached any more.") from None
        return _open(answer)

    async def everywhere(
        self, name: str, *arguments: Any, peers: Sequence[Peer] | None = None, seconds: float = CALL_SECONDS
    ) -> Replies:
        """Have all workers do it at once, or those that are named.

        Those that have vanished without a good-bye count as not answering. What an operation raises is among the failures.
        """
        wanted = self._bus.peers() if peers is None else peers
        outcomes = await asyncio.gather(
            *(self.at(peer, name, *arguments, seconds=seconds) for peer in wanted), return_exceptions=True
        )
        replies = Replies()
        for peer, outcome in zip(wanted, outcomes, strict=True):
            if not isinstance(outcome, BaseException):
                replies.answers.append((peer, outcome))
            elif isinstance(outcome, Exception):
                replies.failures.append((peer, _sentence(name, outcome)))
            else:
                raise outcome
        if peers is None:
            replies.failures += [(peer, f"{describe(peer)} does not answer any more.") for peer in self._bus.missing()]
        return replies

    def _begin(self, worker: str | None) -> tuple[int, _Pending]:
        number = next(self._numbers)
        pending = self._pending[number] = _Pending(worker, asyncio.get_running_loop().create_future())
        return number, pending

    async def _answer(self, number: int, pending: _Pending) -> bytes:
        try:
            return await pending.answered
        finally:
            self._pending.pop(number, None)

    # -- frames --------------------------------------------------------------------------------------------------

    def frame(self, worker: str, kind: int, fields: tuple[Any, ...]) -> None:
        """A frame of another worker for this one."""
        if kind == CALL:
            number, name, packed = fields[:3]
            self._carry_out(worker, number, name, packed)
        else:
            number, last, part = fields[:3]
            self._answered(number, part, last=last)

    def home_frame(self, fields: tuple[Any, ...]) -> None:
        """A call to the home of a user, which is here."""
        worker, number, name, packed = fields[:4]
        self._carry_out(worker, number, name, packed)

    def homeless(self, fields: tuple[Any, ...], *, certain: bool) -> None:
        """A call of this worker has found no home; unless that is ``certain``, there may be one that does not answer."""
        pending = self._pending.get(fields[1])
        if pending is not None and not pending.answered.done():
            pending.answered.set_exception(_Homeless() if certain else _Unknown())

    def worker_gone(self, worker: str) -> None:
        """A worker is gone: it will not answer."""
        for pending in self._pending.values():
            if pending.worker == worker and not pending.answered.done():
                pending.answered.set_exception(_Gone())

    def _answered(self, number: int, part: bytes, *, last: bool) -> None:
        pending = self._pending.get(number)
        if pending is None or pending.answered.done():
            return
        pending.parts.append(part)
        pending.size += len(part)
        if pending.size > MAX_ANSWER + PART:
            pending.answered.set_exception(CallFailed(f"an answer is larger than {MAX_ANSWER} bytes"))
        elif last:
            pending.answered.set_result(b"".join(pending.parts))

    # -- carrying out --------------------------------------------------------------------------------------------

    def _carry_out(self, worker: str, number: int, name: str, packed: bytes) -> None:
        operation = self._operations.get(name)
        if operation is None:
            self._reply(worker, number, _REFUSED, "", f"{name} is not known to that worker: is it of an older release?")
        elif self._running >= MAX_RUNNING:
            self._reply(worker, number, _REFUSED, "", "that worker has too much to do for others, try again")
        else:
            self._running += 1
            _ = self._server.spawn(self._run(worker, number, name, operation, packed))

    async def _run(self, worker: str, number: int, name: str, operation: Operation, packed: bytes) -> None:
        try:
            answer = await operation(*_unpack(packed))
            self._reply(worker, number, _DONE, answer)
        except tuple(_CARRIED.values()) as error:
            self._reply(worker, number, _RAISED, type(error).__name__, str(error))
        except CallFailed as error:
            self._reply(worker, number, _REFUSED, "", str(error))
        except Exception:
            log.exception("call_failed", call=name, worker=worker)
            self._reply(worker, number, _REFUSED, "", f"{name} failed: the log of that worker says why")
        finally:
            self._running -= 1

    def _reply(self, worker: str, number: int, *outcome: Any) -> None:
        packed = _pack(outcome)
        if len(packed) > MAX_ANSWER:
            packed = _pack((_REFUSED, "", f"the answer would have more than {MAX_ANSWER} bytes"))
        for begin in range(0, len(packed), PART):
            part, last = packed[begin : begin + PART], begin + PART >= len(packed)
            if worker == self._bus.worker:
                self._answered(number, part, last=last)
            else:
                self._bus.send(worker, ANSWER, number, last, part)


class _Homeless(Exception):
    """The user has no home."""


class _Unknown(Exception):
    """Whether the user has a home is not known."""


class _Gone(Exception):
    """The worker is gone."""


def describe(peer: Peer) -> str:
    """A worker in a sentence for operators; the only one of its node has the number 0."""
    node = f"mongooseim@{peer.node}"
    return f"Worker {peer.number} of {node}" if peer.number else f"The node {node}"


def _sentence(name: str, error: Exception) -> str:
    if isinstance(error, (CallFailed, *_CARRIED.values())):
        return str(error)
    try:
        raise error
    except Exception:
        log.exception("call_failed", call=name)
    return f"{name} failed: the log says why"


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, use_list=False)


def _pack_arguments(arguments: Sequence[Any]) -> bytes:
    packed = _pack(arguments)
    if len(packed) > MAX_ARGUMENTS:
        raise CallFailed(f"Another worker has to do this, and can be sent {MAX_ARGUMENTS} bytes for it at most.")
    return packed


def _open(answer: bytes) -> Any:
    """The value of an answer. Raises what it says."""
    outcome, *rest = _unpack(answer)
    if outcome == _DONE:
        return rest[0]
    name, reason = rest
    raise _CARRIED.get(name, CallFailed)(reason)

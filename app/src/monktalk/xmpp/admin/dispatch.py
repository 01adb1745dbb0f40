"""Where commands are carried out: here, at the home of a user, by a whole node, or everywhere (see :class:`Scope`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.config import ConfigError
from monktalk.common.jid import InvalidJID
from monktalk.common.logging import get_logger
from monktalk.xmpp.admin.context import Context, Node
from monktalk.xmpp.admin.registry import ERROR, USAGE, CommandError, Result, Scope, Table, UsageError, find, render
from monktalk.xmpp.core.auth.errors import AccountExists, AccountMissing, AuthUnavailable, NotAllowed
from monktalk.xmpp.core.calls import CallFailed
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monktalk.xmpp.admin.registry import Command
    from monktalk.xmpp.cluster.bus import Peer
    from monktalk.xmpp.core.calls import Replies

log = get_logger(__name__)

_COMMAND: Final = "command"
_VALUE, _TABLE, _RESULT, _ERROR = "value", "table", "result", "error"


class Dispatcher:
    """Carries out the commands of this worker, and those that other workers pass on to it."""

    def __init__(self, node: Node, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._context = Context(node, Path("/"))
        node.server.calls.offer(_COMMAND, self._serve)

    async def run(self, name: str, arguments: Sequence[str], context: Context) -> Result:
        """Carry out a command. Raises :class:`CommandError`, and what else the handler does not expect."""
        entry = find(self._commands, name, arguments)
        bus = context.server.bus
        scope = Scope.HERE if bus.alone else entry.scope(arguments)
        if scope is Scope.HERE:
            return render(await entry.handler(context, *arguments))
        if scope is Scope.HOME:
            return await self._at_home(name, arguments, context)
        peers = None if scope is Scope.EVERYWHERE else context.workers()
        calls = context.server.calls
        return _merged(await calls.everywhere(_COMMAND, name, list(arguments), peers=peers), bus.worker)

    async def _at_home(self, name: str, arguments: Sequence[str], context: Context) -> Result:
        host, user = context.account(*arguments[:2])
        answer = await context.server.calls.at_home(host.domain, user, _COMMAND, name, list(arguments))
        return render(_read(answer))

    async def _serve(self, name: str, arguments: Sequence[str]) -> dict[str, Any]:
        """Carry a command out for another worker. What goes wrong is part of the answer."""
        try:
            outcome = await find(self._commands, name, arguments).handler(self._context, *arguments)
        except CommandError as error:
            return {"kind": _ERROR, "code": error.code, "reason": str(error)}
        except Exception as error:
            reason = explain(error)
            if reason is None:
                log.exception("control_failed", command=name)
                reason = f"{name} failed: the log of {self._context.node_name} says why."
            return {"kind": _ERROR, "code": ERROR, "reason": reason}
        return _write(outcome)


def _write(outcome: Any) -> dict[str, Any]:
    """What a handler has returned, as data for another worker."""
    if isinstance(outcome, Table):
        return {"kind": _TABLE, "columns": outcome.columns, "rows": list(outcome.rows)}
    if isinstance(outcome, Result):
        return {"kind": _RESULT, "text": outcome.text, "data": outcome.data, "code": outcome.code}
    return {"kind": _VALUE, "value": outcome}


def _read(answer: Mapping[str, Any]) -> Any:
    """Undo :func:`_write`. Raises :class:`CommandError` for a refusal."""
    kind = answer["kind"]
    if kind == _ERROR:
        raise (UsageError if answer["code"] == USAGE else CommandError)(answer["reason"])
    if kind == _TABLE:
        return Table(tuple(answer["columns"]), [tuple(row) for row in answer["rows"]])
    if kind == _RESULT:
        return Result(answer["text"], answer["data"], answer["code"])
    value = answer["value"]
    return list(value) if isinstance(value, tuple) else value


def _merged(replies: Replies, own: str) -> Result:
    """One answer made of those of several workers; who has not answered is named."""
    outcomes: list[Any] = []
    warnings = [reason for _, reason in replies.failures]
    for peer, answer in sorted(replies.answers, key=lambda reply: reply[0].name != own):
        try:
            outcomes.append(_read(answer))
        except CommandError as error:
            if not outcomes:
                raise
            warnings.append(f"{_name(peer)} refuses: {error}")
    if not outcomes:
        raise CommandError("\n".join(warnings))
    result = render(_sum(outcomes))
    return Result(result.text, result.data, ERROR if warnings else result.code, warnings)


def _sum(outcomes: Sequence[Any]) -> Any:
    """Numbers are added, lists and tables put together; of everything else the first one counts."""
    first = outcomes[0]
    if isinstance(first, Table):
        return Table(first.columns, [row for table in outcomes for row in table.rows])
    if isinstance(first, list):
        return [entry for found in outcomes for entry in found]
    if isinstance(first, int):
        return sum(outcomes)
    return first


def _name(peer: Peer) -> str:
    return f"mongooseim@{peer.node}"


def explain(error: Exception) -> str | None:
    """The sentence for a failure that can happen to any command; None for one that should not happen."""
    match error:
        case ConfigError() | InvalidJID() | StanzaError() | CallFailed():
            return str(error)
        case StorageUnavailable():
            return f"The database can't be reached: {error}"
        case AuthUnavailable():
            return f"The authentication service can't be reached: {error}"
        case AccountExists():
            return f"There is such an account already: {error}"
        case AccountMissing():
            return f"There is no such account: {error}"
        case NotAllowed():
            return f"The authentication service refuses: {error}"
        case OSError():
            return str(error)
    return None

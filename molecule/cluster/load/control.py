"""The control channel: a command as JSON on each line of the standard input, an answer on each line of the output."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from load.crowd import NotReadyError
from load.round import Round

if TYPE_CHECKING:
    from collections.abc import Mapping

    from load.crowd import Crowd
    from load.ledger import Ledger

_LIMIT = 2**20


class CommandError(Exception):
    """A command that cannot be carried out; says why."""


class Control:
    """Carries out the commands of a driver.

    | command | what happens | answer |
    | --- | --- | --- |
    | `come` | everybody logs in and befriends | |
    | `start` | a round begins, clients talk | |
    | `fault`: `name`, `touched` (users, or null) | noted for the report | |
    | `status` | | `online`: full addresses of those who are, `away`: users who are not |
    | `settle` | the round ends | `report` |
    | `leave` | everybody logs out, the program ends | |

    `seconds` of a command is how long it, or each of its steps, may take. Every answer has `done`, the name of the
    command, or `error`, a sentence.
    """

    def __init__(self, crowd: Crowd, ledger: Ledger) -> None:
        self._crowd = crowd
        self._ledger = ledger
        self._round: Round | None = None

    async def run(self) -> None:
        """Obey until `leave`, or until whoever gives the commands is gone."""
        reader = asyncio.StreamReader(limit=_LIMIT)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        try:
            while line := await reader.readline():
                answer = await self.obey(json.loads(line))
                print(json.dumps(answer), flush=True)
                if answer.get("done") == "leave":
                    return
        finally:
            await self._crowd.leave(1)

    async def obey(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one command; returns the answer."""
        name = str(command.get("do"))
        try:
            answer = await self._carry_out(name, command, float(command.get("seconds", 60)))
        except (CommandError, NotReadyError) as error:
            return {"error": str(error)}
        return {"done": name, **answer}

    async def _carry_out(self, name: str, command: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        crowd = self._crowd
        match name:
            case "come":
                await crowd.come(seconds)
            case "start":
                if self._round is not None:
                    raise CommandError("a round is under way already")
                # What was stored for these accounts before this program came is not its business.
                self._ledger.close_round(set())
                self._round = Round(crowd, self._ledger)
            case "fault":
                self._under_way().fault(str(command["name"]), command.get("touched"))
            case "status":
                return {
                    "online": [client.jid.decode() for client in crowd.clients if client.usable],
                    "away": [client.account.user for client in crowd.clients if not client.usable],
                }
            case "settle":
                report = await self._under_way().settle(seconds)
                self._round = None
                return {"report": report.as_json()}
            case "leave":
                await crowd.leave(seconds)
            case _:
                raise CommandError(f"there is no command {name!r}")
        return {}

    def _under_way(self) -> Round:
        if self._round is None:
            raise CommandError("no round is under way")
        return self._round

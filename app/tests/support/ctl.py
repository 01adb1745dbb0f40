"""mongooseimctl as operators call it: a process, its exit code, what it prints."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 60.0


class Done(NamedTuple):
    """A call that has ended."""

    code: int
    out: str
    err: str


class Ctl:
    """Calls of one server's control socket, found by its configuration file."""

    def __init__(self, config: Path, directory: Path | None = None) -> None:
        self.config = config
        self.directory = directory or config.parent

    async def run(self, *arguments: str, options: tuple[str, ...] | None = None) -> Done:
        """Call it; ``options`` replace ``--config``."""
        named = ("--config", str(self.config)) if options is None else options
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "monktalk.xmpp.admin.ctl",
            *named,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.directory,
        )
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def text(self, *arguments: str) -> str:
        """What a call prints that succeeds; it complains of nothing."""
        done = await self.run(*arguments)
        assert (done.code, done.err) == (0, ""), done
        return done.out.removesuffix("\n")

    async def lines(self, *arguments: str) -> list[str]:
        """The lines of :meth:`text`."""
        return (await self.text(*arguments)).splitlines()

    async def json(self, *arguments: str) -> Any:
        """What a call with ``--json`` prints that succeeds."""
        return json.loads(await self.text("--json", *arguments))

    async def refused(self, *arguments: str, code: int = 1) -> str:
        """What a call complains of that fails with that exit code; it prints nothing else.

        With ``--json`` the complaint is the same, in an object.
        """
        done = await self.run(*arguments)
        assert (done.code, done.out) == (code, ""), done
        as_json = await self.run("--json", *arguments)
        assert as_json.code == code, as_json
        assert as_json.err == ""
        assert json.loads(as_json.out)["error"] == done.err.removesuffix("\n")
        return done.err.removesuffix("\n")

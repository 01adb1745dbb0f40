"""The control socket: a UNIX socket on which the server takes the commands of mongooseimctl.

One request a connection, a line of JSON each way::

    {"command": "register", "arguments": ["alice", "example.org", "…"], "directory": "/root"}
    {"code": 0, "text": "User alice@example.org successfully registered", "data": "…"}

Only root and the user that the server runs as are listened to: the file's mode says so, and the kernel is asked for each
connection who it is (SO_PEERCRED). Arguments are never logged, since some are passwords.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.admin.commands import COMMANDS
from monktalk.xmpp.admin.context import Context, Node
from monktalk.xmpp.admin.dispatch import Dispatcher, explain
from monktalk.xmpp.admin.registry import ERROR, CommandError, Result, check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

log = get_logger(__name__)

MAX_REQUEST: Final = 1024 * 1024
"""Bytes of a request, the line end included: a vCard with a picture fits."""

REQUEST_SECONDS: Final = 10.0
"""How long a caller may take to send its request, and to take the answer."""

MAX_CALLERS: Final = 32
"""Connections at once."""

_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Newer event loops would remove the file by themselves, whoever has made it."""

_CREDENTIALS = struct.Struct("3i")


class ControlSocket:
    """The server's side. ``path`` is set while it is open."""

    def __init__(self, node: Node, *, allowed: frozenset[int] | None = None) -> None:
        self.path: Path | None = None
        self._node = node
        self._dispatcher = Dispatcher(node, COMMANDS)
        self._allowed = allowed if allowed is not None else frozenset({0, os.geteuid()})
        self._server: asyncio.Server | None = None
        self._inode: tuple[int, int] | None = None
        self._callers: set[asyncio.Task[Any]] = set()

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self, path: Path, inherited: socket.socket | None = None) -> None:
        """Listen. A socket that a dead server has left behind is replaced; one that answers is not.

        A listening socket that is ``inherited`` is used instead; its file is left to whom it comes from.
        Raises OSError, with a sentence, when the socket can't be had.
        """
        sock = inherited or bind(path)
        self._inode = inode(path) if inherited is None else None
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_REQUEST, **_KEEP_FILE)
        self.path = path
        log.info("listening", kind="control", path=path)

    async def close(self) -> None:
        """Stop listening, end what is under way, and remove the file, if it is still ours."""
        if self._server is None or self.path is None:
            return
        self._server.close()
        callers = list(self._callers)
        for task in callers:
            task.cancel()
        if callers:
            await asyncio.wait(callers, timeout=1.0)
        if self._inode is not None and inode(self.path) == self._inode:
            self.path.unlink()
        self._server = None
        self.path = None

    # -- callers -------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        try:
            answer = await self._answer(reader, writer)
            writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            async with asyncio.timeout(REQUEST_SECONDS):
                await writer.drain()
                writer.write_eof()
                # Closing with something unread would tell the caller of a broken connection instead of the answer.
                while await reader.read(65536):
                    pass
        except (OSError, TimeoutError):
            pass  # the caller has gone, or does not read: there is nobody to tell
        finally:
            self._callers.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
        uid = _peer_uid(writer)
        if uid not in self._allowed:
            log.warning("control_refused", uid=uid)
            return _failure("Only root and the user that the server runs as may administrate it.")
        if len(self._callers) > MAX_CALLERS:
            return _failure("The server is busy with other commands, try again.")
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readuntil(b"\n")
            name, arguments, directory = _parse(line)
        except asyncio.LimitOverrunError:
            return _failure(f"A request may have {MAX_REQUEST} bytes.")
        except (ValueError, asyncio.IncompleteReadError, TimeoutError):
            return _failure("A request is one line of JSON: command, arguments, directory.")
        return await self._carry_out(name, arguments, Context(self._node, Path(directory)), uid)

    async def _carry_out(self, name: str, arguments: Sequence[str], context: Context, uid: int) -> dict[str, Any]:
        try:
            for argument in arguments:
                check_text(argument)
            result = await self._dispatcher.run(name, arguments, context)
        except CommandError as error:
            result = Result(str(error), None, error.code)
        except Exception as error:
            reason = explain(error)
            if reason is None:
                log.exception("control_failed", command=name)
                reason = f"{name} failed: the log of the server says why."
            result = Result(reason, None, ERROR)
        log.info("control_command", command=name if name in COMMANDS else "?", uid=uid, code=result.code)
        if result.code != 0 and result.data is None:
            return _failure(result.text, result.code)
        answer = {"code": result.code, "text": result.text, "data": result.data}
        return {**answer, "warnings": list(result.warnings)} if result.warnings else answer


def _failure(reason: str, code: int = ERROR) -> dict[str, Any]:
    return {"code": code, "error": reason}


def _parse(line: bytes) -> tuple[str, list[str], str]:
    """Command, arguments and directory of a request. Raises ValueError."""
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError("a request is an object")
    name, arguments, directory = request.get("command"), request.get("arguments", []), request.get("directory", "/")
    if not isinstance(name, str) or not isinstance(directory, str) or not isinstance(arguments, list):
        raise ValueError("a request has a command, a list of arguments and a directory")
    if not all(isinstance(argument, str) for argument in arguments):
        raise ValueError("arguments are strings")
    return name, arguments, directory


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """The user id of the caller, as it was when it connected."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def inode(path: Path) -> tuple[int, int] | None:
    """What tells the file from another one of the same name; None when there is none."""
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def bind(path: Path) -> socket.socket:
    """A listening socket at ``path`` that only its owner may connect to. Raises OSError."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the file the mode of the unbound socket: there is no moment at which others may connect.
        os.fchmod(sock.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        sock.bind(str(path))
        sock.listen(MAX_CALLERS)
    except OSError as error:
        sock.close()
        raise OSError(error.errno or errno.EINVAL, f"the control socket {path} can't be made: {error}") from None
    sock.setblocking(False)
    return sock


def _clear(path: Path) -> None:
    """Remove the socket of a server that does not run any more. Raises OSError for everything else that is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(
            errno.EEXIST, f"the control socket {path} can't be made: there is another file of that name"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise OSError(error.errno or errno.EADDRINUSE, f"the control socket {path} is in use: {error}") from None
    raise OSError(errno.EADDRINUSE, f"another server answers on the control socket {path}: is it running already?")

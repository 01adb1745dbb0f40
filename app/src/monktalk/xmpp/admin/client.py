"""The caller's side of the control socket: where it is, and one request."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from pathlib import Path
from typing import Any, Final

DEFAULT_CONFIG: Final = Path("/etc/mongooseim/mongooseim.toml")
DEFAULT_SOCKET: Final = Path("/run/mongooseim/control.sock")

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 600.0


class Unreachable(Exception):
    """No server answers; the message says where it was looked for."""


class ConfigUnreadable(Exception):
    """The configuration file, which says where the socket is, can't be read."""


def config_path(named: str | None) -> Path:
    """The configuration file: the one named, else MONGOOSEIM_CONFIG, else the usual one."""
    return Path(named or os.environ.get("MONGOOSEIM_CONFIG") or DEFAULT_CONFIG)


def socket_path(config: Path) -> Path:
    """The control socket that the configuration file names. Raises :class:`ConfigUnreadable`.

    A file that is broken at the moment still says it, as far as a line can be told: the server runs with what it has read
    before, and is to be asked what is wrong with the file.
    """
    import tomllib  # noqa: PLC0415 - not needed with --socket

    try:
        text = config.read_text("utf-8", errors="replace")
    except FileNotFoundError as error:
        if config == DEFAULT_CONFIG:
            return DEFAULT_SOCKET
        raise ConfigUnreadable(f"{config} can't be read: {error.strerror}") from None
    except OSError as error:
        raise ConfigUnreadable(f"{config} can't be read: {error.strerror}") from None
    try:
        named = tomllib.loads(text).get("general", {}).get("control_socket")
    except (tomllib.TOMLDecodeError, AttributeError):
        line = re.search(r"""^\s*(?:general\.)?control_socket\s*=\s*["'](.*?)["']""", text, re.MULTILINE)
        named = line[1] if line else None
    return config.parent / named if isinstance(named, str) and named else DEFAULT_SOCKET


def ask(path: Path, command: str, arguments: list[str], *, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """The server's answer: ``code``, and ``text`` and ``data``, or ``error``. Raises :class:`Unreachable`."""
    request = {"command": command, "arguments": arguments, "directory": str(Path.cwd())}
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_SECONDS)
        try:
            sock.connect(str(path))
        except OSError as error:
            raise Unreachable(f"No server answers at {path}: {error.strerror or error}.") from None
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # A server that refuses before it has read everything says why in its answer.
                sock.sendall(json.dumps(request).encode() + b"\n")
            sock.settimeout(seconds)
            while not answer.endswith(b"\n") and (part := sock.recv(65536)):
                answer += part
        except TimeoutError:
            raise Unreachable(f"The server at {path} does not answer within {seconds:g} s.") from None
        except OSError as error:
            raise Unreachable(f"The server at {path} has gone away: {error.strerror or error}.") from None
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("code"), int):
        raise Unreachable(f"The server at {path} has gone away while it was answering.")
    return found

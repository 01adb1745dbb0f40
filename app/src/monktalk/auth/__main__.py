"""``python -m monktalk.auth``: run the authentication service under gunicorn, check its configuration, or reload it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from monktalk.auth import serving
from monktalk.common.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

RELOAD_SECONDS: Final = 60.0
_PAUSE: Final = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the file; without ``--check``, become gunicorn after that. Returns the exit code: 0 done or valid, 1 not."""
    parser = argparse.ArgumentParser(prog="monktalk.auth", description="The authentication service.")
    parser.add_argument("--config", type=Path, help=f"the configuration file, by default {serving.DEFAULT_PATH}")
    parser.add_argument("--check", action="store_true", help="check the configuration file and exit")
    parser.add_argument(
        "--reload",
        type=int,
        metavar="PID",
        help="have the service with that main process reload, and wait until it has",
    )
    options = parser.parse_args(arguments)
    if options.reload is not None:
        return _reload(options.reload)
    try:
        config = serving.read(options.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if not options.check:
        os.environ[serving.VARIABLE] = config.source
        command = [sys.executable, "-m", "gunicorn", "-c", "python:monktalk.auth.gunicorn_conf"]
        os.execv(command[0], command)  # noqa: S606 - the interpreter that runs, and fixed arguments
    return 0


def _reload(main_process: int) -> int:
    """Send SIGHUP, and wait for the end of the workers that know the former files.

    On connections that are kept open they go on answering for a moment, and whoever has added a domain and reloaded means
    it to be known by then.
    """
    try:
        former = _workers(main_process)
        os.kill(main_process, signal.SIGHUP)
    except OSError as error:
        print(f"The process {main_process} can't be told to reload: {error.strerror}", file=sys.stderr)
        return 1
    deadline = time.monotonic() + RELOAD_SECONDS
    while former & _workers(main_process):
        if time.monotonic() > deadline:
            print(f"The former worker has not ended within {RELOAD_SECONDS:g} s.", file=sys.stderr)
            return 1
        time.sleep(_PAUSE)
    return 0


def _workers(main_process: int) -> set[int]:
    """The child processes. Raises FileNotFoundError when there is no such process."""
    return {int(pid) for pid in Path(f"/proc/{main_process}/task/{main_process}/children").read_text("ascii").split()}


if __name__ == "__main__":
    sys.exit(main())

"""``python -m monktalk.auth``: run the authentication service under gunicorn, or check its configuration file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from monktalk.auth import serving
from monktalk.common.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the file; without ``--check``, become gunicorn after that. Returns the exit code: 0 valid, 1 not."""
    parser = argparse.ArgumentParser(prog="monktalk.auth", description="The authentication service.")
    parser.add_argument("--config", type=Path, help=f"the configuration file, by default {serving.DEFAULT_PATH}")
    parser.add_argument("--check", action="store_true", help="check the configuration file and exit")
    options = parser.parse_args(arguments)
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


if __name__ == "__main__":
    sys.exit(main())

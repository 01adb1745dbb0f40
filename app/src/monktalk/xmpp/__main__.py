"""``python -m monktalk.xmpp``: run the server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop

from monktalk.common import logging as log_setup
from monktalk.common.config import Config, ConfigError
from monktalk.common.logging import get_logger
from monktalk.xmpp import configuration
from monktalk.xmpp.program import Program
from monktalk.xmpp.storage.interfaces import StorageError

log = get_logger(__name__)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="monktalk.xmpp", description="The XMPP server.")
    parser.add_argument("--config", type=Path, default=configuration.default_path(), help="the configuration file")
    parser.add_argument("--ready-file", type=Path, help="write facts about the running server here when it is ready")
    parser.add_argument("--check", action="store_true", help="check the configuration file and exit")
    return parser.parse_args()


def main() -> int:
    """Run the server until it is told to stop. Returns the exit code."""
    arguments = _arguments()
    try:
        config = configuration.read(arguments.config)
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.check:
        return 0
    general = config.section("general")
    log_setup.configure(general.loglevel, file=general.log_file)
    log_setup.set_level("warning", "alembic")
    try:
        uvloop.run(_run(arguments, config))
    except (OSError, ValueError, StorageError) as error:
        log.error("not_started", reason=str(error))
        return 1
    return 0


async def _run(arguments: argparse.Namespace, config: Config) -> None:
    await Program(arguments.config, config, arguments.ready_file).run()


if __name__ == "__main__":
    sys.exit(main())

"""``python -m monktalk.xmpp``: run the server, as one process or as a supervisor with several workers."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from monktalk.common import logging as log_setup
from monktalk.common.config import Config, ConfigError, read_text
from monktalk.common.logging import get_logger
from monktalk.xmpp import configuration
from monktalk.xmpp.supervisor.supervisor import StartFailed, Supervisor, worker_count

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = get_logger(__name__)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="monktalk.xmpp", description="The XMPP server.")
    parser.add_argument("--config", type=Path, default=configuration.default_path(), help="the configuration file")
    parser.add_argument("--ready-file", type=Path, help="write facts about the running server here when it is ready")
    parser.add_argument("--check", action="store_true", help="check the configuration file and exit")
    # How a supervisor starts its workers.
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--channel", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run the server until it is told to stop. Returns the exit code."""
    arguments = _arguments()
    if arguments.worker is not None and arguments.channel is not None:
        return _work(arguments)
    try:
        text = read_text(arguments.config)
        config = configuration.parse(text, arguments.config)
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.check:
        return 0
    general = config.section("general")
    log_setup.configure(general.loglevel, file=general.log_file)
    log_setup.set_level("warning", "alembic")
    if worker_count(config) > 1:
        return _supervise(arguments, text, config)
    return _serve(_run(arguments, config))


async def _run(arguments: argparse.Namespace, config: Config) -> None:
    from monktalk.xmpp.program import Program  # noqa: PLC0415 - a supervisor needs nothing of it

    await Program(arguments.config, config, arguments.ready_file).run()


def _serve(program: Coroutine[None, None, None]) -> int:
    import uvloop  # noqa: PLC0415 - a supervisor needs nothing of it

    from monktalk.xmpp.storage.interfaces import StorageError  # noqa: PLC0415 - the same

    try:
        uvloop.run(program)
    except (OSError, ValueError, StorageError, ConfigError) as error:
        log.error("not_started", reason=str(error))
        return 1
    return 0


def _work(arguments: argparse.Namespace) -> int:
    from monktalk.xmpp.supervisor import worker  # noqa: PLC0415 - a supervisor needs nothing of it

    log_setup.configure("info")
    return _serve(worker.run(arguments.config, arguments.worker, arguments.channel))


def _supervise(arguments: argparse.Namespace, text: str, config: Config) -> int:
    async def run() -> None:
        await Supervisor(arguments.config, text, config, arguments.ready_file).run()

    try:
        asyncio.run(run())
    except (OSError, ValueError, StartFailed) as error:
        log.error("not_started", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

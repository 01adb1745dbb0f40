"""`python -m monktalk.db upgrade|current|check`: the schema of a database from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from monktalk.db import migrate
from monktalk.db.engine import DatabaseURLError, create_engine, describe_url

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 a problem, 2 a wrong call."""
    parser = argparse.ArgumentParser(
        prog="python -m monktalk.db", description="Create, upgrade and check MonkTalk's database schema."
    )
    parser.add_argument(
        "command",
        choices=("upgrade", "current", "check"),
        help="upgrade: apply what is missing; current: show the revision; check: list what is wrong",
    )
    parser.add_argument("url", nargs="?", help="sqlite:///path or postgresql://user@host:port/name")
    parser.add_argument(
        "--url-file",
        type=Path,
        metavar="FILE",
        help="read the address from a file: others cannot see its password",
    )
    options = parser.parse_args(arguments)
    if (options.url is None) == (options.url_file is None):
        parser.error("name the database either by its address or by --url-file")
    try:
        url = options.url or options.url_file.read_text("utf-8").strip()
        return {"upgrade": _upgrade, "current": _current, "check": _check}[options.command](url)
    except OSError as error:
        problem = f"cannot read {error.filename}: {error.strerror}"
    except (DatabaseURLError, ValueError) as error:
        problem = str(error)
    except SQLAlchemyError as error:
        # The driver's own words; SQLAlchemy's frame around them helps developers only.
        problem = str(getattr(error, "orig", None) or error).strip()
    sys.stderr.write(f"error: {problem}\n")
    return 1


def _upgrade(url: str) -> int:
    state = migrate.upgrade(url)
    _say(f"{describe_url(url)}: schema revision {state.found}")
    return 0


def _current(url: str) -> int:
    engine = create_engine(url)
    try:
        state = migrate.state(engine)
    finally:
        engine.dispose()
    _say(state.problem() or f"schema revision {state.found}")
    return 0 if state.usable else 1


def _check(url: str) -> int:
    problems = migrate.check(url)
    for problem in problems or ["the schema is complete and current"]:
        _say(problem)
    return 1 if problems else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())

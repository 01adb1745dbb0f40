"""The configuration that the process works with: read at the start, read anew on SIGHUP, never replaced by a bad one.

gunicorn's master reads it and its workers inherit it. A worker that cannot start would end the whole service, so
an invalid file must not reach one.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from monktalk.auth.settings import schema
from monktalk.common.config import Config, ConfigError, Problem, load
from monktalk.common.logging import configure, get_logger
from monktalk.db.engine import DatabaseURLError, parse_url

VARIABLE: Final = "MONKTALK_AUTH_CONFIG"
"""The environment variable that names the configuration file."""

DEFAULT_PATH: Final = Path("/etc/mongooseim/auth.toml")

log = get_logger(__name__)


@dataclass
class _State:
    config: Config | None = None


_state = _State()


def read(path: Path | str | None = None) -> Config:
    """Read and check a configuration file: the named one, else that of the environment, else the default.

    Raises:
        ConfigError: it cannot be used; all problems are named with file and line.
    """
    config = load(Path(path or os.environ.get(VARIABLE) or DEFAULT_PATH).absolute(), schema())
    problems = []
    address = config.section("service").address
    if not is_loopback(address):
        reason = "must be an address of the loopback interface, such as 127.0.0.1: calls carry passwords in clear"
        problems.append(config.problem(("service",), "address", reason))
    if ":" in config.section("service").username:
        problems.append(config.problem(("service",), "username", "must be without a colon (RFC 7617)"))
    try:
        parse_url(config.section("database").url)
    except DatabaseURLError as error:
        problems.append(config.problem(("database",), "url", str(error)))
    log_file = config.section("log").file
    if log_file is not None and not os.access(log_file if log_file.exists() else log_file.parent, os.W_OK):
        problems.append(config.problem(("log",), "file", "cannot be written"))
    if problems:
        raise ConfigError(problems)
    return config


def current() -> Config:
    """Return the configuration of the process, reading it when this is the first call.

    Raises:
        ConfigError: there is none yet, and the file cannot be used.
    """
    if _state.config is None:
        _state.config = read()
        start_log(_state.config)
    return _state.config


def reload() -> bool:
    """Read the configuration anew; return False, and keep the old one, when it cannot be used."""
    former = current()
    try:
        config = read(former.source)
        start_log(config)
    except ConfigError as error:
        for problem in error.problems:
            _report(problem)
        log.error("reload_refused", hint="the former configuration stays")
        return False
    except OSError as error:
        log.error("reload_refused", reason=error.strerror, hint="the former configuration stays")
        return False
    late = [f"{'.'.join(change.path)}.{change.key}" for change in former.diff(config) if change.restart]
    if late:
        log.warning("restart_needed", options=late, hint="these changes wait for a restart of the service")
    _state.config = config
    return True


def start_log(config: Config) -> None:
    """Log as `config` says.

    Raises:
        OSError: the log file cannot be opened.
    """
    section = config.section("log")
    configure(section.level, file=section.file)


def is_loopback(address: str) -> bool:
    """Return whether an address can only be reached from this machine."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def _report(problem: Problem) -> None:
    log.error(
        "invalid_configuration", file=problem.source, line=problem.line, option=problem.key, reason=problem.reason
    )

"""Logs: one event a line, `time level logger event key=value …`, through the standard library's logging.

Where the standard error stream is the journal, time and level are the journal's business: lines begin with the level as
sd-daemon(3) wants it, so that `journalctl -p warning` finds them, and have no time of their own.

    log = get_logger(__name__)
    log.info("session_opened", jid=jid, ip=address)

An event has a stable name; what varies are fields. Fields that by their name hold a secret, values wrapped in
`Secret` and passwords inside URLs are never written.
"""

from __future__ import annotations

import functools
import hmac
import json
import logging
import os
import re
import sys
import time
import traceback
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

REDACTED: Final = "[redacted]"

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 10,
}
"""The names of levels; `none` is above everything that is logged."""

# Levels, highest first, and the priorities of syslog(3) that they are.
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))

_SECRET_NAMES: Final = frozenset(
    {"authorization", "credentials", "pass", "passwd", "password", "passwords", "pwd", "secret", "secrets"}
    | {"token", "tokens"}
)
_URL_PASSWORD: Final = re.compile(r"(://[^/\s:@]*:)[^/\s]+@")
_PLAIN: Final = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # visible ASCII but for = " and \
_MAX_VALUE: Final = 1_000
_MAX_TRACEBACK: Final = 8_000

# The handlers that `configure` has put in place; those of others, such as a test runner's, are left alone.
_installed: Final[list[logging.Handler]] = []


class Secret:
    """A text that prints as "[redacted]"; `reveal` gives the text itself."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __str__(self) -> str:
        return REDACTED

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secret):
            return hmac.compare_digest(self._text.encode(), other._text.encode())
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)


class EventLogger:
    """A logger whose messages are an event's name and fields."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def enabled(self, level: int) -> bool:
        """Return whether events of `level` are written: ask before computing fields only a log would use."""
        return self._logger.isEnabledFor(level)

    def debug(self, event: str, /, **fields: object) -> None:
        """Log what helps to find a fault."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Log what happened as it should."""
        if self._logger.isEnabledFor(logging.INFO):
            self._emit(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log what somebody should look at some day."""
        if self._logger.isEnabledFor(logging.WARNING):
            self._emit(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Log what did not work."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._emit(logging.ERROR, event, fields)

    def critical(self, event: str, /, **fields: object) -> None:
        """Log what stops the program."""
        if self._logger.isEnabledFor(logging.CRITICAL):
            self._emit(logging.CRITICAL, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Log an error with the exception that is being handled, its traceback in the field `traceback`."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._emit(logging.ERROR, event, fields, exception=sys.exception())

    def _emit(self, level: int, event: str, fields: dict[str, object], exception: BaseException | None = None) -> None:
        logger = self._logger
        info = (type(exception), exception, exception.__traceback__) if exception else None
        record = logger.makeRecord(logger.name, level, "", 0, event, (), info, extra={"fields": fields})
        logger.handle(record)


class LineFormatter(logging.Formatter):
    """Formats records of this package and of libraries alike as one line each."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, without its end."""
        seconds = int(record.created)
        milliseconds = int(record.created % 1 * 1000)
        return f"{_date_and_time(seconds)}.{milliseconds:03d}Z {record.levelname} {self._text(record)}"

    @staticmethod
    def _text(record: logging.LogRecord) -> str:
        parts = [record.name, _value(record.getMessage(), _MAX_VALUE)]
        fields: dict[str, object] = getattr(record, "fields", None) or {}
        parts.extend(f"{name}={_field(name, value)}" for name, value in fields.items())
        exception = record.exc_info[1] if record.exc_info else None
        if exception is not None:
            parts.append(f"exception={_value(f'{type(exception).__name__}: {exception}', _MAX_VALUE)}")
            text = "".join(traceback.format_exception(exception))
            # The innermost frames, at the end, are the ones that tell.
            parts.append(f"traceback={_value(text[-_MAX_TRACEBACK:], _MAX_TRACEBACK)}")
        return " ".join(parts)


class JournalFormatter(LineFormatter):
    """The same lines for the journal: with its priority in front, without a time."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, without its end."""
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return f"<{priority}>{self._text(record)}"


@functools.lru_cache(maxsize=4)
def _date_and_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def get_logger(name: str) -> EventLogger:
    """Return the logger of the module `name`, which is its `__name__`."""
    return EventLogger(logging.getLogger(name))


def configure(level: str | int = "info", *, stream: TextIO | None = None, file: Path | str | None = None) -> None:
    """Send all logs of the process to `stream`, by default standard error, and to `file` when one is named.

    May be called again, and then replaces what was configured before. The file is opened anew when a log
    rotation has moved it away.

    Raises:
        ValueError: no such level.
        OSError: the file cannot be opened.
    """
    number = parse_level(level)
    first = logging.StreamHandler(stream)
    first.setFormatter(JournalFormatter() if stream is None and _is_journal(sys.stderr) else LineFormatter())
    handlers: list[logging.Handler] = [first]
    if file is not None:
        handlers.append(WatchedFileHandler(file, encoding="utf-8"))
        handlers[-1].setFormatter(LineFormatter())
    root = logging.getLogger()
    while _installed:
        former = _installed.pop()
        root.removeHandler(former)
        former.close()
    _installed.extend(handlers)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(number)
    logging.captureWarnings(True)
    # Looked up for each record, and in none of the lines.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False


def _is_journal(stream: TextIO) -> bool:
    """Return whether the stream is what systemd has connected to the journal (JOURNAL_STREAM in systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_level(level: str | int, logger: str = "") -> None:
    """Change the level of everything, or of one logger and what is below it.

    Raises:
        ValueError: no such level.
    """
    logging.getLogger(logger).setLevel(parse_level(level))


def get_level() -> str:
    """Return the name of the level of everything."""
    number = logging.getLogger().level
    return next((name for name, value in LEVELS.items() if value >= number), "none")


def parse_level(level: str | int) -> int:
    """Return the number of a level given by name, in any case, or by the number itself.

    Raises:
        ValueError: no such level.
    """
    if isinstance(level, int):
        return level
    number = LEVELS.get(level.lower())
    if number is None:
        raise ValueError(f"{level!r} is not a log level; use one of {', '.join(LEVELS)}.")
    return number


@functools.lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether a field of this name holds a secret: `password`, `device_token`, `Authorization`."""
    return re.split(r"[_\-.]", name.lower())[-1] in _SECRET_NAMES


def _field(name: str, value: object) -> str:
    if value is not None and is_secret_name(name):
        return REDACTED
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _value(json.dumps(_plain(value), ensure_ascii=False), _MAX_VALUE)
    return _value(str(value), _MAX_VALUE)


def _plain(value: object) -> object:
    """Return a container as JSON can write it, secrets inside redacted."""
    if isinstance(value, dict):
        return {str(key): REDACTED if is_secret_name(str(key)) else _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


def _value(text: str, limit: int) -> str:
    """Return `text` as it may stand in a line: bare where that is plain, else quoted and escaped."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1{REDACTED}@", text)
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit} more)"
    if _PLAIN(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    # Characters that steer a terminal or turn the writing direction must not reach the reader of a log.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from pathlib import Path

import pytest

from monktalk.common import logging as monk_logging
from monktalk.common.jid import JID
from monktalk.common.logging import Secret, configure, get_level, get_logger, is_secret_name, set_level

log = get_logger("monktalk.test")


@pytest.fixture(autouse=True)
def restored():
    """Leaves the logging of the test run as it was."""
    root = logging.getLogger()
    level = root.level
    yield
    logging.captureWarnings(capture=False)
    while monk_logging._installed:
        handler = monk_logging._installed.pop()
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.getLogger("monktalk.test").setLevel(logging.NOTSET)


@pytest.fixture
def stream():
    stream = io.StringIO()
    configure("debug", stream=stream)
    return stream


def written(stream: io.StringIO) -> str:
    """Returns the one line of the log, without its time."""
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    time, _, rest = line[:-1].partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    return rest


def test_a_line_has_level_logger_event_and_fields(stream):
    log.info("session_opened", jid=JID.parse("alice@example.org/x"), tls=True, seconds=0.1234567, none=None)
    assert written(stream) == (
        "INFO monktalk.test session_opened jid=alice@example.org/x tls=True seconds=0.123457 none=None"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("a\\b", '"a\\\\b"'),
        ("line\r\nINFO forged", '"line\\r\\nINFO forged"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("\u202eabc\u2028", '"\\u202eabc\\u2028"'),
        ("Grüße", '"Grüße"'),
        (["a", 1, None], '"[\\"a\\", 1, null]"'),
        (b"x", "b'x'"),
    ],
)
def test_values_stay_on_their_line_and_cannot_forge_another(stream, value, text):
    log.info("event", value=value)
    assert written(stream) == f"INFO monktalk.test event value={text}"


def test_long_values_are_cut(stream):
    log.info("event", value="x" * 5000)
    assert written(stream).endswith('xxx… (4000 more)"')


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "token",
        "pass",
        "pwd",
        "secret",
        "authorization",
        "device_token",
        "Authorization",
        "old_password",
    ],
)
def test_fields_named_after_secrets_are_redacted(stream, name):
    log.info("event", **{name: "hunter2"})
    assert written(stream) == f"INFO monktalk.test event {name}=[redacted]"


def test_names_that_only_resemble_secrets_are_not():
    assert not any(map(is_secret_name, ("token_hash", "passage", "password_file", "compass", "keys")))


def test_secrets_inside_of_values_are_redacted(stream):
    log.info("event", options={"password": "hunter2", "user": "alice", "nested": [{"token": "hunter2"}]})
    log.info("event", value=Secret("hunter2"), values=[Secret("hunter2")])
    log.info("event", url="postgresql://monk:hunter2@db/x", text="see http://a:hunter2@b/ or http://c/@d")
    assert "hunter2" not in stream.getvalue()
    assert "postgresql://monk:[redacted]@db/x" in stream.getvalue()
    assert "http://c/@d" in stream.getvalue()


def test_a_secret_prints_as_nothing_and_compares_as_its_text():
    secret = Secret("hunter2")
    assert (str(secret), f"{secret}", repr(secret)) == ("[redacted]", "[redacted]", "Secret([redacted])")
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2")
    assert hash(secret) == hash(Secret("hunter2"))
    assert secret != Secret("hunter3")
    assert secret != "hunter2"
    assert not Secret("")


def test_an_exception_is_one_line_with_its_traceback(stream):
    try:
        raise ValueError("no such\nthing")
    except ValueError:
        log.exception("import_failed", record=3)
    line = written(stream)
    assert line.startswith('ERROR monktalk.test import_failed record=3 exception="ValueError: no such\\nthing" ')
    assert 'traceback="Traceback (most recent call last):\\n' in line
    assert "test_logging.py" in line


def test_libraries_are_written_in_the_same_form(stream):
    logging.getLogger("library").warning("cannot %s", "connect")
    assert written(stream) == 'WARNING library "cannot connect"'


def test_warnings_reach_the_log(stream):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("info", stream=stream)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "WARNING py.warnings" in stream.getvalue()
    assert "old thing" in stream.getvalue()


def test_every_level_has_its_method(stream):
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("event")
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == [
        "DEBUG",
        "INFO",
        "WARNING",
        "ERROR",
        "CRITICAL",
    ]


def test_what_is_below_the_level_is_not_written(stream):
    set_level("warning")
    assert get_level() == "warning"
    assert not log.enabled(logging.INFO)
    log.debug("event")
    log.info("event")
    assert stream.getvalue() == ""
    set_level("none")
    log.critical("event")
    assert stream.getvalue() == ""
    assert get_level() == "none"


def test_one_logger_may_have_a_level_of_its_own(stream):
    set_level("error")
    set_level("debug", "monktalk.test")
    log.debug("event")
    get_logger("monktalk.other").info("event")
    assert written(stream) == "DEBUG monktalk.test event"


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="'loud' is not a log level; use one of debug, info"):
        set_level("loud")


def test_a_file_that_was_rotated_away_is_opened_anew(tmp_path):
    path = tmp_path / "monktalk.log"
    configure("info", stream=io.StringIO(), file=path)
    log.info("first")
    path.rename(tmp_path / "monktalk.log.1")
    log.info("second")
    assert "first" in (tmp_path / "monktalk.log.1").read_text()
    assert "second" in path.read_text()


def test_configuring_again_replaces_what_was_configured(stream):
    other = io.StringIO()
    configure("info", stream=other)
    log.info("event")
    assert stream.getvalue() == ""
    assert written(other) == "INFO monktalk.test event"


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """A stream that is the journal's. (The test makes it the standard error stream: pytest puts its own there before.)"""
    with (tmp_path / "journal").open("w+") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        yield file


def test_the_journal_gets_priorities_and_no_time(journal, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", journal)
    configure("debug", file=tmp_path / "file")
    log.debug("a")
    log.info("b", user="alice")
    log.warning("c")
    log.error("d")
    log.critical("e")
    assert Path(journal.name).read_text().splitlines() == [
        *("<7>monktalk.test a", "<6>monktalk.test b user=alice", "<4>monktalk.test c", "<3>monktalk.test d"),
        "<2>monktalk.test e",
    ]
    assert re.match(r"\d{4}-.*Z DEBUG monktalk\.test a\n", (tmp_path / "file").read_text())


def test_another_stream_than_the_one_of_the_journal_gets_the_time(journal, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    monkeypatch.setattr("sys.stderr", journal)
    configure("info")
    log.info("a")
    assert re.fullmatch(r"\d{4}-.*Z INFO monktalk\.test a\n", Path(journal.name).read_text())

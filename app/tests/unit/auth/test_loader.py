from __future__ import annotations

import os
import sys

import pytest

from monktalk.auth.authenticators import WebUsers
from monktalk.auth.loader import load_domains
from tests.unit.auth.conftest import WEB_USERS

LOAD_TIME = 5.0


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "externals-auth"
    directory.mkdir()
    (directory / "good.example.py").write_text(WEB_USERS)
    return directory


def errors(caplog):
    return [record.fields for record in caplog.records if record.message == "authenticator_broken"]


def test_a_domain_is_a_file_named_as_it(directory, resources):
    (directory / "bücher.example.py").write_text(WEB_USERS)
    (directory / "localhost.py").write_text(WEB_USERS)
    domains = load_domains(directory, resources, load_time=LOAD_TIME)
    assert sorted(domains) == ["bücher.example", "good.example", "localhost"]
    authenticator = domains["localhost"].authenticator
    assert isinstance(authenticator, WebUsers)
    assert authenticator.domain == "localhost"


CANNOT_START = """\
from monktalk.auth.authenticators import *
class Mine(WebUsers):
    def start(self, domain, resources):
        raise ValueError("not here")
authenticator = Mine()
"""

BROKEN = {
    "syntax": ("x = 1\n\nif x\n", "SyntaxError", 3),
    "not utf-8": (b"x = '\xff'\n", "SyntaxError", None),
    "null byte": ("x = 1\0", "", None),
    "exception": ("def f():\n    raise RuntimeError('no colour')\n\nf()\n", "RuntimeError: no colour", 2),
    "import": ("import no_such_module_at_all\n", "ModuleNotFoundError", 1),
    "exit": ("raise SystemExit(1)", "exit()", None),
    "wrong option": (
        "from monktalk.auth.authenticators import *\n\nauthenticator = WebUsers(answer='yes')\n",
        "answer",
        3,
    ),
    "unknown option": ("from monktalk.auth.authenticators import *\nauthenticator = WebUsers(x=1)\n", "TypeError", 2),
    "nothing assigned": ("x = 1", "does not assign authenticator", None),
    "empty": ("", "does not assign authenticator", None),
    "a text": ("authenticator = 'WebUsers'", "must be an Authenticator", None),
    "a class": ("from monktalk.auth.authenticators import *\nauthenticator = WebUsers", "call it", None),
    "an answer of its own": (
        "from monktalk.auth.authenticators import *\nauthenticator = WebUsers()\nauthenticator.answer = 'ja'",
        "its answer must be",
        None,
    ),
    "fails to start": (CANNOT_START, "ValueError: not here", 4),
    "abstract": (
        "from monktalk.auth.authenticators import *\nclass Mine(Authenticator):\n    pass\nauthenticator = Mine()",
        "abstract",
        4,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_disables_its_domain_only_and_says_why_and_where(directory, resources, caplog, case):
    source, reason, line = BROKEN[case]
    path = directory / "broken.example.py"
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    domains = load_domains(directory, resources, load_time=LOAD_TIME)
    assert domains["broken.example"].authenticator is None
    assert domains["good.example"].authenticator is not None
    (error,) = errors(caplog)
    assert (error["domain"], error["file"]) == ("broken.example", path)
    assert reason in error["reason"]
    if line is not None:
        assert error["line"] == line


def test_a_file_that_does_not_end_disables_its_domain_only(directory, resources, caplog):
    (directory / "slow.example.py").write_text("import threading\nthreading.Event().wait()\n")
    domains = load_domains(directory, resources, load_time=0.2)
    assert domains["slow.example"].authenticator is None
    assert domains["good.example"].authenticator is not None
    assert "within 0.2 s" in errors(caplog)[0]["reason"]


def test_a_file_that_everybody_can_change_is_not_run(directory, resources, caplog):
    path = directory / "open.example.py"
    path.write_text(WEB_USERS)
    path.chmod(0o666)
    assert load_domains(directory, resources, load_time=LOAD_TIME)["open.example"].authenticator is None
    assert "everybody" in errors(caplog)[0]["reason"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_disables_its_domain(directory, resources, caplog):
    path = directory / "closed.example.py"
    path.write_text(WEB_USERS)
    path.chmod(0)
    assert load_domains(directory, resources, load_time=LOAD_TIME)["closed.example"].authenticator is None
    assert "Permission denied" in errors(caplog)[0]["reason"]


def test_a_link_into_nowhere_and_a_directory_disable_their_domains(directory, resources, caplog):
    (directory / "link.example.py").symlink_to(directory / "nowhere")
    (directory / "folder.example.py").mkdir()
    domains = load_domains(directory, resources, load_time=LOAD_TIME)
    assert domains["link.example"].authenticator is None
    assert domains["folder.example"].authenticator is None
    assert {error["domain"] for error in errors(caplog)} == {"link.example", "folder.example"}


@pytest.mark.parametrize(
    "name", ["Example.org.py", "_common.py", "..py", "a b.py", "-x.py", "example.org..py", "a_b.org.py"]
)
def test_what_is_not_named_as_a_domain_is_not_run(directory, resources, caplog, name):
    (directory / name).write_text("raise SystemError('was run')")
    assert sorted(load_domains(directory, resources, load_time=LOAD_TIME)) == ["good.example"]
    assert errors(caplog) == []
    ignored = [record.fields for record in caplog.records if record.message == "authenticator_ignored"]
    assert name.startswith("..") or [fields["file"].name for fields in ignored] == [name]


def test_other_files_are_not_looked_at(directory, resources, caplog):
    for name in ("README", "good.example.py~", ".swap.py", "good.example.pyc", "example.org.py.bak"):
        (directory / name).write_text("raise SystemError('was run')")
    assert sorted(load_domains(directory, resources, load_time=LOAD_TIME)) == ["good.example"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_files_run_as_modules_of_their_own_and_leave_nothing_beside_them(directory, resources):
    source = (
        "import dataclasses\nfrom monktalk.auth.authenticators import *\n"
        "@dataclasses.dataclass\nclass Mine(WebUsers):\n    colour: str = 'green'\n"
        "    def __post_init__(self):\n        super().__init__()\n"
        "authenticator = Mine()\nsecret_of_this_domain = 1\n"
    )
    (directory / "one.example.py").write_text(source)
    (directory / "two.example.py").write_text("secret_of_this_domain\n")
    domains = load_domains(directory, resources, load_time=LOAD_TIME)
    assert domains["one.example"].authenticator is not None
    assert domains["two.example"].authenticator is None
    assert sorted(entry.name for entry in directory.iterdir()) == [
        "good.example.py",
        "one.example.py",
        "two.example.py",
    ]
    assert not any("two.example" in name for name in sys.modules)


def test_a_changed_file_is_what_is_loaded_next(directory, resources):
    path = directory / "good.example.py"
    stamp = path.stat().st_mtime_ns
    path.write_text(WEB_USERS.replace("WebUsers()", "WebUsers(answer='true')"))
    os.utime(path, ns=(stamp, stamp))
    assert load_domains(directory, resources, load_time=LOAD_TIME)["good.example"].answer == "true"


def test_a_missing_directory_is_an_error_in_the_log_and_no_domains(tmp_path, resources, caplog):
    assert load_domains(tmp_path / "nowhere", resources, load_time=LOAD_TIME) == {}
    assert caplog.records[0].message == "no_authenticators"


def test_the_word_of_success_is_that_of_the_file_or_else_of_the_service(directory, resources):
    (directory / "true.example.py").write_text(WEB_USERS.replace("WebUsers()", "WebUsers(answer='true')"))
    domains = load_domains(directory, resources, load_time=LOAD_TIME)
    assert (domains["good.example"].answer, domains["true.example"].answer) == ("username", "true")

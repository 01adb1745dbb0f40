"""Finds and loads the domains' authenticators: one Python file each, named exactly as the domain plus `.py`.

A file that cannot be loaded disables its domain, with the reason and the line in the log, and no other.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
import traceback
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Final

from monktalk.auth.authenticators.base import ANSWERS, Authenticator
from monktalk.common.jid import InvalidJID, prepare_domain
from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType, ModuleType

    from monktalk.auth.authenticators.base import Resources

SUFFIX: Final = ".py"
VARIABLE: Final = "authenticator"

_MODULE_PREFIX: Final = "monktalk authenticator of "

log = get_logger(__name__)


@dataclass(frozen=True)
class Domain:
    """A domain that has a file.

    Attributes:
        name: the domain.
        authenticator: what its file makes; None when the file is broken.
        answer: what success says: "username" or "true".
        slots: limits the calls under way at once; None for no limit.
    """

    name: str
    authenticator: Authenticator | None = None
    answer: str = ANSWERS[0]
    slots: BoundedSemaphore | None = None


class BrokenFile(Exception):
    """A domain's file cannot be used; says why, and in which line where there is one."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def load_domains(directory: Path, resources: Resources, *, load_time: float) -> dict[str, Domain]:
    """Load all files of a directory and return the domains by name, broken ones included."""
    try:
        entries = sorted(entry for entry in directory.iterdir() if entry.suffix == SUFFIX)
    except OSError as error:
        log.error("no_authenticators", directory=directory, reason=error.strerror)
        return {}
    domains: dict[str, Domain] = {}
    for path in entries:
        name = path.name.removesuffix(SUFFIX)
        if name.startswith("."):
            continue  # what editors leave behind
        if _is_domain(path, name):
            domains[name] = load_domain(path, name, resources, load_time)
    if not domains:
        log.warning("no_authenticators", directory=directory, hint="add a file named as the domain plus .py")
    return domains


def load_domain(path: Path, name: str, resources: Resources, load_time: float) -> Domain:
    """Load one file; a broken one is logged and gives a domain without authenticator."""
    try:
        authenticator = _make(path, name, resources, load_time)
    except BrokenFile as error:
        log.error("authenticator_broken", domain=name, file=path, line=error.line or None, reason=error.reason)
        return Domain(name)
    limit = authenticator.concurrency
    domain = Domain(
        name,
        authenticator,
        authenticator.answer or resources.answer,
        BoundedSemaphore(limit) if limit else None,
    )
    log.info("authenticator_loaded", domain=name, kind=type(authenticator).__name__, answer=domain.answer)
    return domain


def failure_lines(error: BaseException) -> list[str]:
    """Return where an exception came from, the innermost place last, without its text, which may quote a password."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-5:]]


def _is_domain(path: Path, name: str) -> bool:
    try:
        prepared = prepare_domain(name)
    except InvalidJID as error:
        log.error("authenticator_ignored", file=path, reason=f"its name is not a domain plus .py: {error}")
        return False
    if prepared != name:
        log.error("authenticator_ignored", file=path, reason=f"it must be named {prepared}{SUFFIX}")
        return False
    return True


def _make(path: Path, name: str, resources: Resources, load_time: float) -> Authenticator:
    """Run a file and start what it assigns to `authenticator`.

    It runs in a thread of its own: one that waits for a network for ever must not keep the service from starting.

    Raises:
        BrokenFile: that does not work.
    """
    _check_file(path)
    made: list[Authenticator] = []
    failures: list[BrokenFile] = []

    def work() -> None:
        try:
            made.append(_run(path, name, resources))
        except BrokenFile as error:
            failures.append(error)

    thread = Thread(target=work, name=f"load {name}", daemon=True)
    thread.start()
    thread.join(load_time)
    if failures:
        raise failures[0]
    if not made:
        raise BrokenFile(f"has not been loaded within {load_time:g} s")
    return made[0]


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise BrokenFile(f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise BrokenFile("is not a regular file")
    if status.st_mode & stat.S_IWOTH:
        raise BrokenFile("can be changed by everybody on this machine, who could let themselves in; chmod o-w")
    if not os.access(path, os.R_OK):
        raise BrokenFile("cannot be read: Permission denied")


def _run(path: Path, name: str, resources: Resources) -> Authenticator:
    try:
        module = _execute(path, name)
    except Exception as error:  # noqa: BLE001 - whatever a domain's file raises disables that domain only
        raise _broken(error, path) from None
    except SystemExit:
        raise BrokenFile("calls exit()") from None
    authenticator = getattr(module, VARIABLE, None)
    if authenticator is None:
        raise BrokenFile(f"does not assign {VARIABLE}, such as: {VARIABLE} = WebUsers()")
    if not isinstance(authenticator, Authenticator):
        hint = "; call it" if isinstance(authenticator, type) and issubclass(authenticator, Authenticator) else ""
        kind = "a class" if isinstance(authenticator, type) else type(authenticator).__name__
        raise BrokenFile(f"assigns {kind} to {VARIABLE}, which must be an Authenticator{hint}")
    if authenticator.answer not in (None, *ANSWERS):
        raise BrokenFile(f'its answer must be "{ANSWERS[0]}" or "{ANSWERS[1]}"')
    if not isinstance(authenticator.concurrency, int) or authenticator.concurrency < 0:
        raise BrokenFile("its concurrency must be a whole number, or 0 for no limit")
    try:
        authenticator.start(name, resources)
    except Exception as error:  # noqa: BLE001 - the same
        raise _broken(error, path) from None
    return authenticator


def _execute(path: Path, name: str) -> ModuleType:
    """Run the file as a module of its own, which no other file can import by accident."""
    module_name = _MODULE_PREFIX + name
    loader = _Loader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert spec is not None  # it is None only without a loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and the like look their module up by name.
    sys.modules[module_name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


class _Loader(SourceFileLoader):
    """Runs what the file says now: without byte code, which would be written beside it and may be out of date."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled file."""
        del fullname
        return self.source_to_code(self.get_data(self.path), self.path)


def _broken(error: Exception, path: Path) -> BrokenFile:
    """Return what is wrong with a file that raised `error`, with the line of the file that did it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return BrokenFile(f"{type(error).__name__}: {error.msg}", error.lineno or 0)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return BrokenFile(f"{type(error).__name__}: {error}", (lines[-1] if lines else 0) or 0)

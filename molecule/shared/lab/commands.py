"""Running other programs, and the one kind of error that this package shows to people."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class LabError(Exception):
    """A sentence that says what is wrong and what to do about it."""


def run(*command: str | Path, text: str | None = None, keep: Sequence[int] = ()) -> str:
    """Run a program to its end and return what it printed.

    Args:
        command: The program and its arguments.
        text: What it reads from its standard input; nothing by default.
        keep: File descriptors that it inherits.

    Raises:
        LabError: It failed, or is not there.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=keep,
        )
    except FileNotFoundError:
        raise LabError(f"{words[0]} is missing; `python -m lab check` names what to install.") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise LabError(f"`{' '.join(words)}` failed with status {done.returncode}: {' / '.join(said[-12:])}")
    return done.stdout


def succeeds(*command: str | Path) -> bool:
    """Whether a program ends with status 0; for undoing what may not be there, and for questions."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return done.returncode == 0

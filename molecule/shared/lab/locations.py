"""Where the lab keeps things: images in the user's cache, labs in the user's state, locks beside the images."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION = "monktalk-lab"


def _base(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable, "")
    # The XDG specification: what is not absolute is ignored.
    return Path(chosen) if chosen.startswith("/") else Path.home() / default


def cache() -> Path:
    """The directory of images and locks. It outlives the labs."""
    return _base("XDG_CACHE_HOME", ".cache") / APPLICATION


def labs() -> Path:
    """The directory with one directory for each lab that exists."""
    return _base("XDG_STATE_HOME", ".local/state") / APPLICATION


@contextmanager
def lock(name: str) -> Iterator[int]:
    """Hold the lock of that name; wait for it when somebody else does. It is gone when the process is.

    Yields:
        Its file descriptor: a child that inherits it holds the lock as long as it lives.
    """
    directory = cache() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()

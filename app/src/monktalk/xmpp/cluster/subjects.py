"""The subjects of a cluster on NATS. All begin with the cluster's name, so that two may share a NATS server."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")
_USER_BYTES: Final = 12


class Subjects:
    """Makes subjects. Raises ValueError for a name that can't be part of one (letters, digits, ``-`` and ``_`` can)."""

    def __init__(self, cluster: str) -> None:
        self._prefix = token(cluster)
        self.everybody = self._make("all")
        self.beats = self._make("beat")

    def _make(self, *parts: str) -> bytes:
        return ".".join((self._prefix, *parts)).encode()

    def worker(self, name: str) -> bytes:
        """Frames for one worker."""
        return self._make("worker", name)

    def user(self, host: str, user: str) -> bytes:
        """For the home of one user: his name as a hash, since subjects may not hold every character of a name."""
        digest = blake2b(f"{host}\0{user}".encode(), digest_size=_USER_BYTES).hexdigest()
        return self._make("user", digest)

    def answers(self, name: str) -> bytes:
        """Answers to the questions of one worker; a question's own number follows."""
        return self._make("answer", name)

    def returns(self, name: str) -> bytes:
        """Where one worker learns that its frames did not find another; the other's name and a number follow."""
        return self._make("return", name)


def token(name: str) -> str:
    """The name, if it can be a part of a subject. Raises ValueError."""
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r}: a name on the bus is made of letters, digits, '-' and '_'")
    return name

"""What the benchmark needs of a server, and what all adapters share."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench import procfs
from bench.certificate import write_certificate
from bench.child import Child, ServerError
from bench.session import Account, Endpoint
from bench.transport import client_tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DOMAIN = "localhost"
LOOPBACK = "127.0.0.1"
PASSWORD = "correct horse battery"  # noqa: S105  # of accounts that live as long as this run

_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of CPU since the start: the XMPP server, and an authentication service apart if there is one."""

    server: float
    auth: float

    def since(self, earlier: CpuTimes) -> CpuTimes:
        """The difference to an earlier reading."""
        return CpuTimes(self.server - earlier.server, self.auth - earlier.auth)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change to a packaged configuration file.

    Attributes:
        pattern: a regular expression that must be found at least once.
        replacement: what every occurrence becomes, as for re.sub.
    """

    pattern: str
    replacement: str


def apply_edits(text: str, edits: Sequence[Edit], source: Path) -> str:
    """The configuration with all changes made.

    Raises:
        ServerError: a pattern was not found: the package's file is not the one these changes were written for.
    """
    for edit in edits:
        text, count = re.subn(edit.pattern, edit.replacement, text, flags=re.MULTILINE)
        if not count:
            raise ServerError(
                f"{source} does not contain what the benchmark has to change ({edit.pattern!r}): "
                "it is edited, or of a version that bench/servers does not know"
            )
    return text


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports of the loopback address that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


def bench_accounts(count: int) -> list[str]:
    """The localparts of the accounts that every server gets."""
    return [f"bench{number:05d}" for number in range(count)]


def account(number: int, accounts: int) -> Account:
    """Who the session with this number logs in as; beyond `accounts`, accounts get another resource each round."""
    return Account(f"bench{number % accounts:05d}", PASSWORD, f"r{number // accounts}")


class Server(ABC):
    """A server with its own folder; start() and stop() may be called again and again, data stays."""

    name: ClassVar[str]
    direct_tls: ClassVar[bool] = True

    def __init__(self, folder: Path, cores: set[int], accounts: int) -> None:
        """Use `folder` (which exists) for everything, run on `cores`, provide `accounts` accounts."""
        self.folder = folder
        self.cores = cores
        self.accounts = accounts
        self.child: Child | None = None
        self.port_plain, self.port_tls = free_ports(2)
        # Set once all accounts of the login workload have logged in for the first time.
        self.accounts_seen = False
        self._configured = False
        self._tls = client_tls_context("xmpp-client" if self.direct_tls else None)

    @classmethod
    @abstractmethod
    def missing(cls) -> str:
        """A sentence that says why this server cannot be measured here; empty when it can."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The version that is measured."""

    @abstractmethod
    def configure(self) -> None:
        """Write the configuration; called once, before the first start."""

    @abstractmethod
    def launch(self) -> Child:
        """Start the program."""

    def provision(self) -> None:  # noqa: B027  # nothing to do where configure() has already done it
        """Make the accounts; called once, when the server answers for the first time."""

    def start(self) -> None:
        """Start the server and wait until it answers; the first time, make its configuration and accounts.

        Raises:
            ServerError: it does not come up.
        """
        first = not self._configured
        if first:
            self.configure()
        self.child = self.launch()
        self._wait_until_up(self.child)
        if first:
            self.provision()
            self._configured = True

    def ensure_running(self) -> None:
        """Start the server unless it runs.

        Raises:
            ServerError: it does not come up.
        """
        if self.child is None or not self.child.running():
            self.restart()

    def restart(self) -> None:
        """Stop the server and start it again: data stays, caches do not.

        Raises:
            ServerError: it does not come up.
        """
        self.stop()
        self.start()

    def stop(self) -> None:
        """End the server and everything that it started."""
        child, self.child = self.child, None
        if child is not None:
            child.stop()

    def endpoint(self, *, tls: bool) -> Endpoint:
        """Where clients connect."""
        port = self.port_tls if tls and self.direct_tls else self.port_plain
        context: ssl.SSLContext | None = self._tls if tls else None
        return Endpoint((LOOPBACK, port), DOMAIN, context, direct=tls and self.direct_tls)

    def cpu(self) -> CpuTimes:
        """CPU used so far."""
        return CpuTimes(procfs.cpu_seconds(self._child().tree()), 0.0)

    def memory_kib(self) -> int:
        """Memory (PSS) of the XMPP server at this moment."""
        return procfs.pss_kib(self._child().tree())

    def _child(self) -> Child:
        if self.child is None or not self.child.running():
            end = "" if self.child is None else "\n" + self.child.last_lines()
            raise ServerError(f"{self.name} is not running{end}")
        return self.child

    def certificate(self) -> tuple[Path, Path]:
        """A certificate and key for DOMAIN in the server's folder."""
        return write_certificate(self.folder, DOMAIN)

    def give_away(self, user: str) -> str | None:
        """Make `user` the owner of the folder if we are root; returns the user to run as, None for ourselves."""
        if os.geteuid() != 0:
            return None
        entry = pwd.getpwnam(user)
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
        return user

    def _wait_until_up(self, child: Child) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if not child.running():
                raise ServerError(f"{self.name} ended while starting; {child.log} says:\n{child.last_lines()}")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} does not answer on port {self.port_plain} after {_START_SECONDS:g} s; "
                    f"{child.log} says:\n{child.last_lines()}"
                )
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether a client gets stream features on the plain port."""
        header = (
            f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' "
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        received = b""
        try:
            with socket.create_connection((LOOPBACK, self.port_plain), timeout=2.0) as probe:
                probe.sendall(header.encode())
                while b"<stream:features" not in received:
                    data = probe.recv(65536)
                    if not data:
                        return False
                    received += data
        except OSError:
            return False
        return True


def debian_version(package: str) -> str:
    """The installed version of a Debian package; empty when it is not installed."""
    try:
        answer = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except FileNotFoundError:
        return ""
    status, _, version = answer.stdout.partition(" ")
    return version if status == "installed" else ""


def child_environment(**extra: str) -> Mapping[str, str]:
    """A small environment for a child: nothing of ours but the path and the locale."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **extra}

#!/usr/bin/env python3
"""Take nodes off this join proxy and put them back, and reload it without losing what was said.

    joinproxy status                  every node, for every service: its state, and how many clients it has from here
    joinproxy drain NODE              no new clients for the node; those that it has stay
    joinproxy undrain NODE            new clients again
    joinproxy reload                  as `systemctl reload haproxy`: no connection is lost, drained nodes stay drained
    joinproxy watch                   close the connections of nodes that are gone; joinproxy-watch.service does it

--wait SECONDS waits until a drained node has no client left, or until the proxy leads clients to an undrained one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ADMIN: Final = Path("/run/haproxy/admin.sock")
MASTER: Final = Path("/run/haproxy-master.sock")
STATE: Final = Path("/run/joinproxy/server-state")

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.2
_WATCH_PAUSE: Final = 0.5
_TOTALS: Final = {"FRONTEND", "BACKEND"}
_OLD_WORKER: Final = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_TIME_IS_OVER: Final = 4


class ProxyError(Exception):
    """It can't be done; the message says why."""


@dataclass(frozen=True)
class Server:
    """A node as one service of the proxy sees it."""

    node: str
    service: str
    state: str
    """What HAProxy calls it: UP, DOWN, NOLB (not ready), DRAIN, MAINT."""
    check: str
    """How the last check ended."""
    clients: int

    @property
    def is_up(self) -> bool:
        """Whether new clients are led to it."""
        return self.state.split()[0] == "UP"

    @property
    def is_drained(self) -> bool:
        """Whether somebody has taken it off."""
        return self.state.split()[0] in {"DRAIN", "MAINT"}


def ask(path: Path, command: str) -> str:
    """Send a command to a socket of HAProxy.

    Raises:
        ProxyError: Nobody answers.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(path))
            connection.sendall(f"{command}\n".encode())
            connection.shutdown(socket.SHUT_WR)  # or the master waits for another one
            received = bytearray()
            while part := connection.recv(65536):
                received += part
    except OSError as error:
        raise ProxyError(f"HAProxy does not answer at {path}: {error.strerror or error}. Does it run?") from None
    return received.decode("utf-8", errors="replace")


def parse_servers(table: str) -> list[Server]:
    """The servers in what `show stat` says."""
    rows = csv.DictReader(table.lstrip("# ").splitlines())
    return [
        Server(row["svname"], row["pxname"], row["status"], row["check_status"].lstrip("* "), int(row["scur"] or 0))
        for row in rows
        if row["svname"] not in _TOTALS and row["pxname"]
    ]


def parse_old_workers(listing: str) -> list[int]:
    """The processes of former configurations, in what `show proc` of the master says: they keep their connections."""
    _, _, old = listing.partition("# old workers")
    return [int(match[1]) for match in _OLD_WORKER.finditer(old.partition("# programs")[0])]


def servers(old: bool = False) -> list[Server]:
    """All nodes for all services. With ``old``, clients of former processes count too."""
    found = parse_servers(ask(ADMIN, "show stat"))
    if not old:
        return found
    clients = {(server.service, server.node): server.clients for server in found}
    for worker in parse_old_workers(ask(MASTER, "show proc")):
        for server in parse_servers(ask(MASTER, f"@!{worker} show stat")):
            key = server.service, server.node
            clients[key] = clients.get(key, 0) + server.clients
    return [
        Server(server.node, server.service, server.state, server.check, clients[server.service, server.node])
        for server in found
    ]


def of_node(node: str, old: bool = False) -> list[Server]:
    """The node in each service.

    Raises:
        ProxyError: The proxy does not know it.
    """
    everything = servers(old)
    found = [server for server in everything if server.node == node]
    if not found:
        known = ", ".join(sorted({server.node for server in everything})) or "none"
        raise ProxyError(f"This proxy knows no node {node}. It knows {known}.")
    return found


def set_state(node: str, state: str) -> None:
    """Have each service drain the node, or use it again."""
    for server in of_node(node):
        answer = ask(ADMIN, f"set server {server.service}/{node} state {state}").strip()
        if answer:
            raise ProxyError(f"HAProxy refuses to set {node} of {server.service} to {state}: {answer}")
    save_state()


def save_state() -> None:
    """Write down what is drained and what is up, for the process that a reload starts."""
    text = ask(ADMIN, "show servers state")
    new = STATE.with_name(f"{STATE.name}.new")
    new.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    new.replace(STATE)


def reload() -> None:
    """Have the master start a process with the present configuration, and wait until it serves.

    Raises:
        ProxyError: It does not start; the former one goes on.
    """
    save_state()
    answer = ask(MASTER, "reload")
    if not answer.startswith("Success=1"):
        raise ProxyError(
            f"The configuration is refused, and the former one stays:\n{answer.partition('--')[2].strip()}"
        )


def wait(done: Callable[[], bool], seconds: float) -> bool:
    """Ask until it is done, or the time is over."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def drain(node: str, seconds: float) -> int:
    """Take a node off. Returns the exit status."""
    before = all(server.is_drained for server in of_node(node))
    if not before:
        set_state(node, "drain")
    sys.stdout.write(f"{'unchanged' if before else 'drained'}: {node} gets no new clients\n")
    if seconds and not wait(lambda: not any(server.clients for server in of_node(node, old=True)), seconds):
        left = sum(server.clients for server in of_node(node, old=True))
        sys.stderr.write(f"{node} still has {left} clients from here after {seconds:g} seconds.\n")
        return EXIT_TIME_IS_OVER
    return EXIT_OK


def undrain(node: str, seconds: float) -> int:
    """Put a node back. Returns the exit status."""
    before = not any(server.is_drained for server in of_node(node))
    if not before:
        set_state(node, "ready")
    sys.stdout.write(f"{'unchanged' if before else 'undrained'}: {node} gets new clients as soon as it is ready\n")
    if seconds and not wait(lambda: all(server.is_up for server in of_node(node)), seconds):
        states = ", ".join(f"{server.service} {server.state} ({server.check})" for server in of_node(node))
        sys.stderr.write(f"{node} is not ready after {seconds:g} seconds: {states}.\n")
        return EXIT_TIME_IS_OVER
    return EXIT_OK


class Watch:
    """Closes the connections of nodes that are down, so that their clients come back and get another one.

    Not at once: a stream that is just being connected to the node must not be closed (HAProxy closes it on one side only,
    and the client waits for ever). It has been given another node when the time to connect is over.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._down: dict[tuple[str, str], float] = {}
        # Connections that have been closed and wait for the node to confirm it, by process, service and node.
        self._ending: dict[tuple[str, str, str], int] = {}

    def look(self, now: float) -> list[tuple[str, str]]:
        """What is to be closed now: services and nodes that are down for long enough."""
        down = {(server.service, server.node) for server in servers() if server.state.split()[0] == "DOWN"}
        self._down = {key: self._down.get(key, now) for key in down}
        self._ending = {key: count for key, count in self._ending.items() if key[1:] in down}
        return sorted(key for key, since in self._down.items() if now - since >= self._delay)

    def close(self, gone: Sequence[tuple[str, str]]) -> None:
        """Close what is left of their connections, in the processes of former configurations as well."""
        processes: list[tuple[Path, str]] = [(ADMIN, "")]
        processes += [(MASTER, f"@!{worker} ") for worker in parse_old_workers(ask(MASTER, "show proc"))]
        for path, prefix in processes:
            for server in parse_servers(ask(path, f"{prefix}show stat")):
                key = prefix, server.service, server.node
                if key[1:] in gone and server.clients > self._ending.get(key, 0):
                    ask(path, f"{prefix}shutdown sessions server {server.service}/{server.node}")
                    number = server.clients - self._ending.get(key, 0)
                    sys.stdout.write(
                        f"{server.node} is down: its connections for {server.service} are closed, {number}\n"
                    )
                    sys.stdout.flush()
                if key[1:] in gone:
                    self._ending[key] = server.clients

    def run(self) -> None:
        """Watch for ever."""
        while True:
            gone = self.look(time.monotonic())
            if gone:
                self.close(gone)
            time.sleep(_WATCH_PAUSE)


def status(as_json: bool) -> int:
    """Print all nodes."""
    found = sorted(servers(old=True), key=lambda server: (server.service, server.node))
    if as_json:
        sys.stdout.write(json.dumps([asdict(server) for server in found]) + "\n")
        return EXIT_OK
    for server in found:
        sys.stdout.write(
            f"{server.node:<30} {server.service:<8} {server.state:<12} {server.clients:>6} clients   {server.check}\n"
        )
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 not done, 2 usage, 4 time is over."""
    parser = argparse.ArgumentParser(
        description="Take nodes off this join proxy and put them back, and reload it without losing what was said."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser("status", help="every node, for every service")
    show.add_argument("--json", action="store_true", help="as JSON")
    for name, text in (("drain", "no new clients for a node"), ("undrain", "new clients again")):
        command = commands.add_parser(name, help=text)
        command.add_argument("node", metavar="NODE")
        command.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait until it has taken effect")
    commands.add_parser("reload", help="read the configuration anew")
    watch = commands.add_parser("watch", help="close the connections of nodes that are gone, for ever")
    watch.add_argument(
        "--delay",
        type=float,
        default=1.5,
        metavar="SECONDS",
        help="longer than the time to connect (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        if options.command == "status":
            return status(options.json)
        if options.command == "reload":
            reload()
            return EXIT_OK
        if options.command == "watch":
            Watch(options.delay).run()
        return (drain if options.command == "drain" else undrain)(options.node, options.wait)
    except ProxyError as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())

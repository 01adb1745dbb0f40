"""A real NATS server for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.program import Program
from tests.support.stack import answers, free_port


class NatsServer:
    """One server on a free port of the loopback interface; with ``peers`` it is part of a cluster.

    ``options`` are lines of its configuration file. It reaches its peers at ``routes``, if these are given.
    """

    def __init__(
        self,
        directory: Path,
        name: str = "nats",
        *,
        options: str = "",
        peers: tuple[NatsServer, ...] = (),
        routes: tuple[int, ...] = (),
    ) -> None:
        command = shutil.which("nats-server") or "/usr/sbin/nats-server"
        assert Path(command).exists(), "nats-server is missing (Debian package nats-server)"
        self.port = free_port()
        self.route = free_port()
        ports = routes or tuple(peer.route for peer in peers)
        urls = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
        config = directory / f"{name}.conf"
        config.write_text(
            f"server_name: {name}\nlisten: 127.0.0.1:{self.port}\n{options}\n"
            f"cluster {{ name: test, listen: 127.0.0.1:{self.route}, no_advertise: true, routes: [{urls}] }}\n"
        )
        self.program = Program(name, [command, "-c", str(config)], directory / f"{name}.log")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for clients."""
        return "127.0.0.1", self.port

    def start(self) -> NatsServer:
        """Start it and wait until it takes clients."""
        self.program.start(lambda: answers(self.port))
        return self

    def stop(self) -> None:
        """End it."""
        self.program.stop()

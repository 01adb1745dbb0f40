"""What a command of the control socket works on: the running program, and what the caller has named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from monktalk.common.jid import InvalidJID, prepare_local
from monktalk.xmpp.admin.registry import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from monktalk.common.config import Config
    from monktalk.xmpp.cluster.bus import Peer
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.net.tls import TlsContexts


class ReloadReport(Protocol):
    """What a reload did: see :class:`monktalk.xmpp.program.ReloadReport`."""

    applied: list[str]
    restart_needed: list[str]


class Node(Protocol):
    """The running program, as far as commands need it."""

    path: Path
    config: Config
    server: Server
    tls: TlsContexts
    draining: bool

    async def reload(self) -> ReloadReport:
        """Read the configuration file again; raises ConfigError or OSError, and then nothing has changed."""
        ...

    def check(self) -> str:
        """Read the configuration file and what it refers to; returns a digest of it. Raises ConfigError or OSError."""
        ...

    async def drain(self) -> None:
        """Have load balancers send new connections to other nodes."""
        ...

    async def undrain(self) -> None:
        """Have load balancers send new connections here again."""
        ...


@dataclass(frozen=True)
class Context:
    """What a command works on. ``directory`` is the caller's, from which relative file names start."""

    node: Node
    directory: Path

    @property
    def server(self) -> Server:
        """The hosts and what they share."""
        return self.node.server

    @property
    def node_name(self) -> str:
        """How this node is called in answers to operators."""
        return node_name(self.server.node)

    def workers(self) -> list[Peer]:
        """The workers of this node."""
        return [peer for peer in self.server.bus.peers() if peer.node == self.server.node]

    def host(self, domain: str) -> VirtualHost:
        """The host of that name. Raises :class:`CommandError` when it is not served."""
        found = self.server.host_for(domain)
        if found is None:
            raise CommandError(f"{domain} is not served here; registered_vhosts lists the hosts that are.")
        return found

    def account(self, user: str, domain: str) -> tuple[VirtualHost, str]:
        """The host, and the user's name in the form in which it is stored; whether he exists is not looked up."""
        host = self.host(domain)
        try:
            return host, prepare_local(user)
        except InvalidJID as error:
            raise CommandError(f"{user!r} can't be the name of an account: {error}") from None

    async def existing(self, user: str, domain: str) -> tuple[VirtualHost, str]:
        """As :meth:`account`; raises :class:`CommandError` when there is no such account, and AuthUnavailable."""
        host, local = self.account(user, domain)
        if not await host.auth.exists(local):
            raise CommandError(f"User {local}@{host.domain} does not exist")
        return host, local

    def file(self, name: str) -> Path:
        """A file that the caller has named."""
        return self.directory / name


def node_name(node: str) -> str:
    """How a node is called in answers to operators, by its name in the cluster."""
    return f"mongooseim@{node}"

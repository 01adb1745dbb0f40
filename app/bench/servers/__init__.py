"""How each server is configured, started, provisioned and measured."""

from __future__ import annotations

from bench.servers.base import Server
from bench.servers.ejabberd import Ejabberd
from bench.servers.monktalk import MonkTalk
from bench.servers.prosody import Prosody

SERVERS: dict[str, type[Server]] = {server.name: server for server in (MonkTalk, Ejabberd, Prosody)}

__all__ = ["SERVERS", "Server"]

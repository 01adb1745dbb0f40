"""The server itself: what it is, its configuration, its figures, its log."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from monktalk.common import logging as log_setup
from monktalk.xmpp.admin.registry import CommandError, Result, Scope, Table, UsageError, command

if TYPE_CHECKING:
    from monktalk.xmpp.admin.context import Context

GROUP: Final = "Server"

_LEVELS: Final = ("none", "critical", "error", "warning", "info", "debug")
"""The place of a level in this row is its number."""


@command("status", "", "Tell whether the node is running, and since when.")
async def status(context: Context) -> Result:
    """The two lines that monitoring knows, and with ``--json`` more."""
    server = context.server
    version = metadata.version("monktalk")
    facts = {
        "node": context.node_name,
        "status": "started",
        "version": version,
        "pid": os.getpid(),
        "uptime_seconds": _uptime(context),
        "hosts": list(server.hosts),
        "sessions": sum(peer.sessions for peer in context.workers()),
        "database": "reachable" if server.storage.healthy() else "unreachable",
        "config": str(context.node.path.absolute()),
    }
    text = f"The node {context.node_name} is started with status: started\nMonkTalk version {version} is running on that node"
    return Result(text, facts)


@command("reload_local", "", "Read the configuration file again, without dropping sessions.")
async def reload_local(context: Context) -> Result:
    """A file that has problems is refused with a line for each, and nothing changes."""
    report = await context.node.reload()
    lines = [f"# Reloaded: {context.node_name}"]
    if report.restart_needed:
        lines.append(f"# Changed, but in force only after a restart: {', '.join(report.restart_needed)}")
    data = {"node": context.node_name, "applied": report.applied, "restart_needed": report.restart_needed}
    return Result("\n".join(lines), data)


@command("registered_vhosts", "", "List the hosts that are served.")
async def registered_vhosts(context: Context) -> list[str]:
    """The domains in the order of the configuration."""
    return list(context.server.hosts)


@command("cert_info", "", "List the certificates in use: host (* for all others), days left, last day, file.")
async def cert_info(context: Context) -> Table:
    """Days left are negative for a certificate that has ended."""
    now = datetime.now(UTC)
    rows = []
    for host, certificate in sorted(context.node.tls.certificates().items()):
        left = math.floor((certificate.not_after - now).total_seconds() / 86400)
        rows.append((host, left, certificate.not_after.date().isoformat(), str(certificate.path)))
    return Table(("host", "days_left", "not_after", "path"), rows)


@command(
    "stats",
    "NAME",
    "One figure: registeredusers, onlineusers, onlineusersnode or uptimeseconds.",
    scope={"onlineusers": Scope.EVERYWHERE, "onlineusersnode": Scope.NODE},
)
async def stats(context: Context, name: str) -> int:
    """Figures of all hosts together; registered users are the accounts that the servers have seen."""
    domains = list(context.server.hosts)
    if name == "registeredusers":
        return sum([await context.server.storage.accounts.count(domain) for domain in domains])
    if name in ("onlineusers", "onlineusersnode"):
        return sum(_online(context, domain) for domain in domains)
    if name == "uptimeseconds":
        return _uptime(context)
    raise UsageError(f"There is no figure {name!r}: registeredusers, onlineusers, onlineusersnode, uptimeseconds.")


@command(
    "stats_host",
    "NAME HOST",
    "One figure of a host: registeredusers or onlineusers.",
    scope={"onlineusers": Scope.EVERYWHERE},
)
async def stats_host(context: Context, name: str, domain: str) -> int:
    """As :func:`stats`, for one host."""
    host = context.host(domain)
    if name == "registeredusers":
        return await context.server.storage.accounts.count(host.domain)
    if name == "onlineusers":
        return _online(context, host.domain)
    raise UsageError(f"There is no figure {name!r} of a host: registeredusers, onlineusers.")


def _online(context: Context, domain: str) -> int:
    return sum(len(resources) for resources in context.server.hosts[domain].sessions.values())


def _uptime(context: Context) -> int:
    return int(context.server.clock.now() - context.server.started)


@command("get_loglevel", "", "Tell how much is logged on this node.")
async def get_loglevel(_context: Context) -> Result:
    """The level by name and by number, 0 (nothing) to 5 (everything)."""
    return _loglevel(log_setup.get_level())


@command(
    "set_loglevel",
    "LEVEL",
    "Log from this level on, on this node, until the next reload: none … debug, or 0 … 5.",
    scope=Scope.NODE,
)
async def set_loglevel(_context: Context, level: str) -> Result:
    """Change the level of the running server; the configuration stays as it is."""
    name = _LEVELS[int(level)] if level in map(str, range(len(_LEVELS))) else level.lower()
    try:
        log_setup.set_level(name)
    except ValueError as error:
        raise CommandError(str(error)) from None
    return _loglevel(name)


def _loglevel(name: str) -> Result:
    number = _LEVELS.index(name)
    data: dict[str, Any] = {"level": name, "number": number}
    return Result(f"global loglevel is {number}, which means '{name}'", data)

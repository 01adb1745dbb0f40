"""The cluster: what belongs to it and how it is, reloading and draining nodes, joining and leaving."""

from __future__ import annotations

import asyncio
from importlib import metadata
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.logging import get_logger
from monktalk.xmpp.admin import operations
from monktalk.xmpp.admin.context import node_name
from monktalk.xmpp.admin.nodes import Nodes, compatible, parse_node
from monktalk.xmpp.admin.registry import ERROR, OK, CommandError, Result, UsageError, command
from monktalk.xmpp.core.calls import Replies, describe
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monktalk.xmpp.admin.context import Context
    from monktalk.xmpp.cluster.bus import Bus, Peer

log = get_logger(__name__)

GROUP: Final = "Cluster"

DRAIN_SECONDS: Final = 30
"""How long draining takes, unless the operator says something else."""

MOST_DRAIN_SECONDS: Final = 540
"""mongooseimctl does not wait longer for an answer than this and the calls' own limits."""

_RELOAD_SECONDS: Final = 60.0
_SPARE_SECONDS: Final = 10.0
_ABSENT: Final = "it is not on the bus; it reads its file when it starts"


def _bus(context: Context) -> Bus:
    """The bus. Raises :class:`CommandError` on a server that is alone."""
    bus = context.server.bus
    if bus.alone:
        raise CommandError(
            f'The node {context.node_name} is alone: its configuration names no bus ([cluster] bus = "nats").'
        )
    return bus


def _reached(context: Context) -> Bus:
    """The bus. Raises :class:`CommandError` also when it can't be reached."""
    bus = _bus(context)
    if not bus.connected:
        raise CommandError("The bus can't be reached: no NATS server of [cluster] servers lets this node in.")
    return bus


def _nodes(peers: Iterable[Peer]) -> dict[str, list[Peer]]:
    """Workers by node; those of one node follow each other already."""
    return {node: list(group) for node, group in groupby(peers, key=lambda peer: peer.node)}


# -- status ------------------------------------------------------------------------------------------------------


@command("cluster_status", "", "Show all nodes and workers of the cluster; an error when something is missing.")
async def cluster_status(context: Context) -> Result:
    """A line a worker: node, number, version, seconds since its start, sessions, state. Then what is not as it should be."""
    bus = _bus(context)
    problems: list[str] = []
    if not bus.connected:
        problems.append("The bus can't be reached, so nothing is known of the other nodes.")
    expected, database = await _expected(context, problems)
    peers = bus.peers() if bus.connected else [peer for peer in bus.peers() if peer.name == bus.worker]
    replies = await context.server.calls.everywhere(operations.FACTS, peers=peers)
    facts = {peer.name: answer for peer, answer in replies.answers}
    problems += [reason for _, reason in replies.failures]
    problems += [
        f"{describe(peer)} can't reach the database."
        for peer, answer in replies.answers
        if answer["database"] != "reachable" and (database or peer.name != bus.worker)
    ]
    missing = bus.missing()
    workers = _nodes(peers)
    problems += [f"{describe(peer)} has vanished." for peer in missing]
    if bus.connected:
        problems += [
            f"The node {node_name(node)} is missing: it is not on the bus." for node in expected if node not in workers
        ]
    members = [
        _member(node, workers.get(node, []), [peer for peer in missing if peer.node == node], facts, expected)
        for node in sorted({*workers, *expected, *(peer.node for peer in missing)})
    ]
    data = {
        "cluster": context.node.config.section("cluster").name,
        "bus": "reachable" if bus.connected else "unreachable",
        "database": "reachable" if database else "unreachable",
        "members": members,
        "problems": problems,
    }
    return Result(_status_text(data), data, ERROR if problems else OK, problems)


async def _expected(context: Context, problems: list[str]) -> tuple[list[str], bool]:
    """The nodes that are expected, and whether the database could tell them."""
    try:
        async with asyncio.timeout(_SPARE_SECONDS):
            return await Nodes(context.server).names(), True
    except (StorageUnavailable, TimeoutError) as error:
        reason = str(error) or f"no answer within {_SPARE_SECONDS:g} s"
        problems.append(f"The database can't be reached, so it is not known which nodes are expected: {reason}")
        return [], False


def _member(
    node: str, peers: Sequence[Peer], missing: Sequence[Peer], facts: dict[str, Any], expected: Sequence[str]
) -> dict[str, Any]:
    workers = [_worker(peer, facts.get(peer.name)) for peer in peers]
    workers += [
        {"number": peer.number, "name": peer.name, "version": peer.version, "state": "missing"} for peer in missing
    ]
    states = {worker["state"] for worker in workers} or {"missing"}
    return {
        "node": node,
        "expected": node in expected,
        "state": states.pop() if len(states) == 1 else "partly",
        "sessions": sum(worker.get("sessions", 0) for worker in workers),
        "workers": workers,
    }


def _worker(peer: Peer, facts: dict[str, Any] | None) -> dict[str, Any]:
    known: dict[str, Any] = {"number": peer.number, "name": peer.name}
    if facts is None:
        return {**known, "version": peer.version, "state": "silent"}
    return {**known, **facts, "state": "draining" if facts["draining"] else "serving"}


def _status_text(data: dict[str, Any]) -> str:
    members = data["members"]
    count = sum(len(member["workers"]) for member in members)
    head = f"Cluster {data['cluster']}: {_many(len(members), 'node')}, {_many(count, 'worker')}"
    lines = [f"{head}; the bus is {data['bus']}, the database is {data['database']}"]
    for member in members:
        name = node_name(member["node"])
        if not member["workers"]:
            lines.append("\t".join((name, "", "", "", "", member["state"])))
        for worker in member["workers"]:
            values = [worker.get(key, "") for key in ("number", "version", "uptime_seconds", "sessions", "state")]
            lines.append("\t".join((name, *map(str, values))))
    return "\n".join(lines)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# -- reload ------------------------------------------------------------------------------------------------------


@command("reload_cluster", "", "Read the configuration file again on all nodes, or on none when one refuses its file.")
async def reload_cluster(context: Context) -> Result:
    """Every node checks its own file before any applies it. Exit code 1 when a node refuses, fails, or is missing."""
    bus = _reached(context)
    calls, peers = context.server.calls, bus.peers()
    failed = await _absent(context, peers)
    checks = await calls.everywhere(operations.CHECK, peers=peers, seconds=_RELOAD_SECONDS)
    if checks.failures:
        refusing = _reasons(checks.failures)
        log.warning("reload_cluster_refused", nodes=",".join(refusing))
        return _reload_answer({}, failed | refusing, [peer.node for peer in peers])
    # One worker of a node reloads all of it.
    first = {peer.node: (peer, digest) for peer, digest in reversed(checks.answers)}
    reports = await asyncio.gather(
        *(
            calls.everywhere(operations.APPLY, digest, peers=[peer], seconds=_RELOAD_SECONDS)
            for peer, digest in first.values()
        )
    )
    applied = Replies(
        [answer for replies in reports for answer in replies.answers],
        [failure for replies in reports for failure in replies.failures],
    )
    failed |= _reasons(applied.failures)
    done: dict[str, dict[str, Any]] = {peer.node: report for peer, report in applied.answers if peer.node not in failed}
    return _reload_answer(done, failed, [])


async def _absent(context: Context, peers: Sequence[Peer]) -> dict[str, list[str]]:
    """The nodes that can't be asked, with the reason."""
    expected, _ = await _expected(context, [])
    there = {peer.node for peer in peers}
    absent = {node: [_ABSENT] for node in expected if node not in there}
    for peer in context.server.bus.missing():
        absent.setdefault(peer.node, [f"worker {peer.number} does not answer any more"])
    return absent


def _reasons(failures: Sequence[tuple[Peer, str]]) -> dict[str, list[str]]:
    """Why each node has failed; workers of a node that say the same say it once."""
    found: dict[str, list[str]] = {}
    for peer, reason in failures:
        reasons = found.setdefault(peer.node, [])
        reasons += [line for line in reason.splitlines() if line not in reasons]
    return found


def _reload_answer(done: dict[str, Any], failed: dict[str, list[str]], spared: Sequence[str]) -> Result:
    """``spared`` are the nodes that have nothing to be blamed for, but whose reload was called off."""
    lines = ["# Reloaded:", *map(node_name, sorted(done))]
    waiting = sorted({option for report in done.values() for option in report["restart_needed"]})
    if waiting:
        lines.append(f"# Changed, but in force only after a restart: {', '.join(waiting)}")
    if failed:
        lines.append("# Failed:")
        lines += [f"{node_name(node)} {reason}" for node in sorted(failed) for reason in failed[node]]
    rows = [
        {"node": node, "reloaded": node in done, "reasons": failed.get(node, []), **_report(done.get(node))}
        for node in sorted({*done, *failed, *spared})
    ]
    return Result("\n".join(lines), rows, ERROR if failed else OK)


def _report(report: dict[str, Any] | None) -> dict[str, list[str]]:
    return {key: list(report[key]) if report is not None else [] for key in ("applied", "restart_needed")}


# -- draining ----------------------------------------------------------------------------------------------------


@command(
    "drain", "[SECONDS]", "Send the clients of this node to other nodes, within SECONDS (30); it takes no new users."
)
async def drain(context: Context, *arguments: str) -> Result:
    """Load balancers are told at once, clients in portions. The node serves again after a restart, or ``join_cluster``."""
    _bus(context)
    return await _drain(context, _seconds(arguments))


def _seconds(arguments: Sequence[str]) -> int:
    text = arguments[0] if arguments else str(DRAIN_SECONDS)
    if not text.isdecimal() or not text.isascii() or int(text) > MOST_DRAIN_SECONDS:
        raise UsageError(f"SECONDS is a number from 0 to {MOST_DRAIN_SECONDS}, not {text!r}.")
    return int(text)


async def _drain(context: Context, seconds: int) -> Result:
    replies = await context.server.calls.everywhere(
        operations.DRAIN, seconds, peers=context.workers(), seconds=seconds + _SPARE_SECONDS
    )
    warnings = [reason for _, reason in replies.failures]
    ended = sum(replies.values())
    text = f"The node {context.node_name} is drained, {_many(ended, 'session')} ended"
    data = {"node": context.server.node, "ended": ended, "problems": warnings}
    return Result(text, data, ERROR if warnings else OK, warnings)


# -- joining and leaving -----------------------------------------------------------------------------------------


@command("join_cluster", "NODE", "Make this node a member of the cluster that NODE belongs to.")
async def join_cluster(context: Context, other: str) -> str:
    """NODE has to be on the bus already. From then on ``cluster_status`` misses this node when it is not there."""
    bus, node = _reached(context), parse_node(other)
    if node == context.server.node:
        raise UsageError(f"{node_name(node)} is this node: name another one.")
    workers = _nodes(bus.peers()).get(node)
    if workers is None:
        raise CommandError(
            f"The node {node_name(node)} is not on the bus. Is it running, is its NATS server connected to this one's, and "
            "does it have the same [cluster] name?"
        )
    own = metadata.version("monktalk")
    for peer in workers:
        if not compatible(own, peer.version):
            raise CommandError(
                f"{describe(peer)} is of version {peer.version}, this node of {own}: they can't be in one cluster."
            )
    await context.server.calls.at(workers[0], operations.FACTS)
    members = Nodes(context.server)
    await members.add(node, workers[0].version)
    await members.add(context.server.node, own)
    replies = await context.server.calls.everywhere(operations.UNDRAIN, peers=context.workers())
    if replies.failures:
        raise CommandError("\n".join(reason for _, reason in replies.failures))
    log.info("cluster_joined", by=node)
    return (
        f"You have successfully joined the node {context.node_name} to the cluster with node member {node_name(node)}"
    )


@command("leave_cluster", "[SECONDS]", "Drain this node, and expect it in the cluster no more.")
async def leave_cluster(context: Context, *arguments: str) -> Result:
    """The node stays on the bus, without users, until it is stopped."""
    bus, node = _reached(context), context.server.node
    drained = await _drain(context, _seconds(arguments))
    await Nodes(context.server).remove(node)
    bus.notify(operations.LEFT, node)
    log.info("cluster_left", ended=drained.data["ended"])
    text = f"The node {context.node_name} has successfully left the cluster. Stop it, or take it back by join_cluster."
    return Result(text, drained.data, drained.code, drained.warnings)


@command("remove_from_cluster", "NODE", "Expect a dead node in the cluster no more.")
async def remove_from_cluster(context: Context, other: str) -> str:
    """A node that is alive leaves by itself: ``leave_cluster`` there."""
    bus, node = _reached(context), parse_node(other)
    if node in _nodes(bus.peers()):
        raise CommandError(f"The node {node_name(node)} is alive: run leave_cluster there.")
    vanished = any(peer.node == node for peer in bus.missing())
    removed = await Nodes(context.server).remove(node)
    if not removed and not vanished:
        raise CommandError(f"The node {node_name(node)} is no member of the cluster.")
    bus.forget(node)
    bus.notify(operations.LEFT, node)
    log.info("node_removed", node=node)
    return f"The node {node_name(node)} has been removed from the cluster"

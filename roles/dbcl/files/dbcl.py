#!/usr/bin/env python3
"""What a member of a DBCL does beside Patroni: check the cluster, guard its leader, make backups.

    dbcl check          say what is wrong; exit status 0 (nothing), 1 (something), 2 (commits or backups do not work)
    dbcl wait           wait until the cluster is complete: a leader, enough synchronous standbys, every member streams
    dbcl leader         print the name of the leader
    dbcl guard          end the lease of a leader that has died with its host, long before it would end by itself
    dbcl backup full    make a backup, where the repository is; also `diff`

Needs /etc/dbcl/dbcl.json, which the role writes, and the member's certificate.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS: Final = Path("/etc/dbcl/dbcl.json")
ANSWER_TIME: Final = 3.0
CERTIFICATE_DAYS: Final = 60
SECONDS_A_DAY: Final = 86400
WARNING, CRITICAL = 1, 2
# As Patroni names them, by the mode of synchronous replication.
SYNCHRONOUS: Final = {"sync_standby", "quorum_standby"}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong: how bad it is, and a sentence."""

    severity: int
    text: str


class Cluster:
    """The cluster as its members tell it, asked over HTTPS with this member's certificate.

    Args:
        settings: The content of the settings file.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.name: str = settings["name"]
        self.member: str = settings["member"]
        self.addresses: dict[str, str] = {each["name"]: each["address"] for each in settings["members"]}
        self.settings = settings
        self.certificates: dict[str, float] = {}
        self._context = ssl.create_default_context(cafile=settings["ca"])
        self._context.load_cert_chain(settings["certificate"], settings["key"])

    def ask(self, member: str, port: str, path: str, body: Any = None) -> Any:
        """What a member answers, or None; the end of its certificate is noted.

        Args:
            member: Its name.
            port: `patroni` or `etcd`.
            path: The path of the URL.
            body: Is posted as JSON, if given.
        """
        address = self.addresses[member]
        connection = http.client.HTTPSConnection(
            address, self.settings["ports"][port], timeout=ANSWER_TIME, context=self._context
        )
        try:
            connection.connect()
            if isinstance(connection.sock, ssl.SSLSocket):
                ends = str((connection.sock.getpeercert() or {}).get("notAfter", ""))
                self.certificates[member] = ssl.cert_time_to_seconds(ends)
            text = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, text, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def members(self) -> list[dict[str, Any]]:
        """The members as Patroni sees them; empty when nobody answers."""
        with ThreadPoolExecutor(len(self.addresses)) as pool:
            answers = pool.map(lambda name: self.ask(name, "patroni", "/cluster"), self.addresses)
        return newest([list(each["members"]) for each in answers if isinstance(each, dict) and "members" in each])

    def etcd(self, path: str, body: Any) -> Any:
        """What etcd answers, through the member itself or, where it has no answer, through another one."""
        for name in sorted(self.addresses, key=lambda name: name != self.member):
            answer = self.ask(name, "etcd", path, body)
            if isinstance(answer, dict) and "error" not in answer:
                return answer
        return None

    def accepts(self, member: str) -> bool:
        """Whether anything at all accepts a connection at a member: Patroni, the database or etcd."""

        def connects(port: int) -> bool:
            try:
                socket.create_connection((self.addresses[member], port), timeout=1).close()
            except OSError:
                return False
            return True

        ports = [self.settings["ports"][name] for name in ("patroni", "database", "etcd")]
        with ThreadPoolExecutor(len(ports)) as pool:
            return any(pool.map(connects, ports))


# -- checking ----------------------------------------------------------------------------------------------------


def newest(answers: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of what several members say, the one that knows the latest leader: who was cut off knows a former one."""
    timelines = [
        max((int(each.get("timeline") or 0) for each in members if each["role"] == "leader"), default=-1)
        for members in answers
    ]
    return answers[timelines.index(max(timelines))] if answers else []


def leader_of(members: Sequence[dict[str, Any]]) -> str:
    """The name of the leader; empty when there is none."""
    return next((str(each["name"]) for each in members if each["role"] == "leader" and each["state"] == "running"), "")


def problems_of_members(members: Sequence[dict[str, Any]], settings: dict[str, Any]) -> list[Problem]:
    """What is wrong with the leader, the standbys and what they lack."""
    if not members:
        return [Problem(CRITICAL, "no member answers: Patroni runs nowhere, or etcd has lost its majority")]
    found = []
    leader = leader_of(members)
    if not leader:
        found.append(Problem(CRITICAL, "there is no leader: nothing can be written"))
    needed = settings["synchronous_node_count"]
    synchronous = [each for each in members if each["role"] in SYNCHRONOUS and each["state"] == "streaming"]
    if len(synchronous) < needed:
        text = f"{len(synchronous)} of {needed} synchronous standbys stream: commits wait until there are enough"
        found.append(Problem(CRITICAL, text))
    present = {each["name"]: each for each in members}
    for name in (each["name"] for each in settings["members"]):
        found += _problems_of_member(name, present.get(name), settings)
    return found


def _problems_of_member(name: str, member: dict[str, Any] | None, settings: dict[str, Any]) -> list[Problem]:
    if member is None:
        return [Problem(WARNING, f"{name} is missing")]
    if member["role"] == "leader":
        return []
    if member["state"] != "streaming":
        return [Problem(WARNING, f"{name} does not stream from the leader: {member['state']}")]
    if settings["synchronous_mode"] == "quorum" and member["role"] not in SYNCHRONOUS:
        return [Problem(WARNING, f"{name} is not synchronous")]
    lag = member.get("lag", 0)
    if not isinstance(lag, int) or lag > settings["lag_mb"] * 2**20:
        size = f"{lag // 2**20} MB" if isinstance(lag, int) else str(lag)
        return [Problem(WARNING, f"{name} is behind the leader: {size}")]
    return []


def problems_of_certificates(ends: dict[str, float], now: float) -> list[Problem]:
    """Which members' certificates end soon; a run of the playbook makes new ones."""
    days = {name: int((end - now) / SECONDS_A_DAY) for name, end in ends.items()}
    return [
        Problem(WARNING, f"the certificate of {name} ends in {left} days: run playbooks/database.yml")
        for name, left in sorted(days.items())
        if left < CERTIFICATE_DAYS
    ]


def problems_of_backups(answer: str, now: float, hours: int) -> list[Problem]:
    """What is wrong with the backups, from what `pgbackrest info --output=json` has printed."""
    try:
        stanzas = json.loads(answer)
    except ValueError:
        return [Problem(CRITICAL, "the repository of the backups does not answer")]
    if not stanzas or stanzas[0]["status"]["code"] not in {0, 2}:
        why = stanzas[0]["status"]["message"] if stanzas else "nothing is there"
        return [Problem(CRITICAL, f"the repository of the backups is not usable: {why}")]
    made = [each["timestamp"]["stop"] for each in stanzas[0].get("backup", []) if not each.get("error")]
    if not made:
        return [Problem(CRITICAL, "there is no backup")]
    age = int((now - max(made)) / 3600)
    return [Problem(CRITICAL, f"the last backup is {age} hours old")] if age >= hours else []


def problems_of_archiving(answer: str) -> list[Problem]:
    """Whether the leader gets rid of its log: what psql has printed is the number of seconds it has not."""
    seconds = answer.strip()
    if seconds.isdigit() and int(seconds) > 300:
        return [Problem(CRITICAL, f"the log has not been archived for {int(seconds) // 60} minutes")]
    return []


_ARCHIVING = """
select extract(epoch from now() - coalesce(last_archived_time, stats_reset))::int from pg_stat_archiver
where last_failed_time > coalesce(last_archived_time, '-infinity') and not pg_is_in_recovery()
"""


def check(cluster: Cluster) -> list[Problem]:
    """Everything that is wrong now."""
    members = cluster.members()
    for name in cluster.addresses:
        cluster.ask(name, "patroni", "/health")
    found = problems_of_members(members, cluster.settings)
    found += problems_of_certificates(cluster.certificates, time.time())
    info = _as_postgres("pgbackrest", f"--stanza={cluster.name}", "--output=json", "info")
    found += problems_of_backups(info, time.time(), cluster.settings["backup_hours"])
    if leader_of(members) == cluster.member:
        found += problems_of_archiving(_as_postgres("psql", "-XqtA", "-d", "postgres", "-c", _ARCHIVING))
        if any(each["state"] == "starting" for each in members):
            # A standby that was rewound waits for the next record of the log, which a quiet night does not bring.
            _as_postgres("psql", "-XqtA", "-d", "postgres", "-c", "select pg_log_standby_snapshot()")
    return found


def _as_postgres(*command: str) -> str:
    """What a command prints that the user postgres runs; empty when it fails."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    try:
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False, timeout=60, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def say(problems: Sequence[Problem]) -> int:
    """Print the problems, for people or with the levels of the journal. Returns the exit status."""
    for problem in sorted(problems, key=lambda problem: -problem.severity):
        level = {WARNING: "<4>", CRITICAL: "<3>"}[problem.severity] if "JOURNAL_STREAM" in os.environ else ""
        word = {WARNING: "warning", CRITICAL: "critical"}[problem.severity]
        print(f"{level}{word}: {problem.text}")
    if not problems:
        print("all is well")
    return max((problem.severity for problem in problems), default=0)


def wait(cluster: Cluster, seconds: float, member: str) -> int:
    """Wait until nothing is wrong with the members, or with one of them. Returns the exit status."""
    deadline = time.monotonic() + seconds
    while True:
        members = cluster.members()
        found = problems_of_members(members, cluster.settings)
        if member:
            found = [each for each in found if each.severity == CRITICAL or each.text.startswith(f"{member} ")]
        if not found:
            return 0
        if time.monotonic() > deadline:
            return say(found)
        time.sleep(0.5)


# -- guarding the leader -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """Who leads, by which lease, and for how many seconds that is still good."""

    leader: str
    number: str
    left: int


def lease_of(cluster: Cluster) -> Lease | None:
    """The lease of the leader, as etcd has it."""
    key = base64.b64encode(f"/dbcl/{cluster.name}/leader".encode()).decode()
    answer = cluster.etcd("/v3/kv/range", {"key": key})
    entries = (answer or {}).get("kvs", [])
    if not entries or "lease" not in entries[0]:
        return None
    number = str(entries[0]["lease"])
    life = cluster.etcd("/v3/lease/timetolive", {"ID": number})
    if life is None:
        return None
    return Lease(base64.b64decode(entries[0]["value"]).decode(), number, int(life.get("TTL", 0)))


def has_died(cluster: Cluster, lease: Lease) -> bool:
    """Whether the leader has not renewed its lease, accepts no connection, and no member receives anything from it.

    All of it: a leader whose Patroni hangs goes on serving, and one that only this member cannot reach is seen by others.
    """
    silence = 2 * cluster.settings["loop_wait"] + cluster.settings["guard_seconds"] - 2
    if lease.left > cluster.settings["ttl"] - silence:
        return False
    if lease.leader not in cluster.addresses or cluster.accepts(lease.leader):
        return False
    for name in cluster.addresses:
        answer = None if name == lease.leader else cluster.ask(name, "patroni", "/patroni")
        if isinstance(answer, dict) and answer.get("replication_state") == "streaming":
            return False
    return True


def guard(cluster: Cluster) -> int:
    """Watch the leader until stopped."""
    silent = 0
    while True:
        time.sleep(1)
        lease = lease_of(cluster)
        if lease is None or lease.leader == cluster.member or not has_died(cluster, lease):
            silent = 0
            continue
        silent += 1
        if silent >= 2 and cluster.etcd("/v3/lease/revoke", {"ID": lease.number}) is not None:
            print(f"<4>{lease.leader} has died with its host: its lease was ended {lease.left} s early")
            silent = 0


# -- backups -----------------------------------------------------------------------------------------------------


def backup(cluster: Cluster, kind: str) -> int:
    """Make a backup; where all members share the repository, only the leader does. Returns the exit status."""
    if not cluster.settings["backup_here"] and leader_of(cluster.members()) != cluster.member:
        print("another member leads, and makes the backup")
        return 0
    command = ["pgbackrest", f"--stanza={cluster.name}", f"--type={kind}", "backup"]
    done = subprocess.run(command, check=False, cwd="/")
    print(f"{kind} backup made" if done.returncode == 0 else f"<3>the {kind} backup has failed: {done.returncode}")
    return done.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="What a member of a DBCL does beside Patroni.")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say what is wrong")
    commands.add_parser("guard", help="end the lease of a leader that has died with its host")
    commands.add_parser("leader", help="print the name of the leader")
    waiting = commands.add_parser("wait", help="wait until the cluster is complete")
    waiting.add_argument("--seconds", type=float, default=60, help="how long at most (default: %(default)s)")
    waiting.add_argument("--member", default="", help="only this one, besides leader and synchronous standbys")
    commands.add_parser("backup", help="make a backup").add_argument("kind", choices=["full", "diff", "incr"])
    options = parser.parse_args(arguments)
    try:
        cluster = Cluster(json.loads(options.settings.read_text("utf-8")))
    except (OSError, ValueError, KeyError) as error:
        print(f"{options.settings} or the certificate cannot be used: {error}", file=sys.stderr)
        return CRITICAL
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if options.command == "leader":
        leader = leader_of(cluster.members())
        print(leader)
        return 0 if leader else CRITICAL
    if options.command == "wait":
        return wait(cluster, options.seconds, options.member)
    if options.command == "guard":
        return guard(cluster)
    if options.command == "backup":
        return backup(cluster, options.kind)
    return say(check(cluster))


if __name__ == "__main__":
    sys.exit(main())

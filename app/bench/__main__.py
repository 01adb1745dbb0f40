"""The command line: python -m bench --servers monktalk,ejabberd,prosody --workloads chat,login,idle."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import sasl
from bench.child import raise_file_limit
from bench.report import tables, write_records
from bench.results import WORKLOADS, Record, faulty, make_records
from bench.runner import Plan, Run
from bench.servers import SERVERS
from bench.workloads import Load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

EXIT_OK, EXIT_FAULTY, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

_BOTH = {"both": (False, True), "off": (False,), "on": (True,)}


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown: {name!r} (known: {', '.join(known)})")
        if not names:
            raise argparse.ArgumentTypeError(f"name at least one of {', '.join(known)}")
        return list(dict.fromkeys(names))

    return parse


def positive(text: str) -> int:
    """A number that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _windows(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: it is wrong (status 2), or help was asked for.
    """
    usual, quick = Load(), Load(warm_up=0.5, duration=1.5, logins=200, sessions=500)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--servers", type=names(list(SERVERS)), default=list(SERVERS), help="default: all that are installed")
    add("--workloads", type=names(WORKLOADS), default=list(WORKLOADS), help="default: %(default)s")
    add("--repetitions", type=positive, help="default: 3, with --quick 1")
    add("--tls", choices=_BOTH, default="both", help="connections with TLS, without, or both (default)")
    add("--sm", choices=_BOTH, default="both", help="chat with stream management, without, or both (default)")
    add("--windows", type=_windows, default=usual.windows, help="messages on the way for each pair: 1,10")
    add("--pairs", type=positive, default=usual.pairs, help="chatting pairs (%(default)s)")
    add("--warm-up", type=float, help=f"seconds before chat is measured ({usual.warm_up})")
    add("--duration", type=float, help=f"seconds that chat is measured ({usual.duration})")
    add("--logins", type=positive, help=f"logins in a measurement ({usual.logins})")
    add("--sessions", type=positive, help=f"idle sessions ({usual.sessions})")
    add("--accounts", type=positive, default=usual.accounts, help="accounts on each server (%(default)s)")
    add("--mechanism", choices=sasl.MECHANISMS, default=usual.mechanism, help="SASL mechanism (%(default)s)")
    add("--core", type=int, default=0, help="core of the servers; the load comes from the others (%(default)s)")
    add("--quick", action="store_true", help="one short repetition, to see that everything works")
    add("--output", type=Path, default=Path("var/bench/latest.json"), help="file of records (%(default)s)")
    add("--keep", action="store_true", help="keep the servers' folders with configurations and logs")
    options = parser.parse_args(arguments)
    defaults = quick if options.quick else usual
    for name in ("warm_up", "duration", "logins", "sessions"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(defaults, name))
    if options.repetitions is None:
        options.repetitions = 1 if options.quick else 3
    try:
        options.load = Load(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Load)})
    except ValueError as error:
        parser.error(str(error))
    return options


def _plan(options: argparse.Namespace, servers: Sequence[str]) -> Plan:
    return Plan(
        servers=servers,
        workloads=[workload for workload in WORKLOADS if workload in options.workloads],
        tls=_BOTH[options.tls],
        managements=_BOTH[options.sm],
        repetitions=options.repetitions,
        load=options.load,
        cores={options.core},
    )


def _installed(names: Sequence[str]) -> list[str]:
    """Those that can be measured here; says why the others cannot."""
    usable = []
    for name in names:
        reason = SERVERS[name].missing()
        if reason:
            print(f"{reason} It is left out.", file=sys.stderr)
        else:
            usable.append(name)
    return usable


def share_cores(core: int) -> str:
    """Move this process off the servers' core; returns what is wrong with the machine, or nothing."""
    available = os.sched_getaffinity(0)
    if core not in available:
        return f"There is no core {core} here; available: {', '.join(map(str, sorted(available)))}."
    others = available - {core}
    if others:
        os.sched_setaffinity(0, others)
    else:
        print("One core only: servers and load generator share it, wall figures mean little.", file=sys.stderr)
    if os.getloadavg()[0] > 0.5:
        print(
            f"Something else keeps this machine busy (load {os.getloadavg()[0]:.1f}): "
            "compare ratios, not absolute figures.",
            file=sys.stderr,
        )
    return ""


def _measure(options: argparse.Namespace, servers: Sequence[str]) -> tuple[list[Record], list[str]]:
    plan = _plan(options, servers)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        # The servers run as users of their own and must be able to reach their folders.
        folder.chmod(0o711)
        run = Run(plan, folder, lambda line: print(line, file=sys.stderr, flush=True))
        run.execute()
    finally:
        if options.keep:
            print(f"The servers' files are in {folder}.", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    versions = {server: SERVERS[server].version() for server in servers}
    return make_records(run.results, versions, plan.load.mechanism, servers[0]), run.failures


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Leave by way of the clean-up, which a second signal must not cut short: it stops the servers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status.

    0: all is measured, every message arrived once and intact. 1: a message did not, or a measurement failed.
    2: wrong usage, or nothing to measure. 130: interrupted; the servers are stopped, nothing is written.
    """
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    servers = _installed(options.servers)
    if not servers:
        print("There is no server to measure.", file=sys.stderr)
        return EXIT_USAGE
    if problem := share_cores(options.core):
        print(problem, file=sys.stderr)
        return EXIT_USAGE
    raise_file_limit()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    begin = time.monotonic()
    try:
        records, failures = _measure(options, servers)
    except KeyboardInterrupt:
        print("Interrupted; the servers are stopped, nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED
    write_records(records, options.output)
    print(tables(records, servers[0]))
    print(f"\n{len(records)} records in {options.output}, {time.monotonic() - begin:.0f} s.")
    wrong = faulty(records)
    for record in wrong:
        print(f"Messages went wrong: {record}", file=sys.stderr)
    for failure in failures:
        print(f"Failed: {failure}", file=sys.stderr)
    return EXIT_FAULTY if wrong or failures else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

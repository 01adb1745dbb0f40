"""The command line: python -m bench.cluster --parts messages,guarantee,capacity,homes,beats."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.__main__ import EXIT_FAULTY, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, interrupt, names, positive, share_cores
from bench.child import ServerError, raise_file_limit
from bench.cluster.parts import PARTS, Plan, Record, run
from bench.cluster.report import tables
from bench.cluster.stack import nats_missing, nats_version
from bench.report import write_records
from bench.session import SessionError
from bench.transport import LoadTimeoutError
from bench.workloads import Load, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

_STEPS = (1_000, 10_000, 50_000, 100_000)
_QUICK_STEPS = (500, 1_000)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: it is wrong (status 2), or help was asked for.
    """
    usual = Load()
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    add = parser.add_argument
    add("--parts", type=names(PARTS), default=list(PARTS), help="default: %(default)s")
    add("--repetitions", type=positive, help="of each chat; default: 3, with --quick 1")
    add("--pairs", type=positive, default=usual.pairs, help="chatting pairs (%(default)s)")
    add("--duration", type=float, help=f"seconds that each chat is measured ({usual.duration})")
    add("--core", type=int, default=0, help="core of workers, bus and database (%(default)s)")
    add("--quick", action="store_true", help="everything once and shortly, to see that it works")
    add("--output", type=Path, default=Path("var/bench/cluster.json"), help="file of records (%(default)s)")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.repetitions = options.repetitions or (1 if quick else 3)
    duration = options.duration or (1.5 if quick else usual.duration)
    options.load = Load(
        pairs=options.pairs,
        warm_up=0.5 if quick else usual.warm_up,
        duration=duration,
        accounts=2 * options.pairs + 1,
        logins=1,
    )
    options.steps = _QUICK_STEPS if quick else _STEPS
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit status, as bench.__main__.main() does."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    if problem := nats_missing() or share_cores(options.core):
        print(problem, file=sys.stderr)
        return EXIT_USAGE
    raise_file_limit()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    begin = time.monotonic()
    plan = Plan(options.load, options.repetitions, {options.core}, options.steps, _tell)
    records: list[Record] = []
    failures = []
    try:
        for part in options.parts:
            load = round(os.getloadavg()[0], 1)
            try:
                records += [{**record, "machine_load": load, "nats": nats_version()} for record in run(part, plan)]
            except (ServerError, SessionError, LoadTimeoutError, WorkloadError) as error:
                failures.append(f"{part}: {error}")
    except KeyboardInterrupt:
        print("Interrupted; everything is stopped, nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED
    write_records(records, options.output)
    print(tables(records))
    print(f"\n{len(records)} records in {options.output}, {time.monotonic() - begin:.0f} s.")
    wrong = [record for record in records if record.get("faults")]
    for record in wrong:
        print(f"Messages went wrong: {record}", file=sys.stderr)
    for failure in failures:
        print(f"Failed: {failure}", file=sys.stderr)
    return EXIT_FAULTY if wrong or failures else EXIT_OK


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The command line: python -m faults --runs 10 --faults node-killed,nodes-split, on a lab that is up."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from checks.playbooks import PROJECT
from faults.faults import ALL, ROLLING_UPDATE, RollingUpdate
from faults.installation import Installation, NotWholeError
from faults.series import Series
from lab.commands import LabError
from load import accounts, table
from load.crowd import Plan
from load.process import LoadError, LoadProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK, EXIT_FAULTY, EXIT_USAGE = 0, 1, 2
_PORT = 5222


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ALL:
            raise argparse.ArgumentTypeError(f"there is no fault {name!r}; there are {', '.join(ALL)}")
    return names


def parser() -> argparse.ArgumentParser:
    """Everything that the command line takes."""
    top = argparse.ArgumentParser(prog="python -m faults", description="Break the cluster of the lab under load.")
    top.add_argument("--runs", type=int, default=1, help="how often everything happens (1)")
    top.add_argument("--faults", type=_names, default=list(ALL), help=f"which: {', '.join(ALL)} (all of them)")
    top.add_argument("--pairs", type=int, default=100, help="pairs of clients (100)")
    top.add_argument("--sleepers", type=int, default=10, help="accounts that are not online meanwhile (10)")
    top.add_argument("--rate", type=float, default=0.5, help="messages a second of each client (0.5)")
    top.add_argument("--patience", type=float, default=300, help="how long the cluster may take at the beginning (300)")
    return top


def _run(arguments: argparse.Namespace) -> int:
    directory = PROJECT / "var/lab" / os.environ.get("LAB_NAME", "cluster")
    molecule = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY") or directory / "molecule")
    installation = Installation([str(molecule / "inventory"), str(PROJECT / "inventories/monk")])
    faults = [ALL[name] for name in arguments.faults]
    if RollingUpdate in faults and not (PROJECT / ROLLING_UPDATE).exists():
        print(f"{RollingUpdate.name} is left out: there is no {ROLLING_UPDATE}", flush=True)
        faults.remove(RollingUpdate)
    installation.wait_whole(arguments.patience)

    plan = Plan(arguments.pairs, arguments.sleepers, arguments.rate)
    people = accounts.make(plan.accounts, installation.domain)
    installation.insert(people)
    accounts.write(directory / "accounts", people)
    (directory / "ca.cer").write_text(installation.authority(), encoding="utf-8")
    options = {
        "addresses": ",".join(f"{proxy.address}:{_PORT}" for proxy in installation.proxies),
        "domain": installation.domain,
        "accounts": directory / "accounts",
        "authority": directory / "ca.cer",
        "pairs": plan.pairs,
        "sleepers": plan.sleepers,
        "rate": plan.rate,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with LoadProcess(words, directory / "load.log") as load:
        load.come()
        series = Series(installation, load, directory / "faults.jsonl")
        print(table.header(), flush=True)
        for number in range(arguments.runs):
            if arguments.runs > 1:
                print(f"run {number + 1} of {arguments.runs}", flush=True)
            series.run(faults, number)
        load.leave()
    print(f"{len(series.complaints)} complaints" if series.complaints else "Nothing was lost, nothing was repeated.")
    return EXIT_FAULTY if series.complaints else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults.

    Returns:
        0 when everything held, 1 when something did not, 2 when it could not be tried.
    """
    parsed = parser().parse_args(arguments)
    # So that what was broken is healed, and the load ends, also when the run is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(parsed)
    except NotWholeError as error:
        print(f"faults: {error}", file=sys.stderr)
        return EXIT_FAULTY
    except (LabError, LoadError, AssertionError) as error:
        print(f"faults: {error}", file=sys.stderr)
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())

"""A series of faults, each of them under load, and the table of what they did."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from checks.waiting import until
from load import table
from load.process import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from faults.faults import Fault
    from faults.installation import Installation
    from load.process import LoadProcess

_WARM_UP = 8.0
_AFTERWARDS = 8.0
"""Clients talk for so long before the fault, and after the cluster is whole again."""
_WHOLE_TIME = 180.0
_SETTLE_TIME = 60.0


class Series:
    """Runs faults one after the other on an installation that a load is connected to.

    Attributes:
        complaints: what must not have been, by fault; empty when all went well.
    """

    def __init__(self, installation: Installation, load: LoadProcess, results: Path) -> None:
        """Prepare it.

        Args:
            installation: the cluster.
            load: clients that are online and befriended.
            results: a file for the reports, one as JSON on each line.
        """
        self._installation = installation
        self._load = load
        self._results = results
        self._known: set[str] = set()
        self.complaints: list[str] = []

    def run(self, faults: Iterable[type[Fault]], number: int) -> None:
        """Run the faults and print a line for each.

        Args:
            faults: what is to happen.
            number: the how-many-eth time it is.

        Raises:
            NotWholeError: the cluster did not become whole by itself after one; the next would show nothing.
        """
        for kind in faults:
            report = self._one(kind, number)
            with self._results.open("a", encoding="utf-8") as results:
                results.write(json.dumps({"run": number + 1, **report}) + "\n")
            print(table.line(report), flush=True)
            complaints = table.complaints(report, kind.longest, kind.longest_untouched) + report["disagreement"]
            for complaint in complaints:
                print(f"  ! {complaint}", flush=True)
                self.complaints.append(f"{kind.name}: {complaint}")

    def _one(self, kind: type[Fault], number: int) -> dict[str, Any]:
        installation, load = self._installation, self._load
        installation.wait_whole(_WHOLE_TIME)
        fault = kind(installation, number)
        load.start()
        time.sleep(_WARM_UP)
        nodes = fault.touched()
        users = None if nodes is None else set().union(*(installation.users_of(node) for node in nodes))
        load.fault(kind.name, users)
        began = time.monotonic()
        try:
            fault.begin()
            time.sleep(kind.seconds)
        finally:
            fault.heal()
        healed = time.monotonic()
        installation.wait_whole(_WHOLE_TIME)
        whole = time.monotonic()
        time.sleep(_AFTERWARDS)
        report = load.settle(_SETTLE_TIME)
        report["fault_seconds"] = round(healed - began, 1)
        report["whole_seconds"] = round(whole - healed, 1)
        report["disagreement"] = self._disagreement()
        if nodes and not report["touched"]:
            report["disagreement"].append(f"{kind.name} touched no client: it has shown nothing")
        return report

    def _disagreement(self) -> list[str]:
        """Sessions that only the nodes or only the clients know of; sleepers have left by now."""
        difference: tuple[set[str], set[str]] = (set(), set())

        def agree() -> bool:
            nonlocal difference
            there, here = self._installation.sessions(), set(self._load.online())
            difference = there - here - self._known, here - there - self._known
            return not any(difference)

        try:
            until(agree, "nodes and clients to agree about the sessions", seconds=20, pause=1)
        except AssertionError:
            ghosts, missing = difference
            # Told once: what one fault leaves behind is not the next one's.
            self._known |= ghosts | missing
            found = [f"{len(ghosts)} sessions have no client: {', '.join(sorted(ghosts)[:3])}"] if ghosts else []
            return found + (
                [f"{len(missing)} clients have no session: {', '.join(sorted(missing)[:3])}"] if missing else []
            )
        except LoadError as error:
            return [str(error)]
        return []

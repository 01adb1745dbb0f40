"""The command line: python -m load --addresses HOST:PORT,… --domain DOMAIN --accounts FILE."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from load import accounts, table
from load.control import Control
from load.crowd import Crowd, NotReadyError, Plan
from load.ledger import Ledger
from load.login import CLEAR, DIRECT, SECURITY, STARTTLS, Service
from load.round import Round

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK, EXIT_FAULTY, EXIT_USAGE = 0, 1, 2


def _addresses(text: str) -> list[tuple[str, int]]:
    found = []
    for part in text.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdigit():
            raise argparse.ArgumentTypeError(f"{part!r} is not HOST:PORT")
        found.append((host.strip("[]"), int(port)))
    return found


def parser() -> argparse.ArgumentParser:
    """Everything that the command line takes."""
    top = argparse.ArgumentParser(
        prog="python -m load",
        description="Clients with stream management that talk to each other, come back when they are interrupted, and "
        "keep account of every message: was each one that the server acknowledged received exactly once?",
    )
    top.add_argument("--addresses", type=_addresses, required=True, help="where to connect: HOST:PORT,HOST:PORT")
    top.add_argument("--domain", required=True, help="the domain of the accounts")
    top.add_argument("--accounts", type=Path, required=True, help="a file: on each line an address and a password")
    top.add_argument("--pairs", type=int, default=100, help="pairs of clients (100)")
    top.add_argument("--sleepers", type=int, default=10, help="accounts that are not online meanwhile (10)")
    top.add_argument("--rate", type=float, default=0.5, help="messages a second of each client (0.5)")
    top.add_argument("--seconds", type=float, default=60, help="how long to talk (60)")
    top.add_argument(
        "--patience", type=float, default=60, help="how long each step before and after that may take (60)"
    )
    top.add_argument("--security", choices=SECURITY, default=STARTTLS, help=f"{STARTTLS} is the default")
    top.add_argument(
        "--authority", type=Path, help="the certificate of the authority to trust; without it, any is taken"
    )
    top.add_argument("--output", type=Path, help="write the report to this file, as JSON")
    top.add_argument("--control", action="store_true", help="take commands from the standard input: load/control.py")
    return top


def _context(authority: Path | None, security: str) -> ssl.SSLContext:
    if authority is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cafile=str(authority))
    if security == DIRECT:
        context.set_alpn_protocols(["xmpp-client"])
    return context


async def _run(arguments: argparse.Namespace) -> int:
    security = arguments.security
    context = _context(arguments.authority, security if security != CLEAR else STARTTLS)
    service = Service(arguments.addresses, arguments.domain, security, context)
    plan = Plan(arguments.pairs, arguments.sleepers, arguments.rate)
    ledger = Ledger()
    crowd = Crowd(plan, service, accounts.read(arguments.accounts), ledger)
    if arguments.control:
        await Control(crowd, ledger).run()
        return EXIT_OK
    try:
        await crowd.come(arguments.patience)
        ledger.close_round(set())
        this_round = Round(crowd, ledger)
        await asyncio.sleep(arguments.seconds)
        report = (await this_round.settle(arguments.patience)).as_json()
    finally:
        await crowd.leave(5)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table.header())
    print(table.line(report))
    complaints = table.complaints(report)
    for complaint in complaints:
        print(f"! {complaint}")
    return EXIT_FAULTY if complaints else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load.

    Returns:
        0 when every acknowledged message arrived exactly once, 1 when not, 2 when it cannot be run like this.
    """
    parsed = parser().parse_args(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))
    try:
        return uvloop.run(_run(parsed))
    except (ValueError, OSError, NotReadyError) as error:
        print(f"load: {error}", file=sys.stderr)
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())

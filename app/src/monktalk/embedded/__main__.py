"""``python -m monktalk.embedded``: a whole server on one machine, for a first look and for development."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from monktalk.embedded import accounts, environment
from monktalk.embedded.files import Files, Unusable
from monktalk.embedded.supervisor import ChildFailed, Interrupted, Supervisor

if TYPE_CHECKING:
    from types import FrameType

    from monktalk.embedded.environment import Environment


def main() -> int:
    """Run until Ctrl-C. Returns the exit code."""
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        settings = environment.read()
        files = Files(settings)
        files.prepare()
        passwords = accounts.make(settings, files)
        supervisor = Supervisor(settings, files, lambda: stopping)
        try:
            ports = supervisor.start()
            _introduce(settings, files, passwords, ports)
            supervisor.watch()
        finally:
            supervisor.stop()
    except Interrupted:
        pass
    except (environment.InvalidVariable, Unusable, OSError, ChildFailed) as error:
        if not stopping:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print("stopped")
    return 0


def _introduce(settings: Environment, files: Files, passwords: dict[str, str], ports: list[int]) -> None:
    """Print what runs, who may log in, and what to do next."""
    width = max(map(len, passwords))
    admin = f"{settings.admin.user}@{settings.domain}" if settings.admin else None
    lines = [
        "",
        "MonkTalk is running.",
        "",
        f"  XMPP       {settings.bind}, port {' and '.join(map(str, ports))} (STARTTLS, or TLS from the first byte)",
        f"  Auth       127.0.0.1, port {settings.auth_port}",
        f"  Data       {files.data}",
        f"  Logs       {files.xmpp_log}, {files.auth_log.name} beside it",
        "",
        "  Accounts:",
        *(
            f"    {jid:{width}}  password  {password}{'  (administrator)' if jid == admin else ''}"
            for jid, password in passwords.items()
        ),
        "",
        "Next: log in with any XMPP client; the certificate is self-signed, so the client will ask.",
        f"      Where it wants a server address: {settings.bind}, port {ports[0]}.",
        "Stop: Ctrl-C.",
        "",
        "ready",
    ]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())

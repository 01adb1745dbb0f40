"""A node, reached by SSH as the inventory says; works for a virtual machine elsewhere as for a host of the lab."""

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checks.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    command: str
    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The lines of its standard output."""
        return self.stdout.splitlines()

    @property
    def output(self) -> str:
        """Both outputs."""
        return self.stdout + self.stderr


class Node:
    """A managed host."""

    def __init__(self, name: str, variables: Mapping[str, Any]) -> None:
        self.name = name
        self.address = str(variables["ansible_host"])
        self.addresses = [str(address) for address in variables.get("lab_addresses", [self.address])]
        self._ssh = [
            *("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR"),
            # A host that has lost its power says nothing any more.
            *("-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=2"),
            *("-p", str(variables.get("ansible_port", 22))),
            *shlex.split(str(variables.get("ansible_ssh_common_args", ""))),
        ]
        if "ansible_ssh_private_key_file" in variables:
            self._ssh += ["-i", str(variables["ansible_ssh_private_key_file"])]
        self._ssh.append(f"{variables.get('ansible_user', 'root')}@{self.address}")

    def run(self, command: str, stdin: str = "", timeout: float = 60) -> Result:
        """Run a command of the shell as root, whatever its outcome."""
        done = subprocess.run(  # noqa: S603 - tests run what they say
            [*self._ssh, command],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # logs hold whatever bytes
            check=False,
            timeout=timeout,
        )
        return Result(command, done.returncode, done.stdout, done.stderr)

    def ok(self, command: str, stdin: str = "", timeout: float = 60) -> str:
        """Run a command that has to succeed; returns what it printed, without the last line break."""
        result = self.run(command, stdin, timeout)
        assert result.status == 0, f"{command}: status {result.status}\n{result.output}"
        return result.stdout.rstrip("\n")

    def as_user(self, user: str, command: str, stdin: str = "") -> Result:
        """Run a command as a user, in a session as `su -` makes it."""
        return self.run(f"runuser --login {user} --command {shlex.quote(command)}", stdin)

    def sql(self, database: str, statements: str) -> str:
        """Run SQL by hand, as the service user; it comes by standard input, so that no list of processes shows it."""
        return self.ok(f"cd / && runuser -u mongooseim -- psql -qtA -v ON_ERROR_STOP=1 {database}", statements)

    def read(self, path: str) -> str:
        """The text of a file."""
        return self.ok(f"cat {shlex.quote(path)}")

    def write(self, path: str, text: str) -> None:
        """Replace the text of a file in place; owner and mode stay."""
        self.ok(f"cat > {shlex.quote(path)}", text)

    # -- units ----------------------------------------------------------------------------------------------------

    def property(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.ok(f"systemctl show --property={name} --value {unit}")

    def main_pid(self, unit: str) -> int:
        """The main process of a unit; 0 when there is none."""
        return int(self.property(unit, "MainPID") or 0)

    def processes(self, unit: str) -> list[int]:
        """All processes of a unit."""
        group = self.property(unit, "ControlGroup")
        return [int(word) for word in self.ok(f"cat /sys/fs/cgroup{group}/cgroup.procs").split()]

    def is_active(self, unit: str) -> bool:
        """Whether a unit is up, and not merely about to be."""
        return self.run(f"systemctl is-active {unit}").stdout.strip() == "active"

    def wait_active(self, unit: str, seconds: float = 60) -> None:
        """Wait until a unit is up; what its journal says is shown when it is not."""
        try:
            until(lambda: self.is_active(unit), f"{unit} to be active", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.run(f'journalctl -n 40 --no-pager -u {unit}').output}") from None

    # -- the journal ----------------------------------------------------------------------------------------------

    def cursor(self) -> str:
        """Where the journal ends now."""
        return self.ok("journalctl -n 0 --show-cursor --no-pager | sed -n 's/^-- cursor: //p'")

    def journal(self, cursor: str, unit: str | None = None) -> str:
        """What was logged since."""
        about = f"--unit {unit}" if unit else ""
        return self.ok(f"journalctl --no-pager --after-cursor={shlex.quote(cursor)} {about}")

    def wait_logged(self, cursor: str, text: str, unit: str | None = None, seconds: float = 20) -> None:
        """Wait until something has been logged that contains the text."""
        until(lambda: text in self.journal(cursor, unit), f"{text!r} in the journal", seconds)

    def hosts(self) -> list[str]:
        """The domains that the configuration names now."""
        return list(tomllib.loads(self.read("/etc/mongooseim/mongooseim.toml"))["general"]["hosts"])


def inventory(sources: Sequence[str], name: str) -> dict[str, Any]:
    """The variables of a host in an inventory."""
    options = [word for source in sources for word in ("--inventory", source)]
    done = subprocess.run(  # noqa: S603 - as above
        ["ansible-inventory", *options, "--host", name],  # noqa: S607 - of the same tools as the playbooks
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(json.loads(done.stdout))

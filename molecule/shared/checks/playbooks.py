"""Playbooks as operators run them, from tests."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Playbooks:
    """Runs playbooks of this checkout against the hosts of the scenario."""

    sources: Sequence[str]
    limit: str

    def run(self, playbook: str, *, tags: str = "", expect: int = 0, **variables: str) -> str:
        """Run a playbook, or the roles with these tags, with extra variables; returns what it printed."""
        command = ["ansible-playbook", "--diff", "--limit", self.limit, *(["--tags", tags] if tags else [])]
        command += [word for source in self.sources for word in ("--inventory", source)]
        command += [word for name, value in variables.items() for word in ("--extra-vars", f"{name}={value}")]
        environment = dict(os.environ, ANSIBLE_CONFIG=str(PROJECT / "ansible.cfg"), ANSIBLE_FORCE_COLOR="0")
        done = subprocess.run(  # noqa: S603 - tests run what they say
            [*command, playbook],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == expect, f"{playbook} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

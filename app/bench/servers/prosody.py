"""Prosody from its Debian package, with the package's configuration file."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import ClassVar

from bench import sasl
from bench.child import Child
from bench.servers.base import (
    DOMAIN,
    LOOPBACK,
    PASSWORD,
    Edit,
    Server,
    apply_edits,
    bench_accounts,
    child_environment,
    debian_version,
    free_ports,
)

_PACKAGED = Path("/etc/prosody/prosody.cfg.lua")
# What mod_auth_internal_hashed uses for new accounts.
_ITERATIONS = 10000


class Prosody(Server):
    """See docs/benchmark.md for what is changed in its configuration, and why."""

    name: ClassVar[str] = "prosody"

    @classmethod
    def missing(cls) -> str:
        """See Server."""
        if not debian_version("prosody"):
            return "Prosody is not installed (Debian package prosody)."
        if not os.access(_PACKAGED, os.R_OK):
            return f"{_PACKAGED} is not readable: run the benchmark as root or as a member of group prosody."
        return ""

    @classmethod
    def version(cls) -> str:
        """See Server."""
        return debian_version("prosody")

    def configure(self) -> None:
        """See Server."""
        self.certificate()
        (self.folder / "conf.d").mkdir()
        packaged = apply_edits(_PACKAGED.read_text(encoding="utf-8"), self._edits(), _PACKAGED)
        configuration = self.folder / "prosody.cfg.lua"
        configuration.write_text(self._own_settings() + packaged, encoding="utf-8")
        self._write_accounts()

    def _edits(self) -> list[Edit]:
        folder = self.folder
        return [
            Edit(r"/run/prosody/prosody\.pid", f"{folder}/prosody.pid"),
            Edit(r"/var/log/prosody/", f"{folder}/"),
            Edit(r'^certificates = "certs"', f'certificates = "{folder}"'),
            Edit(r'rate = "\d+kb/s"', 'rate = "1000mb/s"'),
        ]

    def _own_settings(self) -> str:
        s2s, http, https = free_ports(3)
        return (
            f'data_path = "{self.folder}/data"\n'
            f'interfaces = {{ "{LOOPBACK}" }}\n'
            f"c2s_ports = {{ {self.port_plain} }}\n"
            f"c2s_direct_tls_ports = {{ {self.port_tls} }}\n"
            f"s2s_ports = {{ {s2s} }}\n"
            f"http_ports = {{ {http} }}\n"
            f"https_ports = {{ {https} }}\n"
            "c2s_require_encryption = false\n"
            "allow_unencrypted_plain_auth = true\n"
        )

    def _write_accounts(self) -> None:
        """Write what `prosodyctl adduser` writes; all accounts share password and salt, so one hash will do."""
        salt = str(uuid.uuid4())
        stored_key, server_key = sasl.stored_and_server_key(PASSWORD, salt.encode(), _ITERATIONS)
        text = (
            f'return {{\n\t["iteration_count"] = {_ITERATIONS};\n\t["salt"] = "{salt}";\n'
            f'\t["server_key"] = "{server_key.hex()}";\n\t["stored_key"] = "{stored_key.hex()}";\n}};\n'
        )
        folder = self.folder / "data" / DOMAIN / "accounts"
        folder.mkdir(parents=True)
        for user in bench_accounts(self.accounts):
            (folder / f"{user}.dat").write_text(text, encoding="ascii")

    def launch(self) -> Child:
        """See Server."""
        return Child(
            ["prosody", "-F", "--config", str(self.folder / "prosody.cfg.lua")],
            environment=child_environment(HOME=str(self.folder)),
            folder=self.folder,
            log=self.folder / "output.log",
            cores=self.cores,
            user=self.give_away("prosody"),
        )

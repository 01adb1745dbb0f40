"""ejabberd from its Debian package, with the package's configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.child import Child, ServerError
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

_PACKAGED = Path("/usr/share/ejabberd/ejabberd.yml.example")
_PROGRAM = Path("/usr/sbin/ejabberdctl")
_INETRC = Path("/etc/ejabberd/inetrc")
# The listeners of the packaged file that are not for clients; they stay, on other ports.
_OTHER_PORTS = (5269, 5280, 5443, 3478, 1883)
_IMPORT_SECONDS = 120.0


class Ejabberd(Server):
    """See docs/benchmark.md for what is changed in its configuration, and why."""

    name: ClassVar[str] = "ejabberd"

    @classmethod
    def missing(cls) -> str:
        """See Server."""
        return "" if debian_version("ejabberd") else "ejabberd is not installed (Debian package ejabberd)."

    @classmethod
    def version(cls) -> str:
        """See Server."""
        return debian_version("ejabberd")

    def configure(self) -> None:
        """See Server."""
        certificate, key = self.certificate()
        both = self.folder / "ejabberd.pem"
        both.touch(mode=0o600)
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        self._port_distribution, *others = free_ports(1 + len(_OTHER_PORTS))
        packaged = _PACKAGED.read_text(encoding="utf-8")
        configuration = apply_edits(packaged, self._edits(both, others), _PACKAGED)
        (self.folder / "ejabberd.yml").write_text(configuration, encoding="utf-8")
        (self.folder / "inetrc").write_bytes(_INETRC.read_bytes())
        for name in ("spool", "logs"):
            (self.folder / name).mkdir()
        self._write_program()

    def _edits(self, certificate: Path, others: list[int]) -> list[Edit]:
        ports = {5222: self.port_plain, 5223: self.port_tls}
        ports.update(zip(_OTHER_PORTS, others, strict=True))
        return [
            *(Edit(rf"^( +)port: {old}$", rf"\g<1>port: {new}") for old, new in ports.items()),
            Edit(r'^( +)ip: "::"$', rf'\g<1>ip: "{LOOPBACK}"'),
            Edit(r'"/etc/ejabberd/ejabberd\.pem"', f'"{certificate}"'),
            Edit(r"^( +)starttls_required: true$", r"\g<1>starttls_required: false"),
            # Its default of 5 drops connections when 20 clients come at once, who then try again after a second.
            Edit(r"^( +)access: c2s$", r"\g<1>access: c2s\n\g<1>backlog: 1000"),
            Edit(r"^( +)rate: 3000$", r"\g<1>rate: 1000000000"),
            Edit(r"^( +)burst_size: 20000$", r"\g<1>burst_size: 1000000000"),
        ]

    def _write_program(self) -> None:
        """Copy ejabberdctl without its change of user and with Erlang in its own place instead of as its child.

        Otherwise the server would leave our session, and a signal to the script would orphan it.
        """
        edits = [
            Edit(r"^INSTALLUSER=.*$", 'INSTALLUSER=""'),
            Edit(r'^( +as_current_user\)) "\$@" ;;$', r'\g<1> exec "$@" ;;'),
        ]
        program = apply_edits(_PROGRAM.read_text(encoding="utf-8"), edits, _PROGRAM)
        (self.folder / "ejabberdctl").write_text(program, encoding="utf-8")
        (self.folder / "ejabberdctl").chmod(0o755)
        # A distribution port of our own means that no epmd is started, which would outlive the server.
        (self.folder / "ejabberdctl.cfg").write_text(
            "ERL_OPTIONS='-env ERL_CRASH_DUMP_BYTES 0 -kernel inet_dist_use_interface {127,0,0,1}'\n"
            f"ERL_DIST_PORT={self._port_distribution}\n"
            "ERLANG_NODE=monktalkbench@localhost\n",
            encoding="ascii",
        )

    def launch(self) -> Child:
        """See Server."""
        return Child(
            [*self._command(), "foreground"],
            environment=child_environment(HOME=str(self.folder)),
            folder=self.folder,
            log=self.folder / "output.log",
            cores=self.cores,
            user=self.give_away("ejabberd"),
        )

    def _command(self) -> list[str]:
        folder = self.folder
        return [
            str(folder / "ejabberdctl"),
            *("--config-dir", str(folder)),
            *("--logs", str(folder / "logs")),
            *("--spool", str(folder / "spool")),
        ]

    def provision(self) -> None:
        """Import the accounts from one XEP-0227 file: a call of ejabberdctl each would take minutes.

        Raises:
            ServerError: ejabberdctl failed.
        """
        users = "".join(f"<user name='{user}' password='{PASSWORD}'/>" for user in bench_accounts(self.accounts))
        accounts = self.folder / "accounts.xml"
        accounts.write_text(
            "<?xml version='1.0' encoding='UTF-8'?>"
            f"<server-data xmlns='urn:xmpp:pie:0'><host jid='{DOMAIN}'>{users}</host></server-data>",
            encoding="ascii",
        )
        child = Child(
            [*self._command(), "--no-timeout", "import_piefxis", str(accounts)],
            environment=child_environment(HOME=str(self.folder)),
            folder=self.folder,
            log=self.folder / "import.log",
            cores=self.cores,
            user=self.give_away("ejabberd"),
        )
        try:
            if child.wait(_IMPORT_SECONDS) != 0:
                raise ServerError(f"ejabberdctl import_piefxis failed; {child.log} says:\n{child.last_lines()}")
        finally:
            child.stop()

"""Chat clients of other makes as child processes: one line in is a message sent, one line out a message received."""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.support.accounts import Account
from tests.support.stack import XmppServer

CLIENTS = Path(__file__).parents[1] / "integration" / "clients"
PATIENCE = 30.0


class ChatProgram:
    """A running client. ``jid`` is its full address, None when the program does not tell it."""

    def __init__(self, name: str, argv: Sequence[str], account: Account, *, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.account = account
        self.jid: str | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._heard: list[str] = []
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            text=True,
            bufsize=1,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def wait_for(self, text: str) -> str:
        """The next line that has ``text`` in it."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                heard = "\n".join(self._heard)
                raise AssertionError(f"{self.name} did not print {text!r}; it said:\n{heard}") from None
            self._heard.append(line)
            if text in line:
                return line

    def wait_online(self) -> None:
        """The program has logged in and says so."""
        self.jid = self.wait_for("online\t").partition("\t")[2]

    def send(self, to: str, text: str) -> None:
        """Have the program send a message."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{to}\t{text}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE)
        self._process.stdout.close()


def slixmpp(server: XmppServer, account: Account, transport: str) -> ChatProgram:
    """A client on slixmpp, online."""
    program = ChatProgram(
        f"slixmpp ({transport})",
        [
            sys.executable,
            str(CLIENTS / "slixmpp_chat.py"),
            transport,
            str(server.tls_port),
            account.jid,
            account.password,
            str(server.certificate),
        ],
        account,
    )
    program.wait_online()
    return program


def xmpp_js(server: XmppServer, account: Account, transport: str) -> ChatProgram:
    """A client on @xmpp/client, online."""
    scheme = "xmpps" if transport == "direct" else "xmpp"
    program = ChatProgram(
        f"@xmpp/client ({transport})",
        [
            "node",
            str(node_directory() / "chat.mjs"),
            f"{scheme}://localhost:{server.tls_port}",
            account.host,
            account.user,
            account.password,
        ],
        account,
        env={"NODE_EXTRA_CA_CERTS": str(server.certificate)},
    )
    program.wait_online()
    return program


def _go_sendxmpp(server: XmppServer, account: Account, transport: str, *options: str) -> list[str]:
    direct = ["--tls"] if transport == "direct" else []
    address = f"localhost:{server.tls_port}"
    return ["go-sendxmpp", *direct, "-u", account.jid, "-p", account.password, "-j", address, *options]


def go_sendxmpp_listening(server: XmppServer, account: Account, transport: str) -> ChatProgram:
    """go-sendxmpp printing what it receives. It does not say when it is online."""
    return ChatProgram(
        f"go-sendxmpp ({transport})",
        _go_sendxmpp(server, account, transport, "--listen"),
        account,
        env={"SSL_CERT_FILE": str(server.certificate)},
    )


def go_sendxmpp_send(server: XmppServer, account: Account, transport: str, to: str, text: str) -> None:
    """Send one message with go-sendxmpp; fails when it complains."""
    done = subprocess.run(
        _go_sendxmpp(server, account, transport, to),
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "SSL_CERT_FILE": str(server.certificate)},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"go-sendxmpp: {done.stdout}{done.stderr}"


def node_directory() -> Path:
    """The directory with @xmpp/client installed as the lock file says, outside of the source tree; made once."""
    source = CLIENTS / "node"
    names = ("package.json", "package-lock.json", "chat.mjs")
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in names)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "monktalk-tests"
    wanted = cache / f"node-{digest}"
    if wanted.exists():
        return wanted
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        made = Path(directory) / "made"
        made.mkdir()
        for name in names:
            shutil.copy(source / name, made)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=made, check=True, capture_output=True
        )
        made.rename(wanted)
    return wanted

#!/usr/bin/env python3
"""Make the authority of a database cluster, and certificates of its hosts. Runs on the controller, needs openssl.

The authority stays in its folder. A host's certificate is made anew when it is missing, ends soon, or has other names than
it should. Without a name only the authority is made. Prints JSON.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTHORITY_DAYS: Final = 7300
SECONDS_A_DAY: Final = 86400


class MakeError(Exception):
    """It can't be made; the message says why."""


def ensure_authority(folder: Path, cluster: str) -> None:
    """Make the authority where there is none.

    Raises:
        MakeError: Only half of it is there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        there = [(folder / name).exists() for name in ("ca.crt", "ca.key")]
        if there[0] and not there[1]:
            raise MakeError(f"{folder} has no ca.key: the authority cannot sign. Get the folder's copy.")
        if not all(there):
            _make_authority(folder, cluster)


def ensure_certificate(folder: Path, names: Sequence[str], days: int, renew_days: int) -> bool:
    """Make the certificate of a host when it needs one. Returns whether it is a new one.

    Args:
        folder: Of the authority.
        names: As subjectAltName writes them, `DNS:db1` or `IP:192.0.2.1`; the first one is the host's name.
        days: How long a certificate lives.
        renew_days: How long before its end it is made anew.
    """
    place = folder / names[0].partition(":")[2]
    if _usable(place, folder / "ca.crt", names, renew_days):
        return False
    place.mkdir(mode=0o700, exist_ok=True)
    _make_certificate(place, folder, names, days)
    return True


def _usable(place: Path, authority: Path, names: Sequence[str], renew_days: int) -> bool:
    certificate = place / "host.crt"
    if not (certificate.exists() and (place / "host.key").exists() and (place / "names").exists()):
        return False
    if (place / "names").read_text("ascii").split() != list(names):
        return False
    try:
        _openssl("x509", "-in", str(certificate), "-noout", "-checkend", str(renew_days * SECONDS_A_DAY))
        _openssl("verify", "-CAfile", str(authority), str(certificate))
    except MakeError:
        return False
    return True


def _make_authority(folder: Path, cluster: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
        new = Path(scratch)
        _make_key(new / "ca.key")
        command = ["req", "-x509", "-new", "-key", str(new / "ca.key"), "-sha256", "-days", str(AUTHORITY_DAYS)]
        command += ["-subj", f"/O=MonkTalk DBCL/CN=Authority of {cluster}"]
        command += ["-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"]
        command += ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", str(new / "ca.crt")]
        _openssl(*command)
        (new / "ca.key").replace(folder / "ca.key")
        (new / "ca.crt").replace(folder / "ca.crt")


def _make_certificate(place: Path, authority: Path, names: Sequence[str], days: int) -> None:
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place) as scratch:
        new = Path(scratch)
        _make_key(new / "host.key")
        (new / "extensions").write_text(
            "basicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
            "subjectKeyIdentifier=hash\n"
            "authorityKeyIdentifier=keyid\n"
            f"subjectAltName={','.join(names)}\n",
            "ascii",
        )
        # pgBackRest knows its clients by this name.
        subject = f"/CN={names[0].partition(':')[2][:64]}"
        request = str(new / "request")
        _openssl("req", "-new", "-key", str(new / "host.key"), "-subj", subject, "-out", request)
        command = ["x509", "-req", "-in", request, "-CA", str(authority / "ca.crt")]
        command += ["-CAkey", str(authority / "ca.key"), "-sha256", "-days", str(days)]
        command += ["-extfile", str(new / "extensions"), "-out", str(new / "host.crt")]
        _openssl(*command)
        (new / "names").write_text("\n".join(names) + "\n", "ascii")
        # `names` comes last: a pair that is torn by an interruption is made anew.
        (place / "names").unlink(missing_ok=True)
        for name in ("host.key", "host.crt", "names"):
            (new / name).replace(place / name)


def _make_key(path: Path) -> None:
    path.touch(mode=0o600)
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MakeError("openssl is not installed on the controller.") from None
    if done.returncode != 0:
        raise MakeError(f"openssl {arguments[0]} has failed: {done.stderr.strip()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Make the authority of a database cluster and its hosts' certificates."
    )
    parser.add_argument("--folder", type=Path, required=True, help="the folder of the authority")
    parser.add_argument("--cluster", required=True, help="the name of the cluster")
    parser.add_argument("--name", action="append", default=[], help="a host's name; the first is the main one")
    parser.add_argument("--address", action="append", default=[], help="an IP address of the host")
    parser.add_argument("--days", type=int, default=730, help="how long a certificate lives (default: %(default)s)")
    parser.add_argument("--renew-days", type=int, default=180, help="make it anew so many days before its end")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    names = [f"DNS:{name.lower()}" for name in options.name] + [f"IP:{address}" for address in options.address]
    changed = False
    try:
        ensure_authority(options.folder, options.cluster)
        if options.name:
            changed = ensure_certificate(options.folder, names, options.days, options.renew_days)
    except (MakeError, OSError, UnicodeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    facts = {"changed": changed, "ca": str(options.folder / "ca.crt")}
    if options.name:
        place = options.folder / options.name[0].lower()
        facts |= {"certificate": str(place / "host.crt"), "key": str(place / "host.key")}
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Make a certificate authority for test environments, and a certificate from it. Runs on the controller, needs openssl.

The authority stays in its folder for as long as the folder does, so that clients need to trust it once only. A
certificate is made anew when it is missing, ends soon, or has other names than it should. Prints JSON.
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

AUTHORITY_DAYS: Final = 3650
SECONDS_A_DAY: Final = 86400


class MakeError(Exception):
    """It can't be made; the message says why."""


def ensure(folder: Path, names: Sequence[str], days: int, renew_days: int) -> bool:
    """Make what is missing. Returns whether the certificate is a new one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        authority, authority_key = folder / "ca.cer", folder / "ca.key"
        if not (authority.exists() and authority_key.exists()):
            _make_authority(folder)
        place = folder / names[0]
        if _usable(place, authority, names, renew_days):
            return False
        place.mkdir(mode=0o700, exist_ok=True)
        _make_certificate(place, authority, authority_key, names, days)
        return True


def _usable(place: Path, authority: Path, names: Sequence[str], renew_days: int) -> bool:
    certificate = place / "fullchain.cer"
    if not (certificate.exists() and (place / "private.key").exists()):
        return False
    if (place / "names").read_text("ascii").split() != list(names):
        return False
    soon = str(renew_days * SECONDS_A_DAY)
    try:
        _openssl("x509", "-in", str(certificate), "-noout", "-checkend", soon)
        _openssl("verify", "-CAfile", str(authority), str(certificate))
    except MakeError:
        return False
    return True


def _make_authority(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
        new = Path(scratch)
        _make_key(new / "ca.key")
        subject = f"/O=MonkTalk test environment/CN=Test CA {folder.name}"[:64]
        command = ["req", "-x509", "-new", "-key", str(new / "ca.key"), "-sha256", "-days", str(AUTHORITY_DAYS)]
        command += ["-subj", subject, "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"]
        command += ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", str(new / "ca.cer")]
        _openssl(*command)
        (new / "ca.key").replace(folder / "ca.key")
        (new / "ca.cer").replace(folder / "ca.cer")


def _make_certificate(place: Path, authority: Path, authority_key: Path, names: Sequence[str], days: int) -> None:
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place) as scratch:
        new = Path(scratch)
        _make_key(new / "private.key")
        (new / "extensions").write_text(
            "basicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
            "subjectKeyIdentifier=hash\n"
            "authorityKeyIdentifier=keyid\n"
            f"subjectAltName={','.join(f'DNS:{name}' for name in names)}\n",
            "ascii",
        )
        request, key = str(new / "request"), str(new / "private.key")
        _openssl("req", "-new", "-key", key, "-subj", f"/CN={names[0][:64]}", "-out", request)
        command = ["x509", "-req", "-in", request, "-CA", str(authority), "-CAkey", str(authority_key), "-sha256"]
        command += ["-days", str(days), "-extfile", str(new / "extensions"), "-out", str(new / "leaf.cer")]
        _openssl(*command)
        (new / "fullchain.cer").write_text((new / "leaf.cer").read_text("ascii"), "ascii")
        (new / "names").write_text("\n".join(names) + "\n", "ascii")
        # The pair is checked where it is deployed: one that is torn by an interruption is refused there, and `names`,
        # which comes last, has it made anew.
        (place / "names").write_text("", "ascii")
        for name in ("private.key", "fullchain.cer", "names"):
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


def _ascii(name: str) -> str:
    """A name as certificates have it: letters of other scripts in their encoded form (xn--)."""
    return name.lower().encode("idna").decode("ascii")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Make a certificate from an authority for test environments.")
    parser.add_argument("--folder", type=Path, required=True, help="the folder of the authority")
    parser.add_argument(
        "--name", action="append", required=True, help="a name that the certificate is for; the first is the main one"
    )
    parser.add_argument("--days", type=int, default=90, help="how long a certificate lives (default: %(default)s)")
    parser.add_argument(
        "--renew-days", type=int, default=30, help="make it anew so many days before its end (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        changed = ensure(options.folder, [_ascii(name) for name in options.name], options.days, options.renew_days)
    except (MakeError, OSError, UnicodeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    place = options.folder / _ascii(options.name[0])
    facts = {
        "changed": changed,
        "chain": str(place / "fullchain.cer"),
        "key": str(place / "private.key"),
        "ca": str(options.folder / "ca.cer"),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

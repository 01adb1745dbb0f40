#!/usr/bin/env python3
"""Deploy a certificate for all services of this host, or refuse it and leave the old one.

The four files of the contract (<name>.cer, <name>.key, fullchain_key.pem, ca.cer) are links through one other link,
certificates/current, to a folder of real files. A new folder is made, synced, and the one link replaced by a rename:
whoever opens the files sees a pair that belongs together. The services are not touched: reload them afterwards.

    mongooseim-deploy-certificate --name xmpp.example.org --chain fullchain.pem --key privkey.pem --ca chain.pem

It says "deployed", "repaired" or "unchanged" as the first word of its answer; a refusal is a sentence on the standard
error, and exit status 1.
"""

from __future__ import annotations

import argparse
import base64
import errno
import grp
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIRECTORY: Final = Path("/etc/mongooseim")
STORE: Final = "certificates"
CURRENT: Final = "current"
PREVIOUS: Final = "previous"

PUBLIC_MODE: Final = 0o644
PRIVATE_MODE: Final = 0o640
STORE_MODE: Final = 0o750

_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----\s.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY: Final = re.compile(r"-----BEGIN ((?:[A-Z]+ )*)PRIVATE KEY-----\s.+?-----END \1PRIVATE KEY-----", re.DOTALL)
_NAME: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


class RefusedError(Exception):
    """The certificate is not deployed; the message says why, and what to do."""


# -- what is to be deployed --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """A certificate with its chain, key and issuer: PEM, each certificate by itself."""

    chain: tuple[str, ...]
    key: str
    authorities: tuple[str, ...]

    @property
    def leaf(self) -> str:
        """The certificate itself, the first of its chain."""
        return self.chain[0]

    def files(self, name: str) -> dict[str, tuple[str, int]]:
        """Contents and modes of the files of the contract."""
        chain = "".join(f"{certificate}\n" for certificate in self.chain)
        return {
            f"{name}.cer": (chain, PUBLIC_MODE),
            f"{name}.key": (f"{self.key}\n", PRIVATE_MODE),
            "fullchain_key.pem": (f"{chain}{self.key}\n", PRIVATE_MODE),
            "ca.cer": ("".join(f"{certificate}\n" for certificate in self.authorities), PUBLIC_MODE),
        }

    def folder(self, name: str) -> str:
        """The name of its folder: the certificate's fingerprint, and a digest of what else is public beside it."""
        rest = "\n".join((name, *self.chain[1:], "", *self.authorities))
        return f"{fingerprint(self.leaf)[:32]}-{hashlib.sha256(rest.encode()).hexdigest()[:8]}"


def read_material(chain: str, key: str, authorities: str) -> Material:
    """Take PEM texts apart. Without authorities the issuer is the last certificate of the chain."""
    certificates = _certificates(chain)
    if not certificates:
        raise RefusedError("There is no certificate in the chain: it has to be PEM, the certificate itself first.")
    keys = [match[0] for match in _KEY.finditer(key)]
    if len(keys) != 1:
        raise RefusedError(f"The key file has to hold one private key in PEM, and holds {len(keys)}.")
    issuers = _certificates(authorities)
    if authorities.strip() and not issuers:
        raise RefusedError("There is no certificate in the file of the issuer: it has to be PEM.")
    if not issuers:
        issuers = certificates[-1:]
        if len(certificates) == 1 and not _signs_itself(certificates[0]):
            raise RefusedError("The chain holds nothing but the certificate itself: name its issuer by --ca.")
    return Material(tuple(certificates), keys[0], tuple(issuers))


def _signs_itself(certificate: str) -> bool:
    subject, issuer = (_openssl("x509", "-noout", f"-{part}", text=certificate) for part in ("subject", "issuer"))
    return subject.partition("=")[2] == issuer.partition("=")[2]


def _certificates(text: str) -> list[str]:
    return [match[0].replace("\r\n", "\n") for match in _CERTIFICATE.finditer(text)]


def fingerprint(certificate: str) -> str:
    """SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` has it, without colons."""
    body = "".join(certificate.strip().splitlines()[1:-1])
    try:
        return hashlib.sha256(base64.b64decode(body, validate=True)).hexdigest()
    except ValueError as error:
        raise RefusedError(f"A certificate is damaged: {error}.") from None


# -- checks ------------------------------------------------------------------------------------------------------


def check(material: Material, names: Sequence[str], now: datetime, at_least: timedelta) -> datetime:
    """Refuse what clients would refuse. Returns the end of the certificate."""
    _check_pair(material)
    end = _check_time(material, now, at_least)
    _check_names(material, names)
    _check_order(material)
    _check_issuer(material)
    return end


def _check_pair(material: Material) -> None:
    try:
        # A pass phrase that is given, and wrong, makes openssl refuse an encrypted key instead of asking for one.
        own = _openssl("pkey", "-pubout", "-passin", "pass:", text=material.key)
    except RefusedError:
        raise RefusedError("The private key can't be read. It has to be PEM without a pass phrase.") from None
    if own != _openssl("x509", "-noout", "-pubkey", text=material.leaf):
        raise RefusedError(
            "Key and certificate do not belong together. The certificate itself has to be the first of the chain, and "
            "the key the one that it was requested with."
        )


def _check_time(material: Material, now: datetime, at_least: timedelta) -> datetime:
    end = datetime.max.replace(tzinfo=UTC)
    for number, certificate in enumerate(material.chain):
        what = "The certificate" if number == 0 else f"Certificate {number + 1} of the chain"
        start, stop = _life(certificate)
        if start > now:
            raise RefusedError(f"{what} is not valid before {start:%Y-%m-%d %H:%M} UTC. Is the clock right?")
        if stop <= now:
            raise RefusedError(f"{what} has expired on {stop:%Y-%m-%d}: renew it.")
        if stop <= now + at_least:
            raise RefusedError(f"{what} ends on {stop:%Y-%m-%d}, too soon: renew it.")
        end = min(end, stop)
    return end


def _life(certificate: str) -> tuple[datetime, datetime]:
    text = _openssl("x509", "-noout", "-startdate", "-enddate", "-dateopt", "iso_8601", text=certificate)
    start, stop = (line.partition("=")[2].replace("Z", "+00:00") for line in text.split("\n")[:2])
    return datetime.fromisoformat(start), datetime.fromisoformat(stop)


def _check_names(material: Material, names: Sequence[str]) -> None:
    missing = [
        name
        for name in names
        if "does match" not in _openssl("x509", "-noout", "-checkhost", name, text=material.leaf, any_status=True)
    ]
    if missing:
        raise RefusedError(f"The certificate is not for {', '.join(missing)}: request one with all names.")


def _check_order(material: Material) -> None:
    """Each certificate of the chain has to be signed by the one after it (RFC 8446 section 4.4.2)."""
    for number, (certificate, issuer) in enumerate(zip(material.chain, material.chain[1:], strict=False), 1):
        if not _verifies(certificate, [issuer], []):
            raise RefusedError(
                f"The chain is not in order: certificate {number} is not signed by certificate {number + 1}. "
                "Order is: the certificate, its issuer, the issuer's issuer."
            )


def _check_issuer(material: Material) -> None:
    if not _verifies(material.leaf, material.authorities, material.chain[1:]):
        raise RefusedError("The certificate does not come from the issuer that is given (--ca).")


def _verifies(certificate: str, trusted: Sequence[str], others: Sequence[str]) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        command = ["verify", "-partial_chain", "-no-CApath", "-no-CAstore"]
        for option, certificates in (("-trusted", trusted), ("-untrusted", others)):
            if certificates:
                path = Path(scratch, option.strip("-"))
                path.write_text("".join(f"{each}\n" for each in certificates), "ascii")
                command += [option, str(path)]
        try:
            _openssl(*command, text=certificate)
        except RefusedError:
            return False
    return True


def _openssl(*arguments: str, text: str, any_status: bool = False) -> str:
    try:
        done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RefusedError("openssl is not installed: apt install openssl.") from None
    if done.returncode != 0 and not any_status:
        raise RefusedError(f"openssl can't read a certificate: {done.stderr.strip()}")
    return done.stdout


# -- deployment --------------------------------------------------------------------------------------------------


class Store:
    """The folder of the services' configuration, with the certificates in it.

    Everything is done relative to open folders: where the service user may write into the folder (on a development
    host), a link that it puts in the way must not lead root elsewhere.
    """

    def __init__(self, directory: Path, group: int) -> None:
        self._directory = directory
        self._group = group
        self._changes: list[str] = []

    def deploy(self, name: str, material: Material) -> str:
        """Put the files in place. Returns "deployed", "repaired" or "unchanged"."""
        files = material.files(name)
        folder = material.folder(name)
        with _opened(self._directory) as top:
            self._folder(top, STORE)
            with _opened(STORE, top) as store:
                former = _link(store, CURRENT)
                if not self._complete(store, folder, files):
                    self._write_folder(store, folder, files)
                if former != folder:
                    if former is not None:
                        _put_link(store, PREVIOUS, former)
                    _put_link(store, CURRENT, folder)
                self._link_names(top, files)
                self._discard(store)
        if former != folder:
            return "deployed"
        return "repaired" if self._changes else "unchanged"

    def _folder(self, parent: int, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, STORE_MODE, dir_fd=parent)
        try:
            with _opened(name, parent) as folder:
                if os.fstat(folder).st_uid == os.geteuid():
                    self._own(folder, name, STORE_MODE)
                    return
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        raise RefusedError(
            f"{name} in {self._directory} is not a folder of root's own: somebody has put it there. Remove it."
        )

    def _own(self, descriptor: int, name: str, mode: int) -> None:
        """Put group and mode of an open file or folder right."""
        facts = os.fstat(descriptor)
        if facts.st_gid != self._group:
            os.fchown(descriptor, -1, self._group)
            self._changes.append(name)
        if stat.S_IMODE(facts.st_mode) != mode:
            os.fchmod(descriptor, mode)
            self._changes.append(name)

    def _complete(self, store: int, folder: str, files: dict[str, tuple[str, int]]) -> bool:
        """Whether the folder holds these files; owner and modes are put right on the way."""
        try:
            with _opened(folder, store) as place:
                self._own(place, folder, STORE_MODE)
                for name, (content, mode) in files.items():
                    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=place), encoding="ascii") as file:
                        if file.read() != content:
                            return False
                        self._own(file.fileno(), name, mode)
        except FileNotFoundError:
            return False
        return True

    def _write_folder(self, store: int, folder: str, files: dict[str, tuple[str, int]]) -> None:
        new = f".{folder}.new"
        _remove_folder(store, new)
        os.mkdir(new, STORE_MODE, dir_fd=store)
        with _opened(new, store) as place:
            os.fchown(place, -1, self._group)
            os.fchmod(place, STORE_MODE)
            for name, (content, mode) in files.items():
                descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=place)
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    os.fchown(descriptor, -1, self._group)
                    os.fchmod(descriptor, mode)
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
            os.fsync(place)
        _remove_folder(store, folder)
        os.rename(new, folder, src_dir_fd=store, dst_dir_fd=store)
        os.fsync(store)
        self._changes.append(folder)

    def _link_names(self, top: int, files: dict[str, tuple[str, int]]) -> None:
        for name in files:
            target = f"{STORE}/{CURRENT}/{name}"
            if _link(top, name) != target:
                _put_link(top, name, target)
                self._changes.append(name)
        for name in os.listdir(top):
            target = _link(top, name) or ""
            if name not in files and target.startswith(f"{STORE}/{CURRENT}/"):
                os.unlink(name, dir_fd=top)  # the service had another name before
                self._changes.append(name)

    def _discard(self, store: int) -> None:
        """Remove all folders but the one in use and the one before it."""
        kept = {_link(store, CURRENT), _link(store, PREVIOUS)}
        for name in os.listdir(store):
            if name not in kept and stat.S_ISDIR(os.stat(name, dir_fd=store, follow_symlinks=False).st_mode):
                _remove_folder(store, name)


@contextmanager
def _opened(folder: str | Path, parent: int | None = None) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if parent is not None else 0)
    descriptor = os.open(folder, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _link(parent: int, name: str) -> str | None:
    """Where a link leads; None when there is no link of that name."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None


def _put_link(parent: int, name: str, target: str) -> None:
    """Make a link, in one step if there was something before."""
    new = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=parent)
    os.symlink(target, new, dir_fd=parent)
    os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)


def _remove_folder(parent: int, name: str) -> None:
    """Remove a folder of files, if it is there."""
    try:
        with _opened(name, parent) as place:
            for entry in os.listdir(place):  # noqa: PTH208 - a folder that is open
                os.unlink(entry, dir_fd=place)
    except FileNotFoundError:
        return
    os.rmdir(name, dir_fd=parent)


# -- command line ------------------------------------------------------------------------------------------------


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Deploy a certificate for all services of this host, or refuse it.")
    parser.add_argument("--name", required=True, help="the public name of the service, which the files are named after")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME", help="one more name that it has to be for"
    )
    parser.add_argument("--chain", type=Path, metavar="FILE", help="the certificate and its chain, PEM")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the private key, PEM, without a pass phrase")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="the issuer; by default the last certificate of the chain"
    )
    parser.add_argument(
        "--json", action="store_true", help="read {chain, key, ca} as JSON from the standard input instead"
    )
    parser.add_argument(
        "--directory", type=Path, default=DIRECTORY, help="the folder of the files (default: %(default)s)"
    )
    parser.add_argument("--group", default="mongooseim", help="the group that may read the key (default: %(default)s)")
    parser.add_argument("--days", type=int, default=0, help="refuse a certificate that ends within so many days")
    parser.add_argument("--check", action="store_true", help="only check; deploy nothing")
    options = parser.parse_args(arguments)
    if options.json == bool(options.chain or options.key or options.ca) or (
        not options.json and not (options.chain and options.key)
    ):
        parser.error("name the files by --chain and --key, or send them by --json")
    return options


def _read(options: argparse.Namespace) -> Material:
    if options.json:
        try:
            given = json.load(sys.stdin)
            return read_material(given["chain"], given["key"], given.get("ca") or "")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RefusedError("The standard input has to be JSON with the texts chain, key and ca.") from None
    texts = [
        path.read_text("utf-8", errors="replace") if path else "" for path in (options.chain, options.key, options.ca)
    ]
    return read_material(*texts)


def _ascii(name: str) -> str:
    """A name as certificates have it: letters of other scripts in their encoded form (xn--)."""
    try:
        encoded = name.lower().encode("idna").decode("ascii")
    except UnicodeError:
        encoded = ""
    if not _NAME.fullmatch(encoded):
        raise RefusedError(f"{name!r} is not the name of a host, such as xmpp.example.org.")
    return encoded


def run(options: argparse.Namespace) -> str:
    """Carry out the command line. Returns what is to be said."""
    names = [_ascii(name) for name in (options.name, *options.also)]
    try:
        group = grp.getgrnam(options.group).gr_gid
    except KeyError:
        raise RefusedError(f"There is no group {options.group}: the service user has to be made first.") from None
    material = _read(options)
    end = check(material, names, datetime.now(UTC), timedelta(days=options.days))
    about = f"the certificate {fingerprint(material.leaf)[:16]}… for {', '.join(names)}, valid until {end:%Y-%m-%d}"
    if options.check:
        return f"valid: {about}"
    return f"{Store(options.directory, group).deploy(options.name, material)}: {about}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns the exit status."""
    options = _arguments(arguments)
    try:
        sys.stdout.write(run(options) + "\n")
    except RefusedError as error:
        sys.stderr.write(f"Refused, the old certificate stays: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"Not deployed: {error.filename or options.directory}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

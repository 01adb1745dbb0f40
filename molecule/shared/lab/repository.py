"""The package archive inside an image, the only one that the apt of a host knows.

It holds the packages that the roles install. apt works with it as with any other archive: `apt-get update` is quick and
needs no network, versions never change below a run, and a package that nobody has listed is told apart at once.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from typing import TYPE_CHECKING

from lab.commands import LabError, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIRECTORY = "var/lib/debian-archive"
_SOURCE = f"""# Packages that the roles install; see packages.toml in the lab.
Types: deb
URIs: file:/{DIRECTORY}
Suites: ./
Trusted: yes
"""


def download_hook(packages: Sequence[str]) -> str:
    """The shell command by which mmdebstrap downloads packages, and all that they need, without installing them."""
    names = " ".join(shlex.quote(name) for name in packages)
    return (
        f'mkdir -p "$1"/{DIRECTORY}/partial && '
        f'chroot "$1" apt-get --quiet --yes --download-only -o Dir::Cache::archives=/{DIRECTORY} install {names} && '
        f'rm -rf "$1"/{DIRECTORY}/partial "$1"/{DIRECTORY}/lock'
    )


def build(root: Path) -> None:
    """Make the archive from what was downloaded, and make it the only source of the host's apt."""
    directory = root / DIRECTORY
    packages = sorted(directory.glob("*.deb"))
    if not packages:
        raise LabError("apt has downloaded no package into the image; is `archive` in packages.toml empty?")
    index = "\n".join(entry(package) for package in packages)
    (directory / "Packages").write_text(index, encoding="utf-8")

    for old in (root / "etc/apt/sources.list", *root.glob("etc/apt/sources.list.d/*")):
        old.unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(_SOURCE, encoding="utf-8")
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    run("chroot", root, "apt-get", "--quiet", "update")
    run("chroot", root, "apt-get", "clean")


def entry(package: Path) -> str:
    """A package's paragraph in the index."""
    control = run("dpkg-deb", "--field", package).rstrip("\n")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    return f"{control}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"

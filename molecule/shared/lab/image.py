"""The root file system of all hosts: made once by mmdebstrap, kept in the cache, never written to by a host."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lab import locations, mirror, repository
from lab.commands import LabError, run

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = Path(__file__).resolve().parent.parent / "packages.toml"
MAXIMUM_AGE = timedelta(days=14)
# Changes whenever the way an image is made changes: images made in another way are not used again.
RECIPE = "1"


@dataclass(frozen=True)
class Contents:
    """What an image is made of."""

    release: str
    installed: tuple[str, ...]
    archive: tuple[str, ...]

    @classmethod
    def read(cls, path: Path = PACKAGES) -> Contents:
        """Read packages.toml."""
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return cls(
            release=str(table["release"]),
            installed=tuple(sorted(set(table["installed"]))),
            archive=tuple(sorted(set(table["archive"]))),
        )

    def key(self) -> str:
        """The name of images with these contents."""
        parts = [RECIPE, self.release, *self.installed, "/", *self.archive]
        return f"{self.release}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:12]}"


def image_date(name: str, key: str) -> date | None:
    """When the image of that name was made; None when it is not one with that key."""
    prefix, _, stamp = name.rpartition("-")
    if prefix != key or len(stamp) != 8 or not stamp.isdigit():
        return None
    try:
        return date(int(stamp[:4]), int(stamp[4:6]), int(stamp[6:]))
    except ValueError:
        return None


def newest(names: Sequence[str], key: str, today: date) -> str | None:
    """The name of the image to use, or None when there is none that is young enough."""
    young = [
        (made, name)
        for name in names
        if (made := image_date(name, key)) and timedelta(0) <= today - made <= MAXIMUM_AGE
    ]
    return max(young)[1] if young else None


def ensure(in_use: Sequence[str], today: date | None = None) -> Path:
    """The directory of an image that is complete and not too old; makes it when it is not there.

    Args:
        in_use: Images that labs stand on, which must not be removed, however old they are.
        today: The date, for tests.
    """
    contents = Contents.read()
    today = today or date.today()  # noqa: DTZ011 - a day's difference means nothing here
    images = locations.cache() / "images"
    with locations.lock("image") as held:
        images.mkdir(parents=True, exist_ok=True)
        found = newest([entry.name for entry in images.iterdir()], contents.key(), today)
        if found:
            return images / found
        target = images / f"{contents.key()}-{today:%Y%m%d}"
        _remove_others(images, in_use)
        building = images / f"building-{target.name}"
        try:
            _build(contents, building, held)
            # Only a complete image ever has its final name.
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return target


def _remove_others(images: Path, in_use: Sequence[str]) -> None:
    for entry in images.iterdir():
        if str(entry) not in in_use:
            shutil.rmtree(entry, ignore_errors=True)


def _build(contents: Contents, root: Path, held: int) -> None:
    if not KEYRING.exists():
        raise LabError(f"{KEYRING} is missing: install the package debian-archive-keyring.")
    print(
        f"Making the image {root.name.removeprefix('building-')}; this happens once in {MAXIMUM_AGE.days} days.",
        flush=True,
    )
    sources = root.with_suffix(".list")
    sources.write_text(mirror.sources(contents.release), encoding="utf-8")
    try:
        # A mount namespace of its own: whatever mmdebstrap mounts is gone when it is, however it ends. It inherits the
        # lock, so that nobody cleans up below it if this process is killed.
        run(
            *("unshare", "--mount", "--propagation=private"),
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"),
            *(f"--keyring={KEYRING}", f"--include={','.join(contents.installed)}"),
            "--customize-hook=" + repository.download_hook(contents.archive),
            *(contents.release, str(root), str(sources)),
            keep=[held],
        )
    finally:
        sources.unlink()
    repository.build(root)
    for leftover in (*root.glob("etc/ssh/ssh_host_*"), root / "etc/machine-id", root / "etc/hostname"):
        leftover.unlink(missing_ok=True)
    # Empty, not absent: systemd makes an id at the first boot but does not treat it as the first boot ever.
    (root / "etc/machine-id").touch(mode=0o444)

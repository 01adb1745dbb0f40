"""Which Debian mirror to use: the one that this machine's own apt uses."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lab.commands import LabError, run

_FIELDS = ("$(REPO_URI)", "$(SUITE)", "$(CODENAME)", "$(ORIGIN)")


@dataclass(frozen=True)
class Mirror:
    """The addresses of the two archives that a Debian release consists of."""

    main: str
    security: str | None


def parse(listing: str) -> Mirror | None:
    """Find the mirror in what `apt-get indextargets` prints, one target a line, fields separated by `|`."""
    main: str | None = None
    security: str | None = None
    for line in listing.splitlines():
        address, suite, codename, origin = line.split("|")
        # Before the first `apt-get update` apt knows no origin and leaves the field as it is.
        if origin != "Debian" and not (origin.startswith("$") and "/debian" in address):
            continue
        if not address.startswith(("http://", "https://", "file:", "mirror+")):
            continue
        if suite.endswith("-security") or codename.endswith("-security") or "/debian-security" in address:
            security = security or address
        else:
            main = main or address
    return Mirror(main, security) if main else None


def find() -> Mirror:
    """The mirror to use. LAB_MIRROR and LAB_SECURITY_MIRROR override what apt says.

    Raises:
        LabError: This machine's apt knows no Debian archive.
    """
    chosen = os.environ.get("LAB_MIRROR")
    if chosen:
        return Mirror(chosen, os.environ.get("LAB_SECURITY_MIRROR"))
    found = parse(run("apt-get", "indextargets", "--format", "|".join(_FIELDS), "Created-By: Packages"))
    if found is None:
        raise LabError(
            "This machine's apt uses no Debian archive: say which to use by LAB_MIRROR (and LAB_SECURITY_MIRROR)."
        )
    return found


def sources(release: str) -> str:
    """The sources.list of a release at that mirror."""
    mirror = find()
    lines = [f"deb {mirror.main} {release} main", f"deb {mirror.main} {release}-updates main"]
    if mirror.security:
        lines.append(f"deb {mirror.security} {release}-security main")
    return "\n".join(lines) + "\n"

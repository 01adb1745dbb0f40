#!/usr/bin/env python3
"""Build the wheelhouse of a release: its dependencies at their locked versions, and its own wheel, in one archive.

Runs on the controller, for the Python and the machine of a target, and prints what it has made as JSON. The name of
a release is its version and a digest of everything that goes into it: the same sources make the same release, and
what was built once is used again. The target installs the archive without any index.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RECIPE: Final = "2"
"""Part of every digest: raised when this program makes something else of the same sources."""

SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "app/src")
"""What a release is made of, below the source folder."""

ARCHIVE: Final = "wheelhouse.tar"
MANIFEST: Final = "manifest.json"

OLDEST_GLIBC: Final = 17
"""Wheels for glibc 2.17 (manylinux2014) and newer are looked for; nothing older runs a Python that is new enough."""

KEPT: Final = 8
"""Wheelhouses that stay in the output folder, the newest ones; the rest can be built again."""

BUILD_DATE: Final = "1735689600"
"""The date in the own wheel (SOURCE_DATE_EPOCH): the same sources give the same bytes."""

_NOT_SOURCE: Final = re.compile(r"(^|/)(__pycache__|\.[^/]*|[^/]*\.egg-info)(/|$)|\.py[co]$")
_REQUIREMENT: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==[^\s;]+\s*(;\s*(?P<marker>.+?))?\s*$")

# Run by the Python of the build environment. pip has the rules of markers (PEP 508), but applies them to itself only.
_EVALUATE_MARKERS: Final = """
import json, sys
from pip._vendor.packaging.markers import Marker
request = json.load(sys.stdin)
print(json.dumps([Marker(marker).evaluate(request["environment"]) for marker in request["markers"]]))
"""


class BuildError(Exception):
    """The wheelhouse can't be built; the message says what to do."""


@dataclass(frozen=True)
class Target:
    """The machine that a wheelhouse is for."""

    python: str
    """The version of its Python, such as 3.13."""
    machine: str
    """Its architecture, as `uname -m` says it."""
    glibc: str
    """The version of its C library, such as 2.41."""

    @property
    def tag(self) -> str:
        """The short name of its Python and architecture, such as cp313-x86_64."""
        return f"cp{self.python.replace('.', '')}-{self.machine}"

    def platforms(self) -> list[str]:
        """The platform tags of wheels that it takes, the newest first."""
        major, minor = (int(part) for part in self.glibc.split(".")[:2])
        if major != 2 or minor < OLDEST_GLIBC:
            raise BuildError(
                f"The target's C library {self.glibc} is none that wheels are made for: glibc 2.17 or newer."
            )
        newest_first = range(minor, OLDEST_GLIBC - 1, -1)
        return [
            *(f"manylinux_2_{number}_{self.machine}" for number in newest_first),
            f"manylinux2014_{self.machine}",
            f"linux_{self.machine}",
        ]

    def environment(self) -> dict[str, str]:
        """The values of the markers in requirements, as the target's Python has them."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Wheelhouse:
    """What was built, or found."""

    release: str
    directory: str
    archive: str
    built: bool


def source_files(source: Path) -> list[Path]:
    """The files that a release is made of, in a fixed order."""
    found: list[Path] = []
    for name in SOURCES:
        path = source / name
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            found += (each for each in path.rglob("*") if each.is_file())
        else:
            raise BuildError(
                f"{path} is missing: a release is made from a complete checkout. Set release_source to one."
            )
    return sorted(path for path in found if not _NOT_SOURCE.search(path.relative_to(source).as_posix()))


def release_name(source: Path) -> str:
    """Version and digest: 0.1.0-3f2a9c1b."""
    digest = hashlib.sha256(RECIPE.encode())
    for path in source_files(source):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"\0{path.relative_to(source).as_posix()}\0{content}".encode())
    return f"{_project(source)['version']}-{digest.hexdigest()[:8]}"


def _project(source: Path) -> dict[str, Any]:
    try:
        project: dict[str, Any] = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))["project"]
    except (OSError, ValueError, KeyError) as error:
        raise BuildError(
            f"{source / 'pyproject.toml'} can't be read as the description of a project: {error}"
        ) from None
    return project


def logical_lines(text: str) -> Iterator[str]:
    """The requirements of a lock file, each with its hashes on one line, without comments."""
    line = ""
    for part in text.splitlines():
        stripped = part.strip()
        if stripped.startswith("#"):
            continue
        line += stripped.removesuffix("\\") + " "
        if not stripped.endswith("\\"):
            if line.strip():
                yield " ".join(line.split())
            line = ""


def split_requirement(line: str) -> tuple[str, str | None]:
    """A locked requirement without its marker, and the marker."""
    requirement, hashes, rest = line.partition(" --hash=")
    match = _REQUIREMENT.match(requirement)
    if match is None or not hashes:
        raise BuildError(f"`{requirement}` in requirements.txt is not locked to a version and hashes: run `make lock`.")
    marker = match["marker"]
    bare = requirement.partition(";")[0].strip()
    return f"{bare}{hashes}{rest}", marker


def wheel_requirement(wheel: Path) -> str:
    """The line that lets pip install this very wheel and no other."""
    name, version = wheel.name.split("-")[:2]
    return f"{name.replace('_', '-').lower()}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def ensure(source: Path, output: Path, target: Target) -> Wheelhouse:
    """Build the wheelhouse unless it is there. A build that was interrupted leaves nothing that looks like one."""
    release = release_name(source)
    directory = output / f"{release}-{target.tag}"
    with _locked(output):
        if not (directory / MANIFEST).is_file():
            _discard_leftovers(output)
            with tempfile.TemporaryDirectory(prefix=".building-", dir=output) as scratch:
                finished = _build(source, Path(scratch), target, release)
                shutil.rmtree(directory, ignore_errors=True)
                finished.rename(directory)
            _discard_old(output)
            return Wheelhouse(release, str(directory), str(directory / ARCHIVE), built=True)
    return Wheelhouse(release, str(directory), str(directory / ARCHIVE), built=False)


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """One build at a time; a second one waits, and then finds what the first one has made."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _discard_leftovers(output: Path) -> None:
    for leftover in output.glob(".building-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _discard_old(output: Path) -> None:
    wheelhouses = sorted(output.glob(f"*/{MANIFEST}"), key=lambda manifest: manifest.stat().st_mtime, reverse=True)
    for manifest in wheelhouses[KEPT:]:
        shutil.rmtree(manifest.parent, ignore_errors=True)


def _build(source: Path, scratch: Path, target: Target, release: str) -> Path:
    wheels, tree, finished = scratch / "wheels", scratch / "source", scratch / "finished"
    wheels.mkdir()
    finished.mkdir()
    python = _environment(scratch / "environment")
    for path in source_files(source):
        copy = tree / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if release_name(tree) != release:
        raise BuildError("The sources were changed while they were being copied: run it again.")
    _download(python, tree, wheels, target, scratch / "locked.txt")
    _build_own(python, tree, wheels)
    requirements = sorted(wheel_requirement(wheel) for wheel in wheels.glob("*.whl"))
    (wheels / "requirements.txt").write_text("\n".join(requirements) + "\n", "utf-8")
    _pack(finished / ARCHIVE, sorted(wheels.iterdir()))
    manifest = {"release": release, "target": asdict(target), "requirements": requirements}
    (finished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return finished


def _environment(directory: Path) -> Path:
    """A virtual environment to build in, so that it does not matter what the controller has installed."""
    _run(
        [sys.executable, "-m", "venv", str(directory)],
        "make a virtual environment (on Debian: apt install python3-venv)",
    )
    return directory / "bin" / "python"


def _download(python: Path, tree: Path, wheels: Path, target: Target, locked: Path) -> None:
    """Fetch the wheels of the target. pip checks every hash of the lock file, and takes nothing but wheels."""
    entries = [split_requirement(line) for line in logical_lines((tree / "requirements.txt").read_text("utf-8"))]
    wanted = _select(python, entries, target)
    locked.write_text("\n".join(wanted) + "\n", "utf-8")
    abi = f"cp{target.python.replace('.', '')}"
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--python-version", target.python]
    command += ["--implementation", "cp", "--abi", abi, "--abi", "abi3", "--abi", "none"]
    for platform in target.platforms():
        command += ["--platform", platform]
    _run([*command, "--dest", str(wheels), "--requirement", str(locked)], "download the locked dependencies")


def _select(python: Path, entries: Sequence[tuple[str, str | None]], target: Target) -> list[str]:
    """The requirements that hold for the target."""
    markers = sorted({marker for _, marker in entries if marker is not None})
    request = json.dumps({"environment": target.environment(), "markers": markers})
    answers = json.loads(_run([str(python), "-c", _EVALUATE_MARKERS], "read the markers of requirements.txt", request))
    holds = dict(zip(markers, answers, strict=True))
    return [requirement for requirement, marker in entries if marker is None or holds[marker]]


def _build_own(python: Path, tree: Path, wheels: Path) -> None:
    """Make the own wheel with the locked setuptools. Nothing is fetched."""
    setuptools = next(wheels.glob("setuptools-*.whl"), None)
    if setuptools is None:
        raise BuildError("setuptools is not in requirements.txt, but needed to build the own wheel: run `make lock`.")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(setuptools)], "install setuptools")
    build = [*pip, "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    _run([*build, str(tree)], "build the own wheel", dated=True)


def _pack(archive: Path, files: Iterable[Path]) -> None:
    with tarfile.open(archive, "w") as tar:
        for path in files:
            facts = tar.gettarinfo(path, path.name)
            facts.uid = facts.gid = facts.mtime = 0
            facts.uname = facts.gname = "root"
            facts.mode = 0o644
            with path.open("rb") as content:
                tar.addfile(facts, content)


def _run(command: Sequence[str], purpose: str, text: str | None = None, *, dated: bool = False) -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if dated:
        environment["SOURCE_DATE_EPOCH"] = BUILD_DATE
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildError(f"Could not {purpose}; the command ended with status {done.returncode}:\n{reason}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Prints JSON, and returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the wheelhouse of a release.")
    parser.add_argument("--source", type=Path, required=True, help="the checkout to make the release from")
    parser.add_argument("--name-only", action="store_true", help="only tell the name of the release")
    parser.add_argument("--output", type=Path, help="the folder of all wheelhouses")
    parser.add_argument("--python", help="the target's version of Python: 3.13")
    parser.add_argument("--machine", help="the target's architecture, as uname -m says it: x86_64")
    parser.add_argument("--glibc", help="the target's version of the C library: 2.41")
    options = parser.parse_args(arguments)
    try:
        if options.name_only:
            answer: dict[str, Any] = {"release": release_name(options.source)}
        elif not all((options.output, options.python, options.machine, options.glibc)):
            parser.error("--output, --python, --machine and --glibc are needed, or --name-only")
        else:
            target = Target(options.python, options.machine, options.glibc)
            answer = asdict(ensure(options.source.resolve(), options.output.resolve(), target))
    except (BuildError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

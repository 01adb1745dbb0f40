"""What reading a configuration gives: settings, problems, and the differences between two readings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from monktalk.common.config.option import REQUIRED
from monktalk.common.config.schema import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monktalk.common.config.locate import Path as Location
    from monktalk.common.config.schema import Schema, Section

Values = dict[str, Any]
SectionPath = tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a configuration; `line` is 0 where no line is to blame."""

    source: str
    line: int
    key: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.key}: {self.reason}" if self.key else f"{place}: {self.reason}"


class ConfigError(Exception):
    """A configuration that cannot be used; its text has a line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


class Settings:
    """The values of one section, as attributes; iterating gives the options' names."""

    def __init__(self, section: Section, values: Values) -> None:
        self.__dict__.update(values)
        self.__dict__["_section"] = section

    def __getattr__(self, name: str) -> Any:
        # Called only for what is not in __dict__.
        section = self.__dict__.get("_section")
        raise AttributeError(f"The section [{section.name if section else '?'}] has no option {name!r}.")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Settings do not change: {name!r} cannot be set.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._section.by_name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Settings):
            return self.__dict__ == other.__dict__
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # values may be compared, not used as keys

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={'[redacted]' if option.secret else repr(getattr(self, name))}"
            for name, option in self._section.by_name.items()
        )
        return f"Settings([{self._section.name}] {shown})"


class Change(NamedTuple):
    """An option that differs between two configurations.

    `key` is "" when a section has appeared or disappeared. `path` begins with "host" and the host's name for
    what is set for one host. `restart` says that a running program cannot take the change over.
    """

    path: SectionPath
    key: str
    restart: bool


@dataclass
class Tables:
    """The values that a file sets, by section: of single ones, of repeated ones, and of hosts."""

    one: dict[SectionPath, Values] = field(default_factory=dict)
    many: dict[SectionPath, list[Values]] = field(default_factory=dict)
    hosts: dict[str, dict[SectionPath, Values]] = field(default_factory=dict)
    spelling: dict[str, str] = field(default_factory=dict)
    """How the file writes the name of a host, which is prepared in `hosts`."""


class Config:
    """A valid configuration. `hosts` names those for which it overrides something."""

    def __init__(self, schema: Schema, source: str, tables: Tables, lines: dict[Location, int], base: Path) -> None:
        self.schema = schema
        self.source = source
        self.hosts = tuple(tables.hosts)
        self._tables = tables
        self._lines = lines
        self._base = base
        self._one: dict[tuple[str | None, SectionPath], Settings] = {}
        self._many: dict[SectionPath, tuple[Settings, ...]] = {}
        for section in schema.sections:
            self._build(section)

    def section(self, *path: str, host: str | None = None) -> Settings:
        """Return the settings of a section, with what `host` overrides when one is named.

        Raises:
            KeyError: there is no such section, it is a repeated one, or it is not in the file, is optional
                and has required options.
        """
        settings = self._one.get((host, path)) or self._one.get((None, path))
        if settings is None:
            raise KeyError(f"The configuration has no section [{'.'.join(path)}].")
        return settings

    def sections(self, *path: str) -> tuple[Settings, ...]:
        """Return the settings of a repeated section, in the order of the file.

        Raises:
            KeyError: there is no such section, or it is not a repeated one.
        """
        return self._many[path]

    def present(self, *path: str, host: str | None = None) -> bool:
        """Return whether the file has the section, for everybody or for `host`."""
        return path in self._tables.one or path in self._tables.many or path in self._tables.hosts.get(host or "", {})

    def problem(
        self, path: SectionPath, key: str, reason: str, *, host: str | None = None, index: int | None = None
    ) -> Problem:
        """Return a problem with a value that the schema allowed, with its line.

        For checks that a schema cannot make, such as a certificate that does not fit its key. `index` counts
        repeated sections from 0.
        """
        location: Location = path if index is None else (*path, index)
        if host is not None:
            location = (HOST, self._tables.spelling.get(host, host), *location)
        location = (*location, key) if key else location
        return Problem(self.source, line_of(self._lines, location), dotted(location), reason)

    def diff(self, other: Config) -> list[Change]:
        """Return what differs in `other`, which must have the same schema."""
        changes: list[Change] = []
        for section in self.schema.sections:
            if section.multiple:
                changes += self._diff_many(section, other)
            else:
                changes += self._diff_one(section, other)
        for host in dict.fromkeys((*self.hosts, *other.hosts)):
            changes += self._diff_host(host, other)
        return changes

    def _build(self, section: Section) -> None:
        defaults = {
            option.name: rooted(option.initial(), self._base)
            for option in section.options
            if option.default is not REQUIRED
        }
        if section.multiple:
            elements = self._tables.many.get(section.path, [])
            self._many[section.path] = tuple(Settings(section, defaults | values) for values in elements)
            return
        common = defaults | self._tables.one.get(section.path, {})
        if not missing(section, common):
            self._one[None, section.path] = Settings(section, common)
        for host, tables in self._tables.hosts.items():
            if section.path in tables:
                self._one[host, section.path] = Settings(section, common | tables[section.path])

    def _diff_one(self, section: Section, other: Config) -> Iterator[Change]:
        if self.present(*section.path) != other.present(*section.path):
            yield Change(section.path, "", restart=False)
        ours, theirs = (config._one.get((None, section.path)) for config in (self, other))  # noqa: SLF001 - same class
        for option in section.options:
            if getattr(ours, option.name, None) != getattr(theirs, option.name, None):
                yield Change(section.path, option.name, option.restart)

    def _diff_many(self, section: Section, other: Config) -> Iterator[Change]:
        ours, theirs = self.sections(*section.path), other.sections(*section.path)
        if len(ours) != len(theirs):
            yield Change(section.path, "", restart=False)
        for option in section.options:
            pairs = zip(ours, theirs, strict=False)  # those that only one has are reported above
            if any(getattr(one, option.name) != getattr(two, option.name) for one, two in pairs):
                yield Change(section.path, option.name, option.restart)

    def _diff_host(self, host: str, other: Config) -> Iterator[Change]:
        ours, theirs = (config._tables.hosts.get(host, {}) for config in (self, other))  # noqa: SLF001 - same class
        for section in self.schema.sections:
            path = (HOST, host, *section.path)
            if (section.path in ours) != (section.path in theirs):
                yield Change(path, "", restart=False)
            one, two = ours.get(section.path, {}), theirs.get(section.path, {})
            for option in section.options:
                if (option.name in one, one.get(option.name)) != (option.name in two, two.get(option.name)):
                    yield Change(path, option.name, option.restart)


def rooted(value: Any, base: Path) -> Any:
    """Return `value`, a relative path as one that starts at `base`."""
    return base / value if isinstance(value, Path) else value


def missing(section: Section, values: Values) -> list[str]:
    """Return the names of the required options that `values` lacks."""
    return [option.name for option in section.options if option.default is REQUIRED and option.name not in values]


def line_of(lines: dict[Location, int], location: Location) -> int:
    """Return the line of `location`, or of the nearest table around it; 0 when the file has none of them."""
    while location:
        if location in lines:
            return lines[location]
        location = location[:-1]
    return 0


def dotted(location: Location) -> str:
    """Return a location as people write it: listen.c2s[0].port, host."example.org".modules.roster."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if bare else f'"{part}"')
    return text

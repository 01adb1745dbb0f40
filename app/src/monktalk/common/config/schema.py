"""Sections, and the schema that they make together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from monktalk.common.config.option import Option

HOST = "host"
"""The table under which hosts override sections: [host."example.org".modules.roster]."""


@dataclass(frozen=True)
class Section:
    """A table of the file.

    Attributes:
        path: its name: ("limits",) is [limits], ("modules", "roster") is [modules.roster], () the keys before
            any table.
        doc: what it is about.
        options: its keys.
        multiple: it may stand there several times, [[listen.c2s]], and not at all.
        per_host: a host may override its options in [host."example.org".modules.roster].
        optional: options that are required are so only where the section is there.
    """

    path: tuple[str, ...]
    doc: str
    options: tuple[Option, ...] = ()
    multiple: bool = False
    per_host: bool = False
    optional: bool = False
    by_name: dict[str, Option] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [option.name for option in self.options]
        keys = names + [f"{option.name}_file" for option in self.options if option.secret]
        if len(set(keys)) != len(keys):
            raise ValueError(f"Section {self.name}: two options have the same name.")
        if self.multiple and (self.per_host or not self.path):
            raise ValueError(f"Section {self.name}: a repeated section cannot be the top one or per host.")
        object.__setattr__(self, "by_name", dict(zip(names, self.options, strict=True)))

    @property
    def name(self) -> str:
        """The path as in the file's headers."""
        return ".".join(self.path)

    def file_option(self, key: str) -> Option | None:
        """Return the secret option whose file the key `<option>_file` names, None for other keys."""
        option = self.by_name.get(key.removesuffix("_file")) if key.endswith("_file") else None
        return option if option is not None and option.secret else None

    def keys(self) -> Iterator[str]:
        """Yield every key that may stand in the section."""
        for option in self.options:
            yield option.name
            if option.secret:
                yield f"{option.name}_file"


class Schema:
    """All sections of a program's configuration.

    Raises:
        ValueError: two sections have one path, or an option and a section one name.
    """

    def __init__(self, sections: Iterable[Section]) -> None:
        self.sections = tuple(sections)
        self._by_path: dict[tuple[str, ...], Section] = {}
        self._tables: dict[tuple[str, ...], set[str]] = {}
        for section in self.sections:
            self._add(section)
        for section in self.sections:
            for name in set(section.keys()) & self._tables.get(section.path, set()):
                raise ValueError(f"{name!r} is both an option and a section inside of [{section.name}].")

    def section(self, path: tuple[str, ...]) -> Section | None:
        """Return the section of this path, None when there is none."""
        return self._by_path.get(path)

    def tables(self, path: tuple[str, ...]) -> frozenset[str]:
        """Return the names of the tables that may stand inside the table `path`."""
        return frozenset(self._tables.get(path, ()))

    @property
    def has_hosts(self) -> bool:
        """Whether any section may be overridden for a host."""
        return any(section.per_host for section in self.sections)

    def _add(self, section: Section) -> None:
        if section.path in self._by_path:
            raise ValueError(f"There are two sections [{section.name}].")
        if section.path[:1] == (HOST,):
            raise ValueError(f"[{section.name}]: [{HOST}] is for what hosts override.")
        self._by_path[section.path] = section
        for depth, name in enumerate(section.path):
            self._tables.setdefault(section.path[:depth], set()).add(name)

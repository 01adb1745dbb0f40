"""Reading a configuration: a TOML text and a schema give a `Config`, or all problems at once."""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monktalk.common.config.locate import locate
from monktalk.common.config.model import (
    Config,
    ConfigError,
    Problem,
    Tables,
    dotted,
    line_of,
    missing,
    rooted,
)
from monktalk.common.config.schema import HOST
from monktalk.common.jid import InvalidJID, prepare_domain

if TYPE_CHECKING:
    from monktalk.common.config.locate import Path as Location
    from monktalk.common.config.model import SectionPath, Values
    from monktalk.common.config.option import Option
    from monktalk.common.config.schema import Schema, Section

_SYNTAX_ERROR: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL).fullmatch
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_KEY_OF_LINE: Final = re.compile(r"\s*([A-Za-z0-9_.\"'-]+)\s*=").match


def load(path: Path, schema: Schema) -> Config:
    """Read the configuration file `path`. Relative paths in it start at its directory.

    Raises:
        ConfigError: the file cannot be read, or says something that `schema` does not allow.
    """
    return parse(read_text(path), str(path), schema, base=path.parent)


def read_text(path: Path) -> str:
    """Read the file, for :func:`parse`.

    Raises:
        ConfigError: it cannot be read.
    """
    source = str(path)
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([Problem(source, 0, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([Problem(source, line, "", "is not UTF-8")]) from error


def parse(text: str, source: str, schema: Schema, *, base: Path | None = None) -> Config:
    """Read a configuration from `text`; `source` names it in problems.

    Relative paths in it start at `base`, or stay as they are without one.

    Raises:
        ConfigError: it says something that `schema` does not allow.
    """
    # TOML allows both line ends; with one of them only, positions are simple to find.
    text = text.replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(text, source, error)]) from error
    lines = locate(text)
    reader = _Reader(source, schema, lines, base or Path())
    reader.read(document)
    if reader.problems:
        raise ConfigError(sorted(reader.problems, key=lambda problem: problem.line))
    return Config(schema, source, reader.tables, lines, reader.base)


def _syntax_problem(text: str, source: str, error: tomllib.TOMLDecodeError) -> Problem:
    match = _SYNTAX_ERROR(str(error))
    reason = match[1] if match else str(error)
    lines = text.rstrip("\n").split("\n")
    line = min(int(match[2]), len(lines)) if match and match[2] else len(lines)
    key = _KEY_OF_LINE(lines[line - 1])
    return Problem(source, line, key[1] if key else "", f"not valid TOML: {reason}")


def _credential(written: str) -> str:
    """Return the path of a secret; one that begins with $CREDENTIALS_DIRECTORY/ is where systemd has put it for the unit."""
    prefix = f"${_CREDENTIALS}/"
    if not written.startswith(prefix):
        return written
    directory = os.environ.get(_CREDENTIALS)
    if not directory:
        raise ValueError(
            f"names {written}, but the environment variable {_CREDENTIALS} is not set: systemd sets it for units that have "
            "LoadCredential=; elsewhere set it to the directory where the secrets are"
        )
    return f"{directory}/{written.removeprefix(prefix)}"


class _Reader:
    """Walks a document along the schema and gathers values and problems."""

    def __init__(self, source: str, schema: Schema, lines: dict[Location, int], base: Path) -> None:
        self.problems: list[Problem] = []
        self.tables = Tables()
        self._source = source
        self._schema = schema
        self._lines = lines
        self.base = base

    def read(self, document: dict[str, Any]) -> None:
        self._table((), document, None)
        for section in self._schema.sections:
            if section.multiple:
                for index, values in enumerate(self.tables.many.get(section.path, [])):
                    self._require(section, values, (*section.path, index))
            else:
                self._require_one(section)

    def _table(self, path: SectionPath, raw: dict[str, Any], host: str | None) -> None:
        """Read one table and those inside it; `host` is set below [host."…"]."""
        section = self._schema.section(path)
        keys = set(section.keys()) if section else set()
        inner = self._schema.tables(path)
        location = self._location(path, host)
        own = {key: value for key, value in raw.items() if key in keys}
        if section is not None and (path or own):
            self._own(section, own, host, location)
        for key, value in raw.items():
            if key in inner:
                self._inner((*path, key), value, host)
            elif key == HOST and not path and host is None and self._schema.has_hosts:
                self._hosts(value)
            elif key not in keys:
                self._unknown((*location, key), value, keys, inner)

    def _own(self, section: Section, raw: dict[str, Any], host: str | None, location: Location) -> None:
        if host is None:
            self.tables.one[section.path] = self._values(section, raw, location)
        elif section.per_host:
            self.tables.hosts[host][section.path] = self._values(section, raw, location)
        else:
            for key in raw:
                self._report((*location, key), "cannot be set for one host")

    def _inner(self, path: SectionPath, raw: object, host: str | None) -> None:
        section = self._schema.section(path)
        location = self._location(path, host)
        if section is not None and section.multiple:
            self._elements(section, raw, host, location)
        elif isinstance(raw, dict):
            self._table(path, raw, host)
        else:
            self._report(location, f"must be a section, [{dotted(location)}]")

    def _elements(self, section: Section, raw: object, host: str | None, location: Location) -> None:
        if host is not None:
            self._report(location, "cannot be set for one host")
        elif not isinstance(raw, list) or not all(isinstance(element, dict) for element in raw):
            self._report(location, f"must be written as [[{section.name}]], once for each")
        else:
            self.tables.many[section.path] = [
                self._element(section, element, (*location, index)) for index, element in enumerate(raw)
            ]

    def _element(self, section: Section, raw: dict[str, Any], location: Location) -> Values:
        keys = set(section.keys())
        for key, value in raw.items():
            if key not in keys:
                self._unknown((*location, key), value, keys, frozenset())
        return self._values(section, {key: raw[key] for key in raw if key in keys}, location)

    def _hosts(self, raw: object) -> None:
        if not isinstance(raw, dict):
            self._report((HOST,), f'must be sections like [{HOST}."example.org".modules.roster]')
            return
        for name, tables in raw.items():
            try:
                host = prepare_domain(name)
            except InvalidJID as error:
                self._report((HOST, name), f"does not name a host: {error}")
                continue
            if host in self.tables.hosts:
                self._report((HOST, name), f"is the host {host} for the second time")
            elif not isinstance(tables, dict):
                self._report((HOST, name), f'must be sections like [{HOST}."{name}".modules.roster]')
            else:
                self.tables.spelling[host] = name
                self.tables.hosts[host] = {}
                self._table((), tables, host)

    def _values(self, section: Section, raw: dict[str, Any], location: Location) -> Values:
        values: Values = {}
        for key, written in raw.items():
            option = section.by_name.get(key)
            named_by_file = section.file_option(key) if option is None else None
            try:
                if option is not None:
                    values[key] = rooted(option.convert(written), self.base)
                elif named_by_file is not None:
                    values[named_by_file.name] = self._from_file(named_by_file, written, raw)
            except ValueError as error:
                self._report((*location, key), str(error))
                # A wrong value is one problem; that the option were missing would be a second, and untrue.
                values[named_by_file.name if named_by_file else key] = None
        return values

    def _from_file(self, option: Option, written: object, raw: dict[str, Any]) -> Any:
        """Return the value of a secret option from the file that `<option>_file` names."""
        if option.name in raw:
            raise ValueError(f'cannot stand beside "{option.name}": keep one of them')
        if not isinstance(written, str) or not written or "\0" in written:
            raise ValueError("must be the path of a file")
        path = self.base / _credential(written)
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8") from error
        try:
            return option.convert(text.removesuffix("\n"))
        except ValueError as error:
            raise ValueError(f"the content of {path} {error}") from error

    def _require_one(self, section: Section) -> None:
        written = self.tables.one.get(section.path)
        if written is not None or not section.optional:
            self._require(section, written or {}, section.path)
            return
        for host, tables in self.tables.hosts.items():
            if section.path in tables:
                self._require(section, tables[section.path], self._location(section.path, host))

    def _require(self, section: Section, values: Values, location: Location) -> None:
        for name in missing(section, values):
            self._report((*location, name), "is missing")

    def _unknown(self, location: Location, value: object, keys: set[str], inner: frozenset[str]) -> None:
        kind = "section" if isinstance(value, dict) else "option"
        near = get_close_matches(str(location[-1]), sorted(keys | inner), n=1)
        advice = f'; did you mean "{near[0]}"?' if near else ""
        self._report(location, f"unknown {kind}{advice}")

    def _location(self, path: SectionPath, host: str | None) -> Location:
        return path if host is None else (HOST, self.tables.spelling[host], *path)

    def _report(self, location: Location, reason: str) -> None:
        line = line_of(self._lines, location)
        self.problems.append(Problem(self._source, line, dotted(location), reason))

"""The reference of a schema as Markdown: what docs/reference/configuration.md is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from monktalk.common.config.option import REQUIRED, Kind, Option
from monktalk.common.config.schema import HOST

if TYPE_CHECKING:
    from monktalk.common.config.schema import Schema, Section

_NOTATION = """\
A size is a number of bytes or a text such as `"256 KiB"` (B, kB, MB, GB, KiB, MiB, GiB). A duration is a
number of seconds or a text such as `"30 s"` or `"1 h 30 min"` (ms, s, min, h, d). A relative path starts at
the directory of the configuration file. In place of a secret `<option>`, `<option>_file` may name a file that
holds it; `$CREDENTIALS_DIRECTORY/NAME` is a credential of the systemd unit.
"""


def reference(schema: Schema) -> str:
    """Return a Markdown page, from the second heading level down, of every section and option of `schema`."""
    parts = [_NOTATION]
    if schema.has_hosts:
        parts.append(
            "What is marked *per host* may be set for one host in a table of its own, such as\n"
            f'`[{HOST}."example.org".modules.roster]`; other hosts keep the common value.\n'
        )
    parts.extend(_section(section) for section in schema.sections)
    return "\n".join(parts)


def _section(section: Section) -> str:
    lines = [f"## {_heading(section)}", "", section.doc, ""]
    notes = [
        note
        for applies, note in (
            (section.multiple, "may be repeated"),
            (section.per_host, "per host"),
            (section.optional, "optional"),
        )
        if applies
    ]
    if notes:
        lines += [f"*{', '.join(notes).capitalize()}.*", ""]
    if section.options:
        lines += ["| option | value | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [_row(option) for option in section.options]
        lines.append("")
    return "\n".join(lines)


def _heading(section: Section) -> str:
    if not section.path:
        return "Top of the file"
    return f"`[[{section.name}]]`" if section.multiple else f"`[{section.name}]`"


def _row(option: Option) -> str:
    meaning = " ".join(option.doc.split())
    notes = ["Secret."] if option.secret else []
    notes += ["Takes effect at the next start."] if option.restart else []
    cells = (f"`{option.name}`", _value(option), _default(option), " ".join(filter(None, (meaning, *notes))))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _value(option: Option) -> str:
    text = option.kind.value
    if option.choices:
        listed = ", ".join(f"`{choice}`" for choice in option.choices)
        text = f"{text} {listed}" if option.kind is Kind.CHOICE else f"{text} ({listed})"
    bounds = [
        f"{word} {option.written_bound(bound)}"
        for word, bound in (("at least", option.minimum), ("at most", option.maximum))
        if bound is not None
    ]
    return ", ".join((text, *bounds))


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "**required**"
    if option.default is None:
        return "not set"
    return f"`{_toml(option.default)}`"


def _toml(value: Any) -> str:
    """Return a default as it would be written in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)

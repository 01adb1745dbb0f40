"""The filter xmpp_server_toml: a mapping written as a TOML document, the way a person would write a configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_LINE: Final = 100


class TomlError(ValueError):
    """A value that TOML has no form for; the message names its place."""


def to_toml(document: Mapping[str, Any]) -> str:
    """Write a mapping as TOML: what stands in a table first, then the tables inside it. No value may be null."""
    if not isinstance(document, Mapping):
        raise TomlError(f"A TOML document is a mapping of sections, not {type(document).__name__}.")
    return "\n".join(_table(document, ())).strip("\n")


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    values = {key: value for key, value in table.items() if not _is_table(value) and not _is_tables(value)}
    if path and (values or not table):
        yield from ("", f"[{_dotted(path)}]")
    for key, value in values.items():
        yield f"{_key(key)} = {_value(value, (*path, key))}"
    for key, value in table.items():
        here = (*path, str(key))
        if _is_table(value):
            yield from _table(value, here)
        elif _is_tables(value):
            for element in value:
                yield from ("", f"[[{_dotted(here)}]]")
                for inner, content in element.items():
                    yield f"{_key(inner)} = {_value(content, (*here, inner))}"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and all(isinstance(element, Mapping) for element in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(_key(key) for key in path)


def _key(key: object) -> str:
    text = str(key)
    return text if _BARE_KEY.fullmatch(text) else _text(text)


def _value(value: Any, path: tuple[Any, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if _is_list(value):
        return _list([_value(element, path) for element in value])
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(each, (*path, key))}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    place = ".".join(str(key) for key in path)
    raise TomlError(
        f"{place} is {value!r}: TOML has texts, numbers, booleans, lists and tables only. Set or remove it."
    )


def _list(elements: list[str]) -> str:
    """On one line when it is short, else with a line for each element, which tools and people edit easily."""
    short = f"[{', '.join(elements)}]"
    if len(short) <= _LINE:
        return short
    return "\n".join(("[", *(f"    {element}," for element in elements), "]"))


def _text(text: str) -> str:
    """A basic string. JSON escapes the same characters, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """The filters of this file."""
        return {"xmpp_server_toml": to_toml}

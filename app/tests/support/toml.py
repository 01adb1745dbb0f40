"""Write the configuration of a server under test."""

from __future__ import annotations

import json
from typing import Any

Table = dict[str, Any]


def merged(base: Table, overrides: Table) -> Table:
    """``base`` with ``overrides`` laid over it, table by table; a value of None removes the key."""
    result = dict(base)
    for key, value in overrides.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def dumps(table: Table) -> str:
    """``table`` as TOML: values, tables and arrays of tables."""
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Table, path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _is_table(value)]
    for key, value in table.items():
        inner = (*path, key)
        heading = ".".join(_key(part) for part in inner)
        if isinstance(value, dict):
            lines += [f"[{heading}]", *_lines(value, inner)]
        elif _is_table(value):
            for each in value:
                lines += [f"[[{heading}]]", *_lines(each, inner)]
    return lines


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(str(value))
